"""Trains the variants of a config with several seeds and compares them.

Each run is a process with a folder. A finished run is not repeated, so the
same command continues an interrupted sweep.
"""

import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.predictions import read_predictions
from losa_jax.detection.bootstrap import draw_videos, interval, map_draws
from losa_jax.errors import InputError
from losa_jax.inference.score_predictions import ground_truth
from losa_jax.jobs.setup import with_folders, write_json
from losa_jax.utils import run_files
from losa_jax.utils.atomic_write import make_folder, writing
from losa_jax.utils.interrupt import Interrupted
from losa_jax.utils.text_files import read_json, read_lines, read_text

# Beside the files of a run: its flags, written when it is finished.
DONE_FILE = "sweep.json"
CONSOLE_FILE = "console.txt"
_INTERRUPTED = 75
NUM_DRAWS = 1000


class Variant(NamedTuple):
    """A named list of config overrides, such as "adapter.kind=none"."""

    name: str
    overrides: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The name without characters that are unusual in file names."""
        return re.sub(r"[^A-Za-z0-9._=-]+", "_", self.name)


def parse_variant(line: str) -> Variant:
    """Parses "name: key=value key=value"; values have no spaces."""
    name, colon, rest = line.partition(":")
    overrides = tuple(rest.split())
    wrong = [part for part in overrides
             if not re.fullmatch(r"[\w.]+=\S*", part)]
    if not name.strip() or not colon or wrong:
        raise InputError(f"variant {line!r}: write `name: section.key=value "
                         "section.key=value`, values without spaces"
                         + (f"; wrong: {', '.join(wrong)}" if wrong else ""))
    return Variant(name.strip(), overrides)


def read_variants(path: Path) -> list[Variant]:
    """Reads a variant from each line that is not empty or a # comment."""
    return [parse_variant(line) for _, line in read_lines(path)
            if not line.startswith("#")]


def run_all(variants: Sequence[Variant], seeds: Sequence[int],
            config_flags: Sequence[str], workdir: Path,
            test_subset: str) -> dict[str, list[Path]]:
    """Trains every variant with every seed; returns successful runs' folders.

    `config_flags` are --config=FILE and overrides for all runs. Each run's
    best checkpoint is scored once on `test_subset`, if it is not "", into the
    folder `test` of the run.

    Raises:
      Interrupted: a run was stopped by a signal.
      InputError: two variants of one name, or a folder of another sweep.
    """
    name, count = Counter(one.folder for one in variants).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} variants have the folder {name}: give them "
                         "different names")
    # By seed, so that all variants can be compared early.
    runs = [(variant, seed) for seed in seeds for variant in variants]
    folders: dict[str, list[Path]] = {v.name: [] for v in variants}
    with tqdm(runs, desc="sweep", unit="run") as bar:
        for variant, seed in bar:
            bar.set_postfix_str(f"{variant.name}, seed {seed}")
            folder = workdir / variant.folder / f"seed{seed}"
            flags = [*config_flags,
                     *(f"--config.{part}" for part in variant.overrides),
                     f"--config.seed={seed}"]
            failure = _run_one(flags, folder, test_subset)
            if failure:
                bar.write(failure)
            else:
                folders[variant.name].append(folder)
    return folders


def _run_one(flags: list[str], folder: Path, test_subset: str) -> str:
    """Runs what is not finished; returns the failure, or ""."""
    wanted = {"flags": flags, "test_subset": test_subset}
    done = folder / DONE_FILE
    train: list[str] = []
    score = ["--mode=eval", f"--config.data.test_subset={test_subset}",
             f"--output={folder / 'test'}"]
    steps = [train, score] if test_subset else [train]
    if done.exists():
        finished = read_json(done)
        scored = finished["test_subset"]
        if finished["flags"] != flags or (
                test_subset and scored not in ("", test_subset)):
            raise InputError(
                f"{folder} was run with {finished}, not with {wanted}: name "
                "another --workdir, or delete the folder")
        # A run that was only trained can still be scored.
        steps = [score] if test_subset and not scored else []
    if not steps:
        return ""
    make_folder(folder)
    console = folder / CONSOLE_FILE
    for more in steps:
        with writing(console), console.open("a") as output:
            status = subprocess.run(
                [sys.executable, "-m", "losa_jax.main", *flags, *more,
                 f"--workdir={folder}"],
                stdout=output, stderr=subprocess.STDOUT).returncode
        if status == _INTERRUPTED:
            raise Interrupted("stopped; start the same command again to "
                              "continue")
        if status:
            text = console.read_text("utf-8", "replace")
            last = text.strip().splitlines()[-1:]
            return (f"{folder} failed with status {status}: "
                    f"{''.join(last)} (all output: {console})")
    write_json(done, wanted)
    return ""


def make_table(folders: Mapping[str, Sequence[Path]], test_subset: str
               ) -> str:
    """Returns Markdown with a row for each variant, the baseline first.

    mAP on the config's own test subset is the best during training, so it is
    optimistic. Intervals are of `test_subset`, or without one of the config's.
    """
    folders = {name: runs for name, runs in folders.items() if runs}
    draws = {name: np.stack([run_draws(run, test_subset) for run in runs])
             for name, runs in folders.items()}
    scored = {name: [run_map(run / "test" if test_subset else run)
                     for run in runs] for name, runs in folders.items()}
    first = next(iter(folders), "")
    head = ["variant", "seeds", "mAP: mean", "largest - smallest"]
    if test_subset:
        head += [f"{test_subset}: mean", "largest - smallest"]
    head += [f"{test_subset or 'mAP'}: 95 %", f"lead over {first}: 95 %",
             "trained", "step temporary MiB", "s / step"]
    rows = [head, ["---"] * len(head)]
    for name, runs in folders.items():
        row = [name, str(len(runs)), *_mean_and_spread([*map(run_map, runs)])]
        if test_subset:
            row += _mean_and_spread(scored[name])
        row += [_interval_text(*interval(draws[name])), ""]
        if name != first:
            low, high = interval(draws[name], draws[first])
            mean = statistics.mean(scored[name]) - statistics.mean(
                scored[first])
            mark = "" if low > 0 or high < 0 else ", not significant"
            row[-1] = f"{mean:+.1f} ({_interval_text(low, high)}{mark})"
        cost = read_json(runs[0] / run_files.COST_FILE)
        rows.append([*row, f"{cost['trained_parameters']:,}",
                     f"{cost['step_temporary_bytes'] / 2**20:,.0f}",
                     f"{statistics.median(map(_seconds, runs)):.3f}"])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows) + (
        f"\nmAP in percent. Intervals: {NUM_DRAWS} draws of videos and seeds "
        "with replacement, the same videos for every variant; a lead whose "
        "interval contains 0 is not significant.\n")


def run_map(folder: Path) -> float:
    """Returns the average mAP of a run's predictions, in percent."""
    return 100 * read_json(folder / run_files.MAP_FILE)["average_map"]


def _mean_and_spread(values: Sequence[float]) -> list[str]:
    return [f"{statistics.mean(values):.2f}",
            f"{max(values) - min(values):.2f}"]


def _interval_text(low: float, high: float) -> str:
    return f"{100 * low:.1f} .. {100 * high:.1f}"


def run_draws(run: Path, test_subset: str) -> np.ndarray:
    """Returns the average mAP, 0 to 1, of `NUM_DRAWS` draws of the videos."""
    config = read_json(run / run_files.CONFIG_FILE)
    data = config["data"]
    names = data["class_names"]
    annotations = clipped_to(with_folders(load_annotations(
        data["annotations"] or data["tfds"],
        load_class_names(names) if names else None),
        data.get("reviews", ""), data["train_subset"]), {}, data["on_outside"])
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
    metrics = read_text(run / run_files.METRICS_FILE).splitlines()
    return statistics.median(
        line["seconds_per_step"] for line in map(json.loads, metrics)
        if line.get("seconds_per_step"))
