"""Bar charts as SVG in the page's colors, with a table of the numbers."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from losa_jax.report.document import table

# The width of a page's column, so that the text keeps its size on a phone.
WIDTH, HEIGHT = 380, 210
LEFT, RIGHT = 46, 8
_TOP, _BOTTOM = 16, 24  # with room for a number over the highest bar


def number(value: float) -> str:
    """Returns three or four significant digits as text."""
    if 1e4 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if 1e-2 <= abs(value) < 1e4 else f"{value:.3g}"


def bar_chart(title: str, labels: Sequence[str],
              series: Mapping[str, Sequence[float]], *, summary: str = "",
              stacked: bool = False) -> str:
    """Returns the HTML of a bar chart. `title`, which names the unit, and the
    sentence `summary` are above the bars. `series` is {name: a value for each
    label}; `stacked` stacks the bars of a label.
    """
    values = [value for row in series.values() for value in row]
    sums = [sum(column) for column in zip(*series.values(), strict=True)]
    top = max(sums if stacked else values, default=0.0)
    ticks = _ticks(min([0.0, *values]), max(top, 1e-9))
    bottom, top = ticks[0], max(ticks[-1], top)

    def height_of(y: float) -> float:
        share = (y - bottom) / (top - bottom)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    slot = (WIDTH - LEFT - RIGHT) / max(len(labels), 1)
    width = 0.72 * slot / (1 if stacked else len(series))
    parts = []
    for tick in ticks:
        y = height_of(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
                     f'y1="{y:.1f}" y2="{y:.1f}"/>'
                     + _text(LEFT - 6, y + 4, number(tick), "end"))
    for column, label in enumerate(labels):
        left = LEFT + column * slot + 0.14 * slot
        base = 0.0
        for row, name in enumerate(series):
            value = series[name][column]
            low, high = sorted((base, base + value))
            y = height_of(high)
            x = left if stacked else left + row * width
            parts.append(
                f'<rect class="hue{row % 12}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{max(width - 1, 1):.1f}" '
                f'height="{max(height_of(low) - y, 0.5):.1f}"><title>'
                f"{escape(label)}, {escape(name)}: {number(value)}</title>"
                "</rect>")
            if stacked:
                base += value
            elif width > 24:
                parts.append(_text(x + width / 2, y - 3, f"{value:.3g}"))
        parts.append(_text(left + 0.36 * slot, HEIGHT - 7, label))
    numbers = table(["", *series], ((escape(label), [
        f"<td>{number(row[column])}</td>" for row in series.values()], "")
        for column, label in enumerate(labels)))
    legend = "" if len(series) < 2 else "".join(
        f'<li class="hue{row % 12}"><i class="key"></i>{escape(name)}</li>'
        for row, name in enumerate(series))
    return ('<figure class="card column chart"><figcaption>'
            f"<h3>{escape(title)}</h3>"
            f'<p class="soft">{escape(summary)}</p></figcaption>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
            f'<ul class="keys soft flow">{legend}</ul>'
            '<details class="soft"><summary>Numbers</summary>'
            f"{numbers}</details></figure>")


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
            f"{escape(text)}</text>")


def _ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers from `low` or less to `high` or more."""
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10)
                if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
