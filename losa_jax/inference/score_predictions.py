"""Scores predictions against annotations, without a model."""

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.data.annotations.load import load_annotations, select_subsets
from losa_jax.data.annotations.reviewed import check_scorable
from losa_jax.data.predictions import check_predictions, read_predictions
from losa_jax.data.records import Annotations
from losa_jax.detection import metrics, per_frame, thumos_protocol
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError
from losa_jax.utils.names import did_you_mean, without_ending

logger = logging.getLogger(__name__)

PROTOCOLS = ("activitynet", "thumos")
_MOST_MOMENTS = 1000  # a second
# Times that are so many times as long, or short, are in another unit.
_OTHER_UNIT = 10


def evaluate(predictions: str | os.PathLike | metrics.Predictions,
             annotations: str | os.PathLike | Annotations, *,
             protocol: str = "activitynet",
             tiou: float | Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7),
             subset: str | None = None) -> metrics.MapReport:
    """Returns the mean average precision of predictions of any program.

    The report's classes are those with an action in the subset.

    Args:
      predictions: a file in the ActivityNet submission format, or {video id:
        list of `losa_jax.Detection`} in seconds from the first frame. If no
        id is in the annotations, they are tried without and with the prefix
        ``v_``.
      annotations: a file in any layout that docs/data.md lists.
      protocol: "activitynet", or "thumos" as the THUMOS-14 challenge scored.
      tiou: least temporal IoU of a match, in (0, 1]; one or several.
      subset: its name in the annotations ("testing"); all its videos count,
        predicted or not. None: the subset of the predicted videos.

    Raises:
      InputError: a file that cannot be read, a detection with a number that
        is not finite or an end before its start, an unknown protocol or
        subset, wrong thresholds, or predictions in several subsets without
        `subset`.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol={protocol!r}: choose one of "
                         f"{', '.join(PROTOCOLS)}")
    thresholds = tiou_thresholds(tiou, f"tiou={tiou!r}")
    for name, value, other in (("predictions", predictions, Mapping),
                               ("annotations", annotations, Annotations)):
        if not isinstance(value, (str, os.PathLike, other)):
            raise InputError(f"{name} of type {type(value).__name__}: give a "
                             f"file, or a {other.__name__}")
    predictions = (check_predictions(predictions, "predictions")
                   if isinstance(predictions, Mapping)
                   else read_predictions(predictions))
    if not isinstance(annotations, Annotations):
        annotations = load_annotations(Path(annotations))
    predictions = fit_ids(predictions, annotations.videos)
    if subset is None:
        subset = _subset_of(predictions, annotations)
    truth = ground_truth(annotations, subset)
    for line in unmatched(annotations, truth, predictions):
        logger.warning("%s", line)
    return scored(truth, predictions, present_classes(annotations, truth),
                  protocol=protocol, tiou=thresholds)


def scored(truth: metrics.Truth, predictions: metrics.Predictions,
           class_names: Sequence[str], *, protocol: str,
           tiou: Sequence[float], rules: metrics.Rules = metrics.OURS,
           ambiguous: Mapping[str, Sequence[tuple[float, float]]] | None = None
           ) -> metrics.MapReport:
    """Scores predictions by one of `PROTOCOLS`.

    `rules` are of "activitynet", `ambiguous` of "thumos".
    """
    if protocol == "thumos":
        return thumos_protocol.evaluate_thumos(
            truth, predictions, class_names=class_names,
            tiou_thresholds=tiou, ambiguous=ambiguous or {})
    return metrics.evaluate_map(truth, predictions, class_names=class_names,
                                tiou_thresholds=tiou, rules=rules)


def frame_report(annotations: Annotations, truth: metrics.Truth,
                 predictions: metrics.Predictions, *, protocol: str,
                 moments_per_second: float) -> per_frame.FrameReport:
    """Scores predictions at moments, by one of `per_frame.PROTOCOLS`.

    Args:
      moments_per_second: of "multithumos", for which a file of predictions
        does not say how many features a video had.

    Raises:
      InputError: a video without a duration, or no number of moments.
    """
    if protocol == "multithumos" and not (
            0 < moments_per_second <= _MOST_MOMENTS):
        raise InputError(
            "--per_frame=multithumos scores the moments of the features: give "
            "how many they are a second, up to "
            f"{_MOST_MOMENTS}, with --moments_per_second (7.5 for "
            "I3D features of every fourth of 30 frames)")
    known = _durations(annotations, truth)
    return per_frame.evaluate_frames(
        truth, predictions, class_names=annotations.class_names,
        durations=known, protocol=protocol, num_moments={
            video: max(1, int(seconds * moments_per_second))
            for video, seconds in known.items()}
        if protocol == "multithumos" else None)


def moments_report(annotations: Annotations, truth: metrics.Truth,
                   rows: Mapping[str, np.ndarray], path: Path
                   ) -> per_frame.FrameReport:
    """Scores a submission to Charades' localization, whose columns are the
    numbers of the classes.

    Args:
      rows: what `read_moments` returned of the file `path`.

    Raises:
      InputError: a video has no duration, or classes have no number or no
        column.
    """
    numbers = {action.label: action.label_id
               for video in annotations.videos.values()
               for action in video.actions}
    columns = [numbers.get(name) for name in annotations.class_names]
    if None in columns:
        raise InputError(
            f"{annotations.path}: its classes have no numbers, which the "
            f"columns of {path} are: give Charades_v1_test.csv and "
            "Charades_v1_classes.txt")
    width = next(iter(rows.values())).shape[1]
    if width <= max((one or 0 for one in columns), default=0):
        raise InputError(f"{path}: has scores of {width} classes, and "
                         f"{annotations.path} more: give the file of this "
                         "version of the data set")
    return per_frame.evaluate_moments(
        truth, {video: row[:, np.array(columns, int)]
                for video, row in rows.items() if video in truth},
        class_names=annotations.class_names,
        durations=_durations(annotations, truth))


def _durations(annotations: Annotations, truth: metrics.Truth
               ) -> dict[str, float]:
    durations = {video: annotations.videos[video].duration_seconds
                 for video in truth}
    missing = [video for video, seconds in durations.items() if not seconds]
    if missing:
        raise InputError(
            f"{annotations.path}: {len(missing)} videos have no duration, the "
            f"first {missing[0]}: --per_frame needs them")
    return {video: float(seconds or 0) for video, seconds in durations.items()}


def ground_truth(annotations: Annotations, subset: str,
                 excluded: Mapping[str, Any] | None = None
                 ) -> dict[str, list[metrics.Annotation]]:
    """Returns the actions of the videos of a subset, without the excluded;
    InputError where they are known only in part."""
    (chosen,) = select_subsets(annotations, [("--subset", subset)])
    videos = [video for video in chosen
              if video.video_id not in (excluded or {})]
    check_scorable(annotations.path, videos)
    return {video.video_id: [
        (action.start_seconds, action.end_seconds, action.label)
        for action in video.actions] for video in videos}


def present_classes(annotations: Annotations, truth: metrics.Truth
                    ) -> tuple[str, ...]:
    """Returns the classes that have an action, in label order."""
    present = {label for actions in truth.values() for *_, label in actions}
    return tuple(name for name in annotations.class_names
                 if name in present)


def fit_ids(predictions: metrics.Predictions, known: Mapping[str, Any]
            ) -> metrics.Predictions:
    """Adds or removes "v_", and the ending of a video file, in all ids if
    only then some are known."""
    # ActivityNet's ids exist with and without this prefix.
    for old, new in (("", ""), ("v_", ""), ("", "v_")):
        renamed = _fit_endings({
            new + video.removeprefix(old): rows
            for video, rows in predictions.items()}, known)
        if not renamed.keys().isdisjoint(known):
            return renamed
    return predictions


def _fit_endings(predictions: metrics.Predictions, known: Mapping[str, Any]
                 ) -> metrics.Predictions:
    """Renames "a.mp4" to "a", or "a" to "a.mp4", where only that is known."""
    of_stem: dict[str, list[str]] = {}
    for video in known:
        of_stem.setdefault(without_ending(video), []).append(video)
    renamed: dict[str, Sequence[Detection]] = {}
    for video, rows in predictions.items():
        stem = without_ending(video)
        names = of_stem.get(stem, [])
        is_renamed = (video not in known and len(names) == 1
                      and stem in (video, *names)
                      and names[0] not in predictions)
        name = names[0] if is_renamed else video
        renamed[video if name in renamed else name] = rows
    return renamed


def unmatched(annotations: Annotations, truth: metrics.Truth,
              predictions: metrics.Predictions) -> list[str]:
    """Returns lines about predictions that can match no action: of unknown
    videos, of unknown labels, in another unit of time, or all of them."""
    lines = []
    labels = {label for actions in truth.values() for *_, label in actions}
    strangers = [video for video in predictions
                 if video not in annotations.videos]
    if strangers:
        count = sum(len(predictions[video]) for video in strangers)
        lines.append(
            f"unknown videos: {len(strangers)}, with {count} predictions; the "
            f"first is {strangers[0]!r}"
            + did_you_mean(strangers[0], annotations.videos))
    counts = Counter(row.label for rows in predictions.values()
                     for row in rows)
    unknown = [label for label in counts if label not in labels]
    if unknown:
        count = sum(counts[label] for label in unknown)
        lines.append(
            f"unknown labels: {len(unknown)}, of {count} predictions; the "
            f"first is {unknown[0]!r}"
            + (", which has no action in this subset"
               if unknown[0] in annotations.class_names else
               _label_hint(unknown[0], annotations, labels)))
    matching = [row for video, rows in predictions.items() if video in truth
                for row in rows if row.label in labels]
    if not counts:
        lines.append("there is no prediction, so the mAP is 0")
    elif not matching:
        lines.append(
            f"no prediction matches: none of {counts.total()} has a label of "
            f"an action and a video of this subset, so the mAP is 0")
    return lines + _unit_doubts(annotations, truth, predictions)


def _label_hint(label: str, annotations: Annotations, labels: Collection[str]
                ) -> str:
    hint = (did_you_mean(label, labels)
            or f"; known are {', '.join(sorted(labels)[:5])}")
    if not label.strip().isdecimal():
        return hint
    ids = {action.label_id: action.label
           for video in annotations.videos.values()
           for action in video.actions if action.label_id is not None}
    names = ids or dict(enumerate(annotations.class_names))
    name = names.get(int(label))
    return f"; number {label} is {name!r}, labels are names" if name else hint


def _unit_doubts(annotations: Annotations, truth: metrics.Truth,
                 predictions: metrics.Predictions) -> list[str]:
    """Returns a line where predicted and annotated times differ in unit."""
    predicted = max((row.end_seconds for video, rows in predictions.items()
                     if video in truth for row in rows), default=0.0)
    annotated = max((end for actions in truth.values()
                     for _, end, _ in actions), default=0.0)
    longest = max([annotated, *(
        annotations.videos[video].duration_seconds or 0.0 for video in truth)])
    if not (predicted > 0 and annotated > 0) or (
            annotated / _OTHER_UNIT < predicted < longest * _OTHER_UNIT):
        return []
    return [f"the predictions reach to {predicted:.6g} s, the annotations to "
            f"{annotated:.6g} s: give both in seconds, not in milliseconds, "
            "frames or shares"]


def tiou_thresholds(values: float | Sequence[float], where: str
                    ) -> list[float]:
    """Returns the values as a list; `where` begins the error message."""
    try:
        thresholds = np.atleast_1d(np.asarray(values, np.float64))
    except (TypeError, ValueError):
        thresholds = np.empty(0)
    if thresholds.ndim > 1 or not thresholds.size or not all(
            (thresholds > 0) & (thresholds <= 1)):
        raise InputError(f"{where}: give numbers above 0 and up to 1")
    return thresholds.tolist()


def _subset_of(predictions: metrics.Predictions, annotations: Annotations
               ) -> str:
    subsets = sorted({annotations.videos[video].subset for video in predictions
                      if video in annotations.videos})
    if len(subsets) != 1:
        what = ("no predicted video is in the annotations" if not subsets
                else f"the predicted videos are of {', '.join(subsets)}")
        raise InputError(f"{annotations.path}: {what}; name the subset to "
                         "score with subset=")
    return subsets[0]
