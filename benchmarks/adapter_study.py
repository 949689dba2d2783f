"""One table and one plot of the sweeps of several data sets.

    python -m benchmarks.adapter_study --variants=configs/controls.txt \\
        --sweep=rendered:runs/ablation --sweep=hard:runs/hard \\
        --results=benchmarks/adapter_study.json --plot=docs/adapter_study.svg

A sweep is the work directory of `losa_jax.sweep` for the same variants; its
finished runs are added to the file of results, so a study can take several
days and machines. Each row has the mean mAP over seeds, and how far it is from
the first variant, with the 95 % interval of draws of videos and seeds (the same
videos for both).
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.common.figures import table
from losa_jax.detection.bootstrap import interval
from losa_jax.jobs import sweep
from losa_jax.utils import atomic_write
from losa_jax.utils.run_files import COST_FILE
from losa_jax.utils.text_files import read_json

# {data set: {variant: {"trained_parameters", "seeds": {seed: {"map",
# "draws"}}}}}, mAP in units of 0.01.
Results = dict[str, dict[str, Any]]


class Score(NamedTuple):
    """mAP in percent of a variant on a data set.

    Attributes:
      maps: of each seed.
      low, high: bounds of the interval of their mean.
      lead: interval of the difference from the first variant, None for it.
    """

    maps: Sequence[float]
    low: float
    high: float
    lead: tuple[float, float] | None

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.maps)

    @property
    def is_significant(self) -> bool:
        """Whether the difference from the first variant is not by chance."""
        return self.lead is not None and (self.lead[0] > 0 or self.lead[1] < 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=Path, required=True)
    parser.add_argument("--sweep", action="append", default=[],
                        metavar="NAME:WORKDIR")
    parser.add_argument("--results", type=Path, required=True,
                        help="a JSON file, to which the sweeps are added")
    parser.add_argument("--test_subset", default="",
                        help="as the sweeps had it")
    parser.add_argument("--plot", type=Path, help="an SVG file")
    arguments = parser.parse_args()
    variants = sweep.read_variants(arguments.variants)
    names = [one.name for one in variants]
    results = (read_json(arguments.results) if arguments.results.exists()
               else {})
    for entry in arguments.sweep:
        name, _, workdir = entry.partition(":")
        of_set = results.setdefault(name, {})
        for variant in tqdm(variants, desc=workdir, unit="variant"):
            add_runs(of_set, variant.name, Path(workdir, variant.folder),
                     arguments.test_subset)
    atomic_write.write_text(arguments.results,
                            json.dumps(results) + "\n")
    print(as_table(results, names))
    if arguments.plot:
        draw(results, names, arguments.plot)


def add_runs(of_set: dict[str, Any], name: str, folder: Path,
             test_subset: str) -> None:
    """Adds the finished runs of a variant to the `Results` of a data set."""
    for done in sorted(folder.glob(f"seed*/{sweep.DONE_FILE}")):
        run = done.parent
        draws = np.rint(1e4 * sweep.run_draws(run, test_subset)).astype(int)
        of_variant = of_set.setdefault(name, {"seeds": {}})
        of_variant["trained_parameters"] = read_json(
            run / COST_FILE)["trained_parameters"]
        of_variant["seeds"][run.name.removeprefix("seed")] = {
            "map": round(100 * sweep.run_map(
                run / "test" if test_subset else run)),
            "draws": draws.tolist()}


def as_scores(of_set: dict[str, Any], names: Sequence[str]
              ) -> dict[str, Score]:
    """Returns the scores of the variants that have results, in order."""
    seeds = {name: list(of_set[name]["seeds"].values()) for name in names
             if name in of_set}
    draws = {name: np.array([one["draws"] for one in runs]) / 100
             for name, runs in seeds.items()}
    return {name: Score(
        [one["map"] / 100 for one in runs], *interval(draws[name]),
        interval(draws[name], draws[names[0]])
        if names[0] in draws and name != names[0] else None)
        for name, runs in seeds.items()}


def as_table(results: Results, variants: Sequence[str]) -> str:
    """Returns Markdown; differences that are not significant are marked."""
    scores = {name: as_scores(of_set, variants)
              for name, of_set in results.items()}
    heads = [f"{name}{what}" for name in scores
             for what in (": mAP (seeds)", f": from {variants[0]}")]
    rows = []
    for variant in variants:
        # Of the first data set that has the variant.
        parameters = next((of_set[variant]["trained_parameters"] for of_set
                           in results.values() if variant in of_set), None)
        if parameters is None:
            continue
        row = [variant]
        for of_set in scores.values():
            one = of_set.get(variant)
            row += _cells(one, of_set.get(variants[0])) if one else ["", ""]
        rows.append([*row, f"{parameters:,}"])
    return table(["variant", *heads, "trained parameters"], rows)


def _cells(one: Score, first: Score | None) -> list[str]:
    cells = [f"{one.mean:.1f} ({len(one.maps)})", ""]
    if first and one.lead:
        cells[1] = (f"{one.mean - first.mean:+.1f} ({one.lead[0]:.1f} .. "
                    f"{one.lead[1]:.1f})"
                    + ", not significant" * (not one.is_significant))
    return cells


def draw(results: Results, variants: Sequence[str], path: Path) -> None:
    """Draws means, intervals and seeds, a panel for each data set."""
    scores = {name: as_scores(of_set, variants)
              for name, of_set in results.items()}
    shown = [name for name in variants
             if any(name in of_set for of_set in scores.values())]
    figure = Figure(figsize=(2 + 3.2 * len(scores), 0.8 + 0.32 * len(shown)),
                    layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (name, of_set) in zip(panels, scores.items(), strict=True):
        for height, variant in enumerate(shown):
            if (one := of_set.get(variant)) is None:
                continue
            color = "#D55E00" if one.is_significant else "#0072B2"
            axes.errorbar(one.mean, height, fmt="o", color=color, capsize=3,
                          xerr=[[max(0.0, one.mean - one.low)],
                                [max(0.0, one.high - one.mean)]])
            axes.plot(one.maps, [height + 0.25] * len(one.maps), "|",
                      color="#777777")
        axes.set_title(name)
        axes.set_xlabel("average mAP")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(shown)), shown)
    panels[0].set_ylim(len(shown) - 0.4, -0.6)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
