"""Score thresholds at which each class's F1 is best on a validation split."""

from collections.abc import Sequence

import numpy as np

from losa_jax.detection.metrics import Predictions, Truth, match_predictions

# For classes without actions or matches.
DEFAULT_THRESHOLD = 0.5


def best_f1_thresholds(ground_truth: Truth, predictions: Predictions, *,
                       class_names: Sequence[str], tiou_threshold: float = 0.5
                       ) -> dict[str, dict[str, float]]:
    """Returns {class: {"score", "f1", "precision", "recall"}}.

    The figures are those of the predictions with at least this score. A class
    without actions or matches has the score 0.5 and an F1 of 0.
    """
    thresholds = {name: {"score": DEFAULT_THRESHOLD, "f1": 0.0,
                         "precision": 0.0, "recall": 0.0}
                  for name in class_names}
    for one in match_predictions(
            ground_truth, predictions, class_names=class_names,
            tiou_thresholds=(tiou_threshold,)):
        hits = np.cumsum(one.hits[0])
        if not hits.size or not hits[-1]:
            continue
        kept = np.arange(1, len(hits) + 1)
        actions = one.actions_per_video.sum()
        f1 = 2 * hits / (kept + actions)
        # Of equal scores all or none are kept.
        ends = np.append(one.scores[1:] < one.scores[:-1], True)
        best = int(np.argmax(np.where(ends, f1, -1.0)))
        thresholds[class_names[one.label]] = {
            "score": float(one.scores[best]), "f1": float(f1[best]),
            "precision": float(hits[best] / kept[best]),
            "recall": float(hits[best] / actions)}
    return thresholds
