"""Scores predictions against annotations: mAP by a data set's protocol.

No model runs here; the job that runs one is `losa_jax.jobs.evaluate`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.predictions import check_predictions, read_predictions
from losa_jax.data.records import Annotations
from losa_jax.detection.metrics import (
    OURS,
    Annotation,
    MapReport,
    Rules,
    evaluate_map,
)
from losa_jax.detection.segments import Detection
from losa_jax.detection.thumos_protocol import evaluate_thumos
from losa_jax.errors import InputError

PROTOCOLS = ("activitynet", "thumos")
# ActivityNet's ids circulate with and without this before them.
_PREFIX = "v_"

Truth = dict[str, list[Annotation]]
Predictions = Mapping[str, Sequence[Detection]]


def evaluate(predictions: str | os.PathLike | Predictions,
             annotations: str | os.PathLike | Annotations, *,
             protocol: str = "activitynet",
             tiou: float | Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7),
             subset: str | None = None) -> MapReport:
    """Mean average precision of anybody's predictions.

    Args:
      predictions: a file in the ActivityNet submission format, or {video id:
        list of `losa_jax.Detection`} in seconds from the first frame. If no
        id is in the annotations, they are tried without and with "v_" in
        front.
      annotations: a file in any layout that docs/data.md lists.
      protocol: "activitynet", or "thumos" as the THUMOS-14 challenge scored.
      tiou: temporal IoU from which a prediction is right, above 0 and up to
        1: several, or one number.
      subset: whose videos are scored, those without predictions too, as the
        annotations name it ("testing"); None: the subset of the predicted
        videos.

    Returns:
      a `MapReport`: `average_map`, `map_per_threshold` [thresholds] and
      `average_precision` [classes, thresholds], shares 0..1 and not percent;
      `class_names`, those with an action in the subset, in label order; and
      how much was scored and left out.

    Raises:
      InputError: a file that cannot be read, a detection with a time or
        score that is not finite or an end before its start, an unknown
        protocol or subset, wrong thresholds, or predictions in several
        subsets where none is named.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol={protocol!r}: choose one of "
                         f"{', '.join(PROTOCOLS)}")
    thresholds = _thresholds(tiou)
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
    return scored(truth, predictions, present_classes(annotations, truth),
                  protocol=protocol, tiou_thresholds=thresholds)


def scored(truth: Truth, predictions: Predictions,
           class_names: Sequence[str], *, protocol: str,
           tiou_thresholds: Sequence[float], rules: Rules = OURS,
           ambiguous: Mapping[str, Sequence[tuple[float, float]]] | None = None
           ) -> MapReport:
    """Scores by one of `PROTOCOLS`.

    Args:
      rules: of "activitynet", see `evaluate_map`.
      ambiguous: of "thumos", see `evaluate_thumos`.
    """
    if protocol == "thumos":
        return evaluate_thumos(
            truth, predictions, class_names=class_names,
            tiou_thresholds=tiou_thresholds, ambiguous=ambiguous or {})
    return evaluate_map(truth, predictions, class_names=class_names,
                        tiou_thresholds=tiou_thresholds, rules=rules)


def ground_truth(annotations: Annotations, subset: str,
                 excluded: Mapping[str, Any] | None = None) -> Truth:
    """The actions of every video of a subset that is not excluded.

    Raises:
      InputError: the file has no such subset.
    """
    chosen = annotations.subset(subset)
    if not chosen:
        known = sorted({video.subset for video
                        in annotations.videos.values()})
        raise InputError(f"{annotations.path}: no video of subset "
                         f"{subset!r}; the file has {', '.join(known)}")
    return {video.video_id: [
        (action.start_seconds, action.end_seconds, action.label)
        for action in video.actions]
        for video in chosen if video.video_id not in (excluded or {})}


def present_classes(annotations: Annotations, truth: Truth
                    ) -> tuple[str, ...]:
    """Classes that some action has, in label order."""
    present = {label for actions in truth.values() for *_, label in actions}
    return tuple(name for name in annotations.class_names
                 if name in present)


def fit_ids(predictions: Predictions, known: Mapping[str, Any]
            ) -> Predictions:
    """The predictions under the annotations' ids, with or without "v_"."""
    if any(video in known for video in predictions):
        return predictions
    changes: tuple[Callable[[str], str], ...] = (
        lambda name: name.removeprefix(_PREFIX),
        lambda name: f"{_PREFIX}{name}")
    for change in changes:
        renamed = {change(video): rows for video, rows in predictions.items()}
        if any(video in known for video in renamed):
            return renamed
    return predictions


def _thresholds(tiou: float | Sequence[float]) -> list[float]:
    try:
        values = np.atleast_1d(np.asarray(tiou, np.float64))
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim > 1 or not values.size or not all(
            (values > 0) & (values <= 1)):
        raise InputError(f"tiou={tiou!r}: give numbers above 0 and up to 1")
    return values.tolist()


def _subset_of(predictions: Predictions, annotations: Annotations) -> str:
    subsets = sorted({annotations.videos[video].subset
                      for video in predictions
                      if video in annotations.videos})
    if len(subsets) != 1:
        what = ("no predicted video is in the annotations" if not subsets
                else f"the predicted videos are of {', '.join(subsets)}")
        raise InputError(f"{annotations.path}: {what}: name the subset to "
                         "score with subset=")
    return subsets[0]
