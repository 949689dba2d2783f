"""Scores a file of predictions, whoever made it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.data.annotations.formats import read_ambiguous
from losa_jax.data.annotations.lint import find_faults, summarize
from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.predictions import read_submission
from losa_jax.detection.diagnosis import (
    Diagnosis,
    diagnose,
    format_diagnosis,
)
from losa_jax.detection.metrics import (
    MapReport,
    Rules,
    format_map_table,
    recall_at,
)
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError
from losa_jax.inference.score_predictions import (
    fit_ids,
    ground_truth,
    present_classes,
    scored,
)
from losa_jax.jobs.setup import blocked_videos, write_json

RECALL_MULTIPLES = (1, 5)
# Videos left out, by name.
MAX_SHOWN = 20


def tiou_list(text: str) -> tuple[float, ...]:
    """"0.3:0.7:0.1" or "0.5,0.75" to thresholds.

    Raises:
      InputError: it is neither, or a threshold is not within 0 .. 1.
    """
    try:
        if ":" in text:
            first, last, step = map(float, text.split(":"))
            count = round((last - first) / step) + 1
            values = tuple(round(first + i * step, 6) for i in range(count))
        else:
            values = tuple(map(float, text.split(",")))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"--tiou={text}: write first:last:step, as "
                         "0.3:0.7:0.1, or a list, as 0.5,0.75") from error
    if not values or not all(0 < value <= 1 for value in values):
        raise InputError(f"--tiou={text}: thresholds lie within 0 and 1")
    return values


def score(predictions: Path, annotations: str, *, subset: str, protocol: str,
          tiou_thresholds: tuple[float, ...], videos: str, class_names: str,
          ties: str, unknown: str, ambiguous: Path | None,
          output: Path | None,
          diagnose_into: Path | None = None,
          classifier: str = "") -> MapReport:
    """The job: prints the table, says what was used and what was not.

    Arguments as those of `python -m losa_jax.score`.

    Raises:
      InputError: a file that cannot be read or does not fit.
    """
    found, external = read_submission(predictions)
    names = load_class_names(class_names) if class_names else None
    loaded = load_annotations(annotations, names)
    excluded = blocked_videos(videos)
    truth = ground_truth(loaded, subset, excluded)
    chosen = loaded.subset(subset)
    found = {video: list(rows) for video, rows in fit_ids(
        {video: rows for video, rows in found.items()
         if video not in excluded}, truth).items()}
    labels = present_classes(loaded, truth)
    rules = Rules(ties, unknown)
    report = scored(
        truth, found, labels, protocol=protocol,
        tiou_thresholds=tiou_thresholds, rules=rules,
        ambiguous=read_ambiguous(ambiguous) if ambiguous else None)
    recall = None if protocol == "thumos" else recall_at(
        truth, found, class_names=labels, tiou_thresholds=tiou_thresholds,
        multiples=RECALL_MULTIPLES, rules=rules)
    print(format_map_table(report))
    for line in summarize(
            fault for video in chosen if video.video_id not in excluded
            for fault in find_faults(video)):
        print(f"annotations: {line}")
    classes = f"classes from: {classifier}" if classifier else external
    print(classes or "classes from: the file does not say (external_data); "
          "an external classifier? name it with --classifier")
    _print_facts(report, recall, found, truth, excluded, protocol, ties,
                 unknown, ambiguous)
    if output is not None:
        write_json(output, {**_content(report, recall),
                            "classifier": classifier or external or None})
    if diagnose_into is not None:
        write_diagnosis(diagnose_into, diagnose(
            truth, found, class_names=labels, tiou_thresholds=tiou_thresholds,
            durations={video.video_id: video.duration_seconds or 0.0
                       for video in chosen}))
    return report


def write_diagnosis(folder: Path, found: Diagnosis) -> None:
    """diagnosis.txt, diagnosis.json and pictures; the tables are printed."""
    # Imported late: every run stands on this file, few draw.
    from losa_jax.report.plots import plot_bars, plot_profile

    folder.mkdir(parents=True, exist_ok=True)
    text = format_diagnosis(found)
    print(f"\n{text}\nwrote {folder}")
    (folder / "diagnosis.txt").write_text(text + "\n")
    write_json(folder / "diagnosis.json", dataclasses.asdict(found))
    plot_profile(found.profile, folder / "profile.png",
                 f"kinds of predictions at tIoU {found.tiou_threshold:g}")
    plot_bars({error: 100 * value for error, value in found.gain.items()},
              folder / "gain.png", label="mAP points",
              title="average mAP gained without each kind of error")
    for name, bins in found.bins.items():
        for what in ("average_map", "missed"):
            plot_bars({f"{one.low:.3g} .. {one.high:.3g}":
                       100 * getattr(one, what) for one in bins},
                      folder / f"{what}_by_{name}.png", label="%",
                      title=f"{what} by {name}".replace("_", " "))


def _print_facts(report: MapReport, recall: np.ndarray | None,
                 found: dict[str, list[Detection]], truth: dict[str, Any],
                 excluded: dict[str, str], protocol: str, ties: str,
                 unknown: str, ambiguous: Path | None) -> None:
    if recall is not None:
        for multiple, row in zip(RECALL_MULTIPLES, recall, strict=True):
            cells = "  ".join(f"{tiou:g}: {100 * value:.2f}" for tiou, value
                              in zip(report.tiou_thresholds, row,
                                     strict=True))
            print(f"recall@{multiple}x  {cells}")
    strangers = [video for video in found if video not in truth]
    silent = [video for video in truth if not found.get(video)]
    print(f"protocol {protocol}; {report.num_videos} videos, "
          f"{report.num_actions:,} actions, {report.num_predictions:,} "
          f"predictions; {len(silent)} videos without a prediction")
    for video, reason in list(excluded.items())[:MAX_SHOWN]:
        print(f"left out: {video} {reason}")
    if len(excluded) > MAX_SHOWN:
        print(f"left out: {len(excluded) - MAX_SHOWN} more")
    if strangers:
        fate = ("are false" if protocol == "activitynet"
                and unknown == "false" else "are left out")
        number = sum(len(found[video]) for video in strangers)
        print(f"{len(strangers)} videos with {number} predictions are not in "
              f"the ground truth: they {fate} ({', '.join(strangers[:5])})")
    tied = _num_tied(found)
    if tied and protocol == "activitynet":
        print(f"{tied:,} predictions share their score with another of their "
              "class: their order is that of " + (
                  "numpy's sort and depends on the processor, --ties=stable "
                  "does not" if ties == "numpy" else "the file"))
    if protocol == "thumos" and ambiguous is None:
        print("without Ambiguous segments (--ambiguous=FILE)")


def _num_tied(found: dict[str, list[Detection]]) -> int:
    scores: dict[str, list[float]] = {}
    for rows in found.values():
        for row in rows:
            scores.setdefault(row.label, []).append(row.score)
    return sum(int(counts[counts > 1].sum()) for counts in (
        np.unique(values, return_counts=True)[1]
        for values in scores.values()))


def _content(report: MapReport, recall: np.ndarray | None) -> dict[str, Any]:
    content = dataclasses.asdict(report)
    for key, value in content.items():
        if isinstance(value, np.ndarray):
            content[key] = json.loads(json.dumps(
                np.where(np.isnan(value), np.array(None), value).tolist()))
    content["recall"] = None if recall is None else {
        f"{multiple}x": row.tolist() for multiple, row in zip(
            RECALL_MULTIPLES, recall, strict=True)}
    return content
