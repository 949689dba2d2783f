"""Thresholds by hand."""

import pytest

from losa_jax.detection.metrics import best_f1_thresholds
from losa_jax.detection.segments import Detection

TRUTH = {"a": [(0, 1, "run"), (5, 6, "run"), (8, 9, "jump")],
         "b": [(0, 1, "run")]}


def _run(*rows):
    predictions = {"a": [Detection(*one) for one in rows]}
    return best_f1_thresholds(TRUTH, predictions,
                              class_names=("run", "jump", "swim"))


def test_the_best_cut_by_hand():
    thresholds = _run((0, 1, "run", 0.9), (2, 3, "run", 0.8),
                 (5, 6, "run", 0.7), (3, 4, "run", 0.6))
    # 1 of 1: F1 2/4; 1 of 2: 2/5; 2 of 3: 4/6; 2 of 4: 4/7.
    assert thresholds["run"] == pytest.approx(
        {"score": 0.7, "f1": 2 / 3, "precision": 2 / 3, "recall": 2 / 3})


def test_equal_scores_stay_together():
    thresholds = _run((0, 1, "run", 0.7), (2, 3, "run", 0.7))
    assert thresholds["run"]["precision"] == 0.5


def test_a_class_without_hits_has_the_default():
    thresholds = _run((0, 1, "jump", 0.9), (0, 1, "swim", 0.9))
    assert thresholds["jump"]["score"] == 0.5 and thresholds["jump"]["f1"] == 0
    assert thresholds["swim"]["score"] == 0.5


def test_a_class_of_actions_that_are_none():
    """Annotations as short as this are left out of every score."""
    thresholds = best_f1_thresholds(
        {"a": [(0, 0.0005, "jump"), (0, 1, "run")]},
        {"a": [Detection(0, 1, "run", 0.7), Detection(0, 1, "jump", 0.9)]},
        class_names=("jump", "run"))
    assert (thresholds["jump"]["score"], thresholds["jump"]["f1"]) == (0.5, 0)
    assert (thresholds["run"]["score"], thresholds["run"]["f1"]) == (0.7, 1)
