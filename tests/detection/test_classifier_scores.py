"""Proposals x classes by hand."""

import pytest

from losa_jax.detection.classifier_scores import fuse, rescore
from losa_jax.detection.segments import Detection

PROPOSALS = [Detection(0, 1, "action", 0.81), Detection(2, 3, "action", 0.25)]
SCORES = {"run": 0.64, "jump": 0.04, "swim": 0.01}


def test_every_proposal_stands_for_the_best_classes():
    fused = fuse(PROPOSALS, SCORES, top_classes=2)
    assert [(row.start_seconds, row.label) for row in fused] == [
        (0, "run"), (2, "run"), (0, "jump"), (2, "jump")]
    assert [row.score for row in fused] == pytest.approx(
        [0.72, 0.4, 0.18, 0.1])
    product = fuse(PROPOSALS, SCORES, top_classes=2, fusion="product",
                   max_kept=3)
    assert [row.label for row in product] == ["run", "run", "jump"]
    assert product[0].score == pytest.approx(0.81 * 0.64)


def test_detections_with_classes_are_weighed():
    fused = rescore([Detection(0, 1, "jump", 0.9),
                     Detection(2, 3, "run", 0.5),
                     Detection(4, 5, "dive", 0.5)], SCORES, fusion="product")
    assert [row.label for row in fused] == ["run", "jump", "dive"]
    assert [row.score for row in fused] == pytest.approx([0.32, 0.036, 0.0])
