"""The table of a sweep: mAP with intervals, parameters, memory, speed."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.predictions import read_predictions
from losa_jax.detection.bootstrap import (
    Interval,
    draw_videos,
    interval,
    map_draws,
)
from losa_jax.utils.run_files import (
    CONFIG_FILE,
    COST_FILE,
    MAP_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
)

NUM_DRAWS = 1000


def make_table(folders: Mapping[str, Sequence[Path]], test_subset: str
               ) -> str:
    """Markdown, one row a variant; the first with runs is compared with.

    mAP on the config's own test subset is the best that a run reached while
    it trained, so it is optimistic; intervals are of the subset that was
    scored once, or where none is given, of the former.
    """
    folders = {name: runs for name, runs in folders.items() if runs}
    draws = {name: np.stack([_draws(run, test_subset) for run in runs])
             for name, runs in folders.items()}
    scored = {name: statistics.mean(
        _map(run / "test" if test_subset else run) for run in runs)
        for name, runs in folders.items()}
    first = next(iter(folders), "")
    where = test_subset or "mAP"
    head = ["variant", "seeds", "mAP: mean", "largest - smallest"]
    if test_subset:
        head += [f"{test_subset}: mean", "largest - smallest"]
    head += [f"{where}: 95 %", f"lead over {first}: 95 %",
             "trained", "step temporary MiB", "s / step"]
    lines = ["| " + " | ".join(head) + " |", "| " + "--- | " * len(head)]
    for name, runs in folders.items():
        cells = [name, str(len(runs)),
                 *_mean_and_spread([_map(run) for run in runs])]
        if test_subset:
            cells += _mean_and_spread([_map(run / "test") for run in runs])
        cells.append(_show(interval(draws[name])))
        cells.append("" if name == first else _lead(
            scored[name] - scored[first],
            interval(draws[name], draws[first])))
        costs = [json.loads((run / COST_FILE).read_text()) for run in runs]
        cells += [f"{costs[0]['trained_parameters']:,}",
                  f"{costs[0]['step_temporary_bytes'] / 2**20:,.0f}",
                  f"{statistics.median(map(_seconds, runs)):.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "", f"mAP in percent. Intervals: {NUM_DRAWS} draws of videos and "
        "seeds with replacement, the same videos for every variant; a lead "
        "whose interval holds 0 is not significant."]
    return "\n".join(lines) + "\n"


def _map(folder: Path) -> float:
    return 100 * json.loads((folder / MAP_FILE).read_text())["average_map"]


def _mean_and_spread(values: Sequence[float]) -> list[str]:
    return [f"{statistics.mean(values):.2f}",
            f"{max(values) - min(values):.2f}"]


def _show(found: Interval) -> str:
    return f"{100 * found.low:.1f} .. {100 * found.high:.1f}"


def _lead(mean: float, found: Interval) -> str:
    mark = "" if found.excludes_zero() else ", not significant"
    return f"{mean:+.1f} ({_show(found)}{mark})"


def _draws(run: Path, test_subset: str) -> np.ndarray:
    config = json.loads((run / CONFIG_FILE).read_text())
    data = config["data"]
    names = data["class_names"]
    annotations = clipped_to(load_annotations(
        data["annotations"] or data["tfds"],
        load_class_names(names) if names else None), {}, data["on_outside"])
    predictions = read_predictions(
        run / ("test" if test_subset else ".") / PREDICTIONS_FILE)
    truth = {
        video.video_id: [(action.start_seconds, action.end_seconds,
                          action.label) for action in video.actions]
        for video in annotations.subset(test_subset or data["test_subset"])
        if video.video_id in predictions}
    return map_draws(
        truth, predictions, class_names=annotations.class_names,
        tiou_thresholds=config["evaluate"]["tiou_thresholds"],
        counts=draw_videos(len(truth), NUM_DRAWS))


def _seconds(run: Path) -> float:
    """Median seconds a step."""
    lines = map(json.loads, (run / METRICS_FILE).read_text().splitlines())
    return statistics.median(
        line["seconds_per_step"] for line in lines
        if line.get("seconds_per_step"))
