"""Pictures of a diagnosis."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - after the backend is chosen

# Distinct for most colour-blind readers (Okabe and Ito).
COLOURS = ("#009E73", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#999999")


def plot_profile(profile: Mapping[str, Sequence[float]], path: Path,
                 title: str) -> None:
    """Stacked shares of the kinds of predictions by rank."""
    figure, axes = pyplot.subplots(figsize=(7, 4))
    ranks = range(1, 1 + len(next(iter(profile.values()))))
    bottom = [0.0] * len(ranks)
    for (kind, shares), colour in zip(profile.items(), COLOURS, strict=True):
        percent = [100 * share for share in shares]
        axes.bar(ranks, percent, bottom=bottom, label=kind.replace("_", " "),
                 color=colour)
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
    figure, axes = pyplot.subplots(figsize=(7, 4))
    bars = axes.bar([name.replace("_", " ") for name in values],
                    list(values.values()), color=COLOURS[1])
    axes.bar_label(bars, fmt="%.1f")
    axes.set_ylabel(label)
    axes.set_title(title)
    axes.margins(y=0.15)
    axes.tick_params(axis="x", rotation=20)
    _save(figure, path)


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
