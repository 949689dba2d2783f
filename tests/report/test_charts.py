"""Charts: where points land, and what is written beside them."""

import re
from xml.etree import ElementTree

import pytest

from losa_jax.report.charts import (
    HEIGHT,
    MAX_POINTS,
    WIDTH,
    bar_chart,
    line_chart,
    number,
    thin,
)

SVG = re.compile(r"<svg.*</svg>", re.DOTALL)


def _drawn(chart):
    return ElementTree.fromstring(SVG.search(chart)[0])


def _points(element):
    return [tuple(map(float, pair.split(",")))
            for pair in element.get("points").split()]


def test_a_long_series_keeps_its_mean_and_its_span():
    points = [(step, float(step % 2)) for step in range(1, 1001)]
    thinned = thin("loss", points).points
    assert len(thinned) <= MAX_POINTS
    assert thinned[-1][0] == 1000
    assert all(low == 0 and high == 1 for *_, low, high in thinned[:-1])
    assert thin("loss", points[:3]).points == (
        (1, 1.0, 1.0, 1.0), (2, 0.0, 0.0, 0.0), (3, 1.0, 1.0, 1.0))


def test_points_lie_on_the_scale():
    chart = line_chart("t", [thin("a", [(0, 0.0), (50, 5.0), (100, 10.0)])],
                       place=0)
    drawn = _drawn(chart)
    first, middle, last = _points(drawn.find(".//polyline"))
    assert middle[0] == pytest.approx((first[0] + last[0]) / 2, abs=0.1)
    assert middle[1] == pytest.approx((first[1] + last[1]) / 2, abs=0.1)
    assert first[1] > last[1]  # up is more
    ticks = {text.text: float(text.get("y")) for text in drawn.iter("text")
             if text.get("text-anchor") == "end"}
    assert ticks["0"] - 4 == pytest.approx(first[1], abs=0.1)
    assert ticks["10"] - 4 == pytest.approx(last[1], abs=0.1)


def test_a_logarithmic_scale_is_even_in_ratios():
    chart = line_chart("t", [thin("a", [(0, 1e-3), (1, 1e-1), (2, 1e1)])],
                       place=0, may_be_log=True)
    one, two, three = [y for _, y in _points(_drawn(chart).find(
        ".//polyline"))]
    assert one - two == pytest.approx(two - three, abs=0.2)


@pytest.mark.parametrize("points", [
    [(1, 0.0)], [(1, 2.5), (2, 2.5)], [(5, -1.0), (6, -3.0)],
    [(1, 1e-9), (2, 2e9)]])
def test_odd_series_are_drawn_within_the_picture(points):
    for may_be_log in (False, True):
        chart = line_chart("t", [thin("a", points)], place=0,
                           may_be_log=may_be_log)
        for x, y in _points(_drawn(chart).find(".//polyline")):
            assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT


def test_stacked_bars_stand_on_each_other():
    drawn = _drawn(bar_chart("t", ["one"], {"a": [30.0], "b": [70.0]},
                             stacked=True))
    low, high = drawn.iter("rect")
    assert float(high.get("y")) + float(high.get("height")) == pytest.approx(
        float(low.get("y")), abs=0.2)
    assert float(high.get("height")) / float(low.get("height")
                                             ) == pytest.approx(7 / 3, 0.01)


def test_bars_below_zero_hang():
    drawn = _drawn(bar_chart("t", ["a", "b"], {"x": [2.0, -1.0]}))
    up, down = drawn.iter("rect")
    assert float(down.get("y")) == pytest.approx(
        float(up.get("y")) + float(up.get("height")), abs=0.2)


def test_names_are_escaped_and_numbers_stand_as_text():
    chart = bar_chart("<t>", ["<b>"], {"<i>": [12.5]})
    assert "<b>" not in chart and "&lt;b&gt;" in chart
    assert "<td>12.5</td>" in chart
    assert [number(value) for value in (0, 0.5, 12345, 1.38e-8, 5e-4)] == [
        "0", "0.5", "12,345", "1.38e-08", "0.0005"]
