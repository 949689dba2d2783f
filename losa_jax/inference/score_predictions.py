"""Scores predictions against annotations, without a model."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.predictions import check_predictions, read_predictions
from losa_jax.data.records import Annotations
from losa_jax.detection import metrics, thumos_protocol
from losa_jax.errors import InputError

PROTOCOLS = ("activitynet", "thumos")


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


def ground_truth(annotations: Annotations, subset: str,
                 excluded: Mapping[str, Any] | None = None
                 ) -> dict[str, list[metrics.Annotation]]:
    """Returns the actions of the videos of a subset, without the excluded."""
    chosen = annotations.subset(subset)
    if not chosen:
        known = sorted({one.subset for one in annotations.videos.values()})
        raise InputError(f"{annotations.path}: no video of subset "
                         f"{subset!r}; the file has {', '.join(known)}")
    return {video.video_id: [
        (action.start_seconds, action.end_seconds, action.label)
        for action in video.actions]
        for video in chosen if video.video_id not in (excluded or {})}


def present_classes(annotations: Annotations, truth: metrics.Truth
                    ) -> tuple[str, ...]:
    """Returns the classes that have an action, in label order."""
    present = {label for actions in truth.values() for *_, label in actions}
    return tuple(name for name in annotations.class_names
                 if name in present)


def fit_ids(predictions: metrics.Predictions, known: Mapping[str, Any]
            ) -> metrics.Predictions:
    """Adds or removes "v_" in all ids if only then some are known."""
    # ActivityNet's ids exist with and without this prefix.
    for old, new in (("", ""), ("v_", ""), ("", "v_")):
        renamed = {new + video.removeprefix(old): rows
                   for video, rows in predictions.items()}
        if not renamed.keys().isdisjoint(known):
            return renamed
    return predictions


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
