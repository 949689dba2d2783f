"""Bar charts: where the bars lie, and the numbers below them."""

import re
from xml.etree import ElementTree

import pytest

from losa_jax.report.charts import bar_chart, number

SVG = re.compile(r"<svg.*</svg>", re.DOTALL)


def _drawn(chart):
    return ElementTree.fromstring(SVG.search(chart)[0])


def test_a_bar_reaches_the_tick_of_its_value():
    drawn = _drawn(bar_chart("t", ["a", "b"], {"x": [10.0, 5.0]}))
    ticks = {text.text: float(text.get("y")) - 4 for text
             in drawn.iter("text") if text.get("text-anchor") == "end"}
    ten, five = drawn.iter("rect")
    assert float(ten.get("y")) == pytest.approx(ticks["10"], abs=0.1)
    assert 2 * float(five.get("height")) == pytest.approx(
        float(ten.get("height")), abs=0.2)
    assert float(ten.get("y")) + float(ten.get("height")) == pytest.approx(
        ticks["0"], abs=0.2)


def test_stacked_bars_stand_on_each_other():
    drawn = _drawn(bar_chart("t", ["one"], {"a": [30.0], "b": [70.0]},
                             stacked=True))
    low, high = drawn.iter("rect")
    assert float(high.get("y")) + float(high.get("height")) == pytest.approx(
        float(low.get("y")), abs=0.2)
    assert float(high.get("height")) / float(low.get("height")
                                             ) == pytest.approx(7 / 3, 0.01)


def test_the_number_over_the_highest_bar_is_inside_the_chart():
    drawn = _drawn(bar_chart("t", ["one"], {"a": [100.0]}))
    # An ascender of the 10 px font is below 10 px.
    assert all(float(text.get("y")) >= 10 for text in drawn.iter("text"))


def test_negative_bars_hang_below_zero():
    drawn = _drawn(bar_chart("t", ["a", "b"], {"x": [2.0, -1.0]}))
    up, down = drawn.iter("rect")
    assert float(down.get("y")) == pytest.approx(
        float(up.get("y")) + float(up.get("height")), abs=0.2)


def test_names_are_escaped_and_numbers_are_text():
    chart = bar_chart("<t>", ["<b>"], {"<i>": [12.5]})
    assert "<b>" not in chart and "&lt;b&gt;" in chart
    assert "<td>12.5</td>" in chart
    assert [number(value) for value in (0, 0.5, 12345, 1.38e-8, 5e-4)] == [
        "0", "0.5", "12,345", "1.38e-08", "0.0005"]
