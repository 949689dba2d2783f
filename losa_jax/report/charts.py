"""Charts as SVG that follow the page's colors, light and dark.

Drawn at the size they are read at (a column of a page), so that the letters
keep theirs on a phone. Numbers stand beside the picture, as text.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from losa_jax.report.document import escape

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT = 46, 8
_TOP, _BOTTOM = 10, 24
# More points than this are drawn as means and the span of their values.
MAX_POINTS = 240
# Values that span more than this are drawn on a logarithmic scale.
_LOG_SPAN = 30.0

Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Thinned:
    """A series of at most MAX_POINTS points: [x, mean, lowest, highest]."""

    name: str
    points: tuple[tuple[float, float, float, float], ...]


def thin(name: str, points: Points) -> Thinned:
    """Means over stretches of equal length, where there are many points."""
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    kept = []
    for first in range(0, len(points), size):
        x, y = zip(*points[first:first + size], strict=True)
        kept.append((x[-1], sum(y) / len(y), min(y), max(y)))
    return Thinned(name, tuple(kept))


def number(value: float) -> str:
    """Three or four figures."""
    if 1e4 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if 1e-2 <= abs(value) < 1e4 else f"{value:.3g}"


def line_chart(title: str, series: Sequence[Thinned], *, place: int,
               summary: str = "", may_be_log: bool = False) -> str:
    """One line a series over steps.

    Args:
      title: with the unit.
      series: none of them empty.
      place: of the chart's numbers in the page's data, for the pointer.
      summary: a sentence below the title.
      may_be_log: a logarithmic scale where the values span much.
    """
    lows = [low for one in series for *_, low, _ in one.points]
    highs = [high for one in series for *_, high in one.points]
    bottom, top = min(lows), max(highs)
    is_log = may_be_log and bottom > 0 and top / bottom > _LOG_SPAN
    ticks = _log_ticks(bottom, top) if is_log else _ticks(
        min(bottom, 0.0) if bottom < 0.4 * top else bottom, top)
    bottom, top = min(bottom, ticks[0]), max(top, ticks[-1])
    steps = [x for one in series for x, *_ in one.points]
    first, last = min(steps), max(steps)

    def across(x: float) -> float:
        share = (x - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        if is_log:
            y, low, high = math.log(y), math.log(bottom), math.log(top)
        else:
            low, high = bottom, top
        share = (y - low) / (high - low) if high > low else 0.5
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    parts = [_y_axis([(up(tick), number(tick)) for tick in ticks])]
    for x in _ticks(first, last, 4):
        if first <= x <= last:
            near_end = across(x) > WIDTH - 24
            parts.append(_text(
                WIDTH - RIGHT if near_end else across(x), HEIGHT - 7,
                number(x), "end" if near_end else "middle"))
    for index, one in enumerate(series):
        parts.append(_line(one, index, across, up))
    parts.append(f'<line class="cursor" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" '
                 'x1="-9" x2="-9"/>')
    legend = "".join(
        f'<li class="hue{index % 12}"><i class="key"></i>'
        f"{escape(one.name)} <b>{number(one.points[-1][1])}</b></li>"
        for index, one in enumerate(series))
    return (f'<figure class="card chart" data-chart="{place}" '
            f'data-first="{first}" data-last="{last}">'
            f"<figcaption><h3>{escape(title)}</h3>"
            f'<p class="summary">{escape(summary)}</p></figcaption>'
            f'{_svg(parts, f"{title}: {summary}")}'
            f'<ul class="keys">{legend}</ul></figure>')


def _line(series: Thinned, index: int, across: Callable[[float], float],
          up: Callable[[float], float]) -> str:
    points = series.points
    line = " ".join(f"{across(x):.1f},{up(mean):.1f}"
                    for x, mean, *_ in points)
    parts = []
    if any(high > low for *_, low, high in points):
        span = [f"{across(x):.1f},{up(high):.1f}" for x, _, _, high in points]
        span += [f"{across(x):.1f},{up(low):.1f}"
                 for x, _, low, _ in reversed(points)]
        parts.append(f'<polygon class="span" points="{" ".join(span)}"/>')
    parts.append(f'<polyline points="{line}"/>')
    if len(points) <= 30:
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(mean):.1f}" r="2.5"/>'
                  for x, mean, *_ in points]
    return f'<g class="hue{index % 12}">{"".join(parts)}</g>'


def bar_chart(title: str, labels: Sequence[str],
              series: Mapping[str, Sequence[float]], *, summary: str = "",
              stacked: bool = False) -> str:
    """Bars of each label, side by side or one on the other.

    Args:
      title: with the unit.
      labels: below the bars.
      series: a value a label of each name.
    """
    values = [value for row in series.values() for value in row]
    sums = [sum(column) for column in zip(*series.values(), strict=True)]
    top = max(sums if stacked else values, default=0.0)
    ticks = _ticks(min([0.0, *values]), max(top, 1e-9))
    bottom, top = ticks[0], max(ticks[-1], top)

    def up(y: float) -> float:
        share = (y - bottom) / (top - bottom)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    slot = (WIDTH - LEFT - RIGHT) / max(len(labels), 1)
    width = 0.72 * slot / (1 if stacked else len(series))
    parts = [_y_axis([(up(tick), number(tick)) for tick in ticks])]
    for column, label in enumerate(labels):
        left = LEFT + column * slot + 0.14 * slot
        floor = 0.0
        for row, name in enumerate(series):
            value = series[name][column]
            low, high = sorted((floor, floor + value))
            x = left if stacked else left + row * width
            parts.append(
                f'<rect class="hue{row % 12}" x="{x:.1f}" y="{up(high):.1f}" '
                f'width="{max(width - 1, 1):.1f}" '
                f'height="{max(up(low) - up(high), 0.5):.1f}"><title>'
                f"{escape(label)}, {escape(name)}: {number(value)}</title>"
                "</rect>")
            if not stacked and width > 24:
                parts.append(_text(x + width / 2, up(high) - 3,
                                   f"{value:.3g}", "middle"))
            floor = floor + value if stacked else 0.0
        parts.append(_text(left + 0.36 * slot, HEIGHT - 7, label, "middle"))
    legend = "" if len(series) < 2 else "".join(
        f'<li class="hue{row % 12}"><i class="key"></i>{escape(name)}</li>'
        for row, name in enumerate(series))
    return (f'<figure class="card chart"><figcaption><h3>{escape(title)}</h3>'
            f'<p class="summary">{escape(summary)}</p></figcaption>'
            f"{_svg(parts, title)}"
            f'<ul class="keys">{legend}</ul>{_numbers(labels, series)}'
            "</figure>")


def _numbers(labels: Sequence[str], series: Mapping[str, Sequence[float]]
             ) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in series)
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>' + "".join(
            f"<td>{number(row[column])}</td>" for row in series.values())
        + "</tr>" for column, label in enumerate(labels))
    return ('<details><summary>Numbers</summary><div class="wide"><table>'
            f'<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody>'
            "</table></div></details>")


def _svg(parts: Sequence[str], label: str) -> str:
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(label)}">{"".join(parts)}</svg>')


def _y_axis(ticks: Sequence[tuple[float, str]]) -> str:
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
        f'y1="{y:.1f}" y2="{y:.1f}"/>{_text(LEFT - 6, y + 4, text, "end")}'
        for y, text in ticks)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(text)}</text>")


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers around low .. high."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10)
                if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = [factor * 10.0 ** power for power in range(first, last + 1)
             for factor in (1, 3)]
    inside = [tick for tick in every if low <= tick <= high]
    if len(inside) > 6:
        inside = [tick for tick in inside
                  if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9)]
    return inside or [low, high]
