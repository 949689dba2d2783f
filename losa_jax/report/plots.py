"""Pictures: of a diagnosis, and of what was found in a video."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Without pyplot, whose one backend is the caller's: a notebook's stays.
from matplotlib import ticker
from matplotlib.figure import Figure

# Distinct for most color-blind readers (Okabe and Ito).
COLORS = ("#009E73", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#999999")

# Steps of a clock, seconds, and how many of them a timeline may have.
_CLOCK_STEPS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600,
                7200, 14400, 43200, 86400)
MAX_TICKS = 12


def plot_profile(profile: Mapping[str, Sequence[float]], path: Path,
                 title: str) -> None:
    """Stacked shares of the kinds of predictions by rank."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    ranks = range(1, 1 + len(next(iter(profile.values()))))
    bottom = [0.0] * len(ranks)
    for (kind, shares), color in zip(profile.items(), COLORS, strict=True):
        percent = [100 * share for share in shares]
        axes.bar(ranks, percent, bottom=bottom, label=kind.replace("_", " "),
                 color=color)
        bottom = [a + b for a, b in zip(bottom, percent, strict=True)]
    axes.set_xlabel("best k G predictions (G actions)")
    axes.set_ylabel("share, %")
    axes.set_xticks(list(ranks))
    axes.set_title(title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    _save(figure, path)


def plot_bars(values: Mapping[str, float], path: Path, *, title: str,
              label: str) -> None:
    """One bar a name, its number above it."""
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    bars = axes.bar([name.replace("_", " ") for name in values],
                    list(values.values()), color=COLORS[1])
    axes.bar_label(bars, fmt="%.1f")
    axes.set_ylabel(label)
    axes.set_title(title)
    axes.margins(y=0.15)
    axes.tick_params(axis="x", rotation=20)
    _save(figure, path)


def plot_timeline(rows: Sequence[Mapping[str, Any]], path: Path, *,
                  title: str, duration_seconds: float) -> None:
    """What happens when: a row for each class, darker with the score.

    Args:
      rows: as in `losa_jax.report.files`.
      path: a PNG.
      title, duration_seconds: of the video.
    """
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
        axes.text(0.5, 0.5, "nothing found at or above the threshold",
                  ha="center", va="center", transform=axes.transAxes)
    axes.set_xlim(0, max(duration_seconds, 1e-3))
    axes.set_ylim(max(1, len(labels)) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels)
    for text in (axes.set_title(title), *axes.get_yticklabels()):
        text.set_parse_math(False)  # a "$" in a name is a "$"
    step = next((step for step in _CLOCK_STEPS
                 if duration_seconds <= MAX_TICKS * step),
                duration_seconds / MAX_TICKS)
    axes.xaxis.set_major_locator(ticker.MultipleLocator(step))
    axes.xaxis.set_major_formatter(
        lambda seconds, _: _clock(seconds) if step >= 1
        else f"{seconds:.1f} s")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    with warnings.catch_warnings():
        # A script without letters in this font shows as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        _save(figure, path)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02}:{seconds:02}" if hours
            else f"{minutes}:{seconds:02}")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, bbox_inches="tight")
