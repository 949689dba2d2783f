"""Tables and figures that several pages show."""

from collections.abc import Mapping, Sequence
from typing import Any

from losa_jax.report.document import escape

# Shades of a cell, from 0 to 100 %.
_SHADES = 5


def map_table(scores: Mapping[str, Any]) -> str:
    """Average precision by class and tIoU, percent, from map.json."""
    thresholds = scores["tiou_thresholds"]
    head = "".join(f'<th scope="col">{tiou:g}</th>' for tiou in thresholds)
    lines = []
    for name, row, actions, found in zip(
            scores["class_names"], scores["average_precision"],
            scores["actions_per_class"], scores["predictions_per_class"],
            strict=True):
        known = [value for value in row if value is not None]
        mean = sum(known) / len(known) if known else None
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(map(_percent, [*row, mean]))
            + f"<td>{actions:,}</td><td>{found:,}</td></tr>")
    mean = "".join(map(_percent, [*scores["map_per_threshold"],
                                  scores["average_map"]]))
    return ('<div class="wide"><table class="marks"><thead><tr>'
            f'<th scope="col" class="left">tIoU</th>{head}'
            '<th scope="col">mean</th><th scope="col">actions</th>'
            '<th scope="col">predictions</th></tr></thead><tbody>'
            f'{"".join(lines)}<tr class="total"><th scope="row">mean</th>'
            f"{mean}<td>{scores['num_actions']:,}</td>"
            f"<td>{scores['num_predictions']:,}</td></tr>"
            "</tbody></table></div>")


def _percent(share: float | None) -> str:
    if share is None:
        return "<td>–</td>"
    shade = min(int(share * _SHADES), _SHADES - 1)
    return f'<td class="warm{max(shade, 0)}">{100 * share:.2f}</td>'


def tiles(facts: Sequence[tuple[str, str, str]]) -> str:
    """(what, figure, remark) as the items of a list of tiles."""
    return "".join(
        f'<div class="card tile"><dt>{escape(what)}</dt><dd>{escape(figure)}'
        f"{f'<small>{escape(remark)}</small>' if remark else ''}</dd></div>"
        for what, figure, remark in facts)
