"""The evaluation of the THUMOS-14 challenge, after its kit (TH14evalkit).

In each video every *action*, in the order of the annotations, takes the free
prediction with the highest IoU, if it is above the threshold. Other
predictions that overlap a segment marked Ambiguous are left out. Average
precision is the mean of the precision at every hit, without interpolation.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from losa_jax.detection import metrics
from losa_jax.detection.segments import iou_of_rows


def evaluate_thumos(ground_truth: metrics.Truth,
                    predictions: metrics.Predictions, *,
                    class_names: Sequence[str],
                    tiou_thresholds: Sequence[float],
                    ambiguous: Mapping[str, Sequence[tuple[float, float]]]
                    ) -> metrics.MapReport:
    """Scores predictions as the challenge did; see `metrics.evaluate_map`.

    Thresholds are exclusive. `ambiguous` are (start_seconds, end_seconds) of
    each video's Ambiguous segments.
    """
    precision = np.full((len(class_names), len(tiou_thresholds)), np.nan)
    actions_per_class = np.zeros(len(class_names), int)
    predictions_per_class = np.zeros(len(class_names), int)
    for k, name in enumerate(class_names):
        parts = []
        for video, actions in ground_truth.items():
            segments = [row for row in actions if row[2] == name]
            actions_per_class[k] += len(segments)
            rows = sorted((row for row in predictions.get(video, ())
                           if row.label == name), key=lambda row: -row.score)
            predictions_per_class[k] += len(rows)
            if not rows:
                continue
            iou = iou_of_rows(segments, rows)
            hits = np.stack([_take(iou, tiou) for tiou in tiou_thresholds])
            near = iou_of_rows(ambiguous.get(video, ()), rows).any(axis=0)
            parts.append((np.array([row.score for row in rows]), hits,
                          hits | ~near))
        if actions_per_class[k]:
            precision[k] = _hit_precision(*(
                np.concatenate(part, axis=-1) for part
                in zip(*parts, strict=True))) if parts else 0
            precision[k] /= actions_per_class[k]
    return metrics.make_report(
        class_names, tiou_thresholds, precision, actions_per_class,
        predictions_per_class, num_videos=len(ground_truth),
        num_dropped_predictions=sum(map(len, predictions.values()))
        - int(predictions_per_class.sum()), num_removed_actions=0)


def _take(iou: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which predictions, best score first, an action took, bool [n]."""
    free = np.ones(iou.shape[1], bool)
    for overlaps in iou:
        left = np.where(free, overlaps, -1.0)
        best = int(np.argmax(left))
        if left[best] > threshold:
            free[best] = False
    return ~free


def _hit_precision(scores: np.ndarray, hits: np.ndarray, counted: np.ndarray
                   ) -> np.ndarray:
    """Returns the sum of the precision at the hits, [thresholds]."""
    order = np.argsort(-scores, kind="stable")
    sums = []
    for hit, is_counted in zip(hits[:, order], counted[:, order], strict=True):
        hit = hit[is_counted]
        precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
        sums.append((precision * hit).sum())
    return np.array(sums)
