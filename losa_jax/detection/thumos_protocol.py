"""THUMOS-14's own evaluation, which is not ActivityNet's.

After the challenge's kit (TH14evalkit, Matlab; facts only). What differs:
inside a video each *action*, in the order of the annotations, takes the free
prediction that overlaps it most, if by more than the threshold; predictions
left over that touch a segment marked Ambiguous are no false positives but
leave; average precision is the mean of the precision at every hit, without
interpolation.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from losa_jax.detection.metrics import NO_ACTIONS, Annotation, MapReport
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError

# The class of segments that nobody could tell apart.
AMBIGUOUS = "Ambiguous"


def evaluate_thumos(ground_truth: Mapping[str, Sequence[Annotation]],
                    predictions: Mapping[str, Sequence[Detection]], *,
                    class_names: Sequence[str],
                    tiou_thresholds: Sequence[float],
                    ambiguous: Mapping[str, Sequence[tuple[float, float]]]
                    ) -> MapReport:
    """Scores predictions as the challenge did.

    Args:
      ground_truth, predictions, class_names, tiou_thresholds: as in
        `metrics.evaluate_map`; a threshold must be passed, not reached.
        Predictions in other videos are left out.
      ambiguous: (start_seconds, end_seconds) of each video's Ambiguous
        segments.

    Raises:
      InputError: no action at all.
    """
    shape = (len(class_names), len(tiou_thresholds))
    precision = np.full(shape, np.nan)
    actions_per_class = np.zeros(len(class_names), int)
    predictions_per_class = np.zeros(len(class_names), int)
    for k, name in enumerate(class_names):
        scores, hits, counts = [], [], []
        for video, actions in ground_truth.items():
            segments = np.array([(start, end) for start, end, label
                                 in actions if label == name]).reshape(-1, 2)
            actions_per_class[k] += len(segments)
            found = sorted((d for d in predictions.get(video, ())
                            if d.label == name), key=lambda d: -d.score)
            predictions_per_class[k] += len(found)
            if not found:
                continue
            ends = np.array([(d.start_seconds, d.end_seconds) for d in found])
            hit = np.stack([_take(_iou(segments, ends), threshold)
                            for threshold in tiou_thresholds])
            near = _iou(np.array(ambiguous.get(video, ())).reshape(-1, 2),
                        ends).sum(axis=0) > 0
            scores.append(np.array([d.score for d in found]))
            hits.append(hit)
            counts.append(hit | ~near)
        if actions_per_class[k]:
            precision[k] = _precision(scores, hits, counts,
                                      actions_per_class[k], shape[1])
    if not actions_per_class.any():
        raise InputError(NO_ACTIONS)
    means = precision[actions_per_class > 0].mean(axis=0)
    known = set(class_names)
    dropped = sum(
        len(found) if video not in ground_truth else sum(
            d.label not in known for d in found)
        for video, found in predictions.items())
    return MapReport(
        class_names=tuple(class_names),
        tiou_thresholds=tuple(map(float, tiou_thresholds)),
        average_precision=precision, map_per_threshold=means,
        average_map=float(means.mean()), actions_per_class=actions_per_class,
        predictions_per_class=predictions_per_class,
        num_videos=len(ground_truth),
        num_actions=int(actions_per_class.sum()),
        num_predictions=int(predictions_per_class.sum()),
        num_dropped_predictions=dropped, num_removed_actions=0)


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[m, n] of segments [m, 2] and [n, 2]."""
    shared = np.maximum(
        np.minimum(one[:, None, 1], other[None, :, 1])
        - np.maximum(one[:, None, 0], other[None, :, 0]), 0)
    union = ((one[:, 1] - one[:, 0])[:, None]
             + (other[:, 1] - other[:, 0])[None] - shared)
    return shared / np.maximum(union, 1e-12)


def _take(iou: np.ndarray, threshold: float) -> np.ndarray:
    """bool [n]: predictions, best score first, that an action took."""
    free = np.ones(iou.shape[1], bool)
    for overlaps in iou:
        left = np.where(free, overlaps, -1.0)
        best = int(np.argmax(left))
        if left[best] > threshold:
            free[best] = False
    return ~free


def _precision(scores: list[np.ndarray], hits: list[np.ndarray],
               counts: list[np.ndarray], num_actions: int, num_thresholds: int
               ) -> np.ndarray:
    """[thresholds] mean precision at the hits."""
    if not scores:
        return np.zeros(num_thresholds)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    values = []
    for hit, counted in zip(np.concatenate(hits, 1)[:, order],
                            np.concatenate(counts, 1)[:, order],
                            strict=True):
        hit = hit[counted]
        precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
        values.append((precision * hit).sum() / num_actions)
    return np.array(values)
