"""Error categories by hand."""

import pytest

from losa_jax.detection.diagnosis import diagnose, format_diagnosis
from losa_jax.detection.segments import Detection

TRUTH = {"a": [(0.0, 10.0, "run"), (20.0, 30.0, "jump")],
         "b": [(0.0, 1.0, "run"), (5.0, 6.0, "run")]}
FOUND = {"a": [Detection(0, 10, "run", 0.9),     # true
               Detection(0.5, 10, "run", 0.8),   # double
               Detection(20, 30, "run", 0.7),    # wrong label
               Detection(0, 4, "run", 0.6),      # localization
               Detection(20, 24, "run", 0.5),    # confusion
               Detection(50, 60, "jump", 0.4)],  # background
         "b": [Detection(0, 1, "run", 0.3)]}     # true


@pytest.fixture(scope="module")
def found():
    return diagnose(TRUTH, FOUND, class_names=("run", "jump"),
                    tiou_thresholds=(0.5,), durations={"a": 100.0, "b": 10.0})


def test_error_categories(found):
    # G is 4: the best four, then all seven.
    assert {name: shares[0] for name, shares in found.profile.items()} == {
        "true": 0.25, "double": 0.25, "wrong_label": 0.25,
        "localization": 0.25, "confusion": 0.0, "background": 0.0}
    assert found.profile["true"][-1] == pytest.approx(2 / 7)
    assert found.profile["background"][-1] == pytest.approx(1 / 7)
    assert found.missed == pytest.approx(0.5)


def test_the_gain_without_an_error_category(found):
    # run: hits at ranks 1 and 6 of 3 actions: (1 + 2/6) / 3; jump 0.
    assert found.average_map == pytest.approx((1 + 2 / 6) / 3 / 2)
    # Without the double, the second hit is at rank 5.
    assert found.gain["double"] == pytest.approx((2 / 5 - 2 / 6) / 3 / 2)
    assert found.gain["background"] == pytest.approx(0.0)


def test_bins(found):
    bins = found.bins["length_seconds"]
    # Fifths of 1, 1, 10, 10; the empty one in the middle is left out.
    assert [(round(one.low, 6), round(one.high, 6), one.num_actions)
            for one in bins] == [(1.0, 2.8, 2), (8.2, 10.0, 2)]
    assert sum(one.num_actions for one in found.bins["coverage"]) == 4
    assert all(0 <= one.missed <= 1 for one in bins)
    text = format_diagnosis(found)
    assert "wrong_label" in text and "missed: 50.0 %" in text


def test_matches_of_other_bins_are_ignored():
    truth = {"a": [(0.0, 1.0, "run"), (10.0, 20.0, "run")]}
    predictions = {"a": [Detection(0, 1, "run", 0.9),
                         Detection(10, 20, "run", 0.8)]}
    found = diagnose(truth, predictions, class_names=("run",),
                     tiou_thresholds=(0.5,), durations={})
    assert [one.average_map for one in found.bins["length_seconds"]] == [
        1.0] * len(found.bins["length_seconds"])
    assert found.bins["coverage"] == []
