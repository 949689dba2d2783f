"""The table of a sweep: mAP with intervals, parameters, memory, speed."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.predictions import read_predictions
from losa_jax.detection.bootstrap import draw_videos, interval, map_draws
from losa_jax.inference.score_predictions import ground_truth
from losa_jax.utils import run_files

NUM_DRAWS = 1000


def make_table(folders: Mapping[str, Sequence[Path]], test_subset: str
               ) -> str:
    """Returns Markdown with a row for each variant.

    mAP on the config's own test subset is the best during training, so it is
    optimistic. Intervals are of `test_subset`, which was scored once, or
    without one of the config's own. The first variant is the baseline.
    """
    folders = {name: runs for name, runs in folders.items() if runs}
    draws = {name: np.stack([_draws(run, test_subset) for run in runs])
             for name, runs in folders.items()}
    scored = {name: [_map(run / "test" if test_subset else run)
                     for run in runs] for name, runs in folders.items()}
    first = next(iter(folders), "")
    head = ["variant", "seeds", "mAP: mean", "largest - smallest"]
    if test_subset:
        head += [f"{test_subset}: mean", "largest - smallest"]
    head += [f"{test_subset or 'mAP'}: 95 %", f"lead over {first}: 95 %",
             "trained", "step temporary MiB", "s / step"]
    rows = [head, ["---"] * len(head)]
    for name, runs in folders.items():
        row = [name, str(len(runs)), *_mean_and_spread(map(_map, runs))]
        if test_subset:
            row += _mean_and_spread(scored[name])
        row += [_interval_text(*interval(draws[name])), ""]
        if name != first:
            low, high = interval(draws[name], draws[first])
            mean = statistics.mean(scored[name]) - statistics.mean(
                scored[first])
            mark = "" if low > 0 or high < 0 else ", not significant"
            row[-1] = f"{mean:+.1f} ({_interval_text(low, high)}{mark})"
        cost = _read(runs[0] / run_files.COST_FILE)
        rows.append([*row, f"{cost['trained_parameters']:,}",
                     f"{cost['step_temporary_bytes'] / 2**20:,.0f}",
                     f"{statistics.median(map(_seconds, runs)):.3f}"])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows) + (
        f"\nmAP in percent. Intervals: {NUM_DRAWS} draws of videos and seeds "
        "with replacement, the same videos for every variant; a lead whose "
        "interval contains 0 is not significant.\n")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _map(folder: Path) -> float:
    return 100 * _read(folder / run_files.MAP_FILE)["average_map"]


def _mean_and_spread(values: Iterable[float]) -> list[str]:
    values = [*values]
    return [f"{statistics.mean(values):.2f}",
            f"{max(values) - min(values):.2f}"]


def _interval_text(low: float, high: float) -> str:
    return f"{100 * low:.1f} .. {100 * high:.1f}"


def _draws(run: Path, test_subset: str) -> np.ndarray:
    config = _read(run / run_files.CONFIG_FILE)
    data = config["data"]
    names = data["class_names"]
    annotations = clipped_to(load_annotations(
        data["annotations"] or data["tfds"],
        load_class_names(names) if names else None), {}, data["on_outside"])
    predictions = read_predictions(
        run / ("test" if test_subset else ".") / run_files.PREDICTIONS_FILE)
    truth = {video: actions for video, actions in ground_truth(
        annotations, test_subset or data["test_subset"]).items()
        if video in predictions}
    return map_draws(
        truth, predictions, class_names=annotations.class_names,
        tiou_thresholds=config["evaluate"]["tiou_thresholds"],
        counts=draw_videos(len(truth), NUM_DRAWS))


def _seconds(run: Path) -> float:
    """Returns the median seconds of a step."""
    metrics = (run / run_files.METRICS_FILE).read_text().splitlines()
    return statistics.median(
        line["seconds_per_step"] for line in map(json.loads, metrics)
        if line.get("seconds_per_step"))
