"""A PNG file of the detections of a video."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Without pyplot, so that the backend of a notebook stays as it is.
from matplotlib import ticker
from matplotlib.figure import Figure

from losa_jax.report.document import clock
from losa_jax.utils.atomic_write import atomic_file

# Distinct for most color-blind readers (Okabe and Ito).
COLORS = ("#009E73", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#999999")

# Distances between ticks in seconds, and the most ticks of a timeline.
_CLOCK_STEPS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
                7200, 14400, 43200, 86400)
MAX_TICKS = 12


def plot_timeline(rows: Sequence[Mapping[str, Any]], path: Path, *,
                  title: str, duration_seconds: float) -> None:
    """Draws detections over time, by class, darker by score."""
    labels = sorted({row["label"] for row in rows})
    figure = Figure(figsize=(12, 1.4 + 0.42 * max(1, len(labels))))
    axes = figure.subplots()
    for height, label in enumerate(labels):
        color = COLORS[height % len(COLORS)]
        for row in rows:
            if row["label"] == label:
                axes.broken_barh(
                    [(row["start_seconds"],
                      row["end_seconds"] - row["start_seconds"])],
                    (height - 0.38, 0.76), facecolor=color, edgecolor="none",
                    alpha=0.25 + 0.75 * min(1.0, max(0.0, row["score"])))
    if not rows:
        axes.text(0.5, 0.5, "no detection reaches the threshold",
                  ha="center", va="center", transform=axes.transAxes)
    axes.set_xlim(0, max(duration_seconds, 1e-3))
    axes.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    for text in (axes.set_title(title), *axes.get_yticklabels()):
        text.set_parse_math(False)  # "$" in a name is not math
    step = next((step for step in _CLOCK_STEPS
                 if duration_seconds <= MAX_TICKS * step),
                duration_seconds / MAX_TICKS)
    axes.xaxis.set_major_locator(ticker.MultipleLocator(step))
    axes.xaxis.set_major_formatter(
        lambda seconds, _: f"{seconds:.1f} s" if step < 1
        else clock(seconds).removesuffix(".0"))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    with warnings.catch_warnings():
        # Characters that the font does not have are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, bbox_inches="tight")
