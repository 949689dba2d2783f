"""Draws of videos against scoring the drawn videos themselves."""

import numpy as np
import pytest

from losa_jax.detection import bootstrap
from losa_jax.detection.metrics import evaluate_map
from losa_jax.detection.segments import Detection

CLASSES = ("run", "jump", "swim")
THRESHOLDS = (0.3, 0.5, 0.7)


@pytest.fixture(scope="module")
def scored():
    rng = np.random.default_rng(3)
    truth, predictions = {}, {}
    for video in range(12):
        # "swim" happens in two videos only: some draws hold none.
        labels = CLASSES if video < 2 else CLASSES[:2]
        starts = np.cumsum(rng.uniform(4, 9, 5))
        truth[f"v{video}"] = [
            (s, s + rng.uniform(1, 4), labels[rng.integers(len(labels))])
            for s in starts]
        predictions[f"v{video}"] = [
            Detection(s + rng.normal(0, 0.8), e + 1 + rng.normal(0, 0.8),
                      label if rng.random() < 0.8 else CLASSES[0],
                      float(rng.random()))
            for s, e, label in truth[f"v{video}"] for _ in range(4)]
    return truth, predictions


def _score(truth, predictions):
    return evaluate_map(truth, predictions, class_names=CLASSES,
                        tiou_thresholds=THRESHOLDS).average_map


def test_a_draw_is_the_map_of_its_videos(scored):
    truth, predictions = scored
    counts = np.random.default_rng(0).integers(0, 2, (70, 12))
    counts[0] = 1
    counts[1, :2] = 0  # no action of one class
    draws = bootstrap.map_draws(truth, predictions, class_names=CLASSES,
                                tiou_thresholds=THRESHOLDS, counts=counts)
    for row, value in zip(counts, draws, strict=True):
        some = [name for name, n in zip(truth, row, strict=True) if n]
        assert value == pytest.approx(_score(
            {name: truth[name] for name in some},
            {name: predictions[name] for name in some}), abs=1e-6)


def test_a_video_drawn_twice_counts_twice(scored):
    truth, predictions = scored
    counts = np.ones((1, 12), int)
    counts[0, 3] = 3
    value, = bootstrap.map_draws(truth, predictions, class_names=CLASSES,
                                 tiou_thresholds=THRESHOLDS, counts=counts)
    copies = {f"v3 {i}": (truth["v3"], predictions["v3"]) for i in range(2)}
    more_truth = {**truth, **{k: t for k, (t, _) in copies.items()}}
    more_predictions = {**predictions, **{k: f for k, (_, f) in copies.items()}}
    # Copies have equal scores, whose order is arbitrary.
    assert value == pytest.approx(_score(more_truth, more_predictions),
                                  abs=0.02)
    assert abs(value - _score(truth, predictions)) > 0.001


def test_draws_keep_the_number_of_videos():
    counts = bootstrap.draw_videos(40, 500)
    assert (counts.sum(axis=1) == 40).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.2)


def test_an_interval_holds_95_percent_of_the_draws():
    rng = np.random.default_rng(1)
    one = rng.normal(0.5, 0.1, (1, 20000))
    assert bootstrap.interval(one) == pytest.approx(
        (0.5 - 1.96 * 0.1, 0.5 + 1.96 * 0.1), abs=0.01)


def test_what_two_variants_share_cancels():
    rng = np.random.default_rng(1)
    hard = rng.normal(0.5, 0.1, (1, 5000))
    assert bootstrap.interval(hard + 0.02, hard) == pytest.approx(
        (0.02, 0.02))
    # Seeds do not: their difference widens it.
    several = np.concatenate([hard - 0.1, hard, hard + 0.1])
    low, high = bootstrap.interval(several, several)
    assert low < 0 < high and high - low > 0.1
