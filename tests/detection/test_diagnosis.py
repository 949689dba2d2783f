"""Error categories by hand."""

import itertools

import pytest

from losa_jax.detection.diagnosis import diagnose, format_diagnosis
from losa_jax.detection.segments import Detection

TRUTH = {"a": [(0.0, 10.0, "run"), (20.0, 30.0, "jump")],
         "b": [(0.0, 1.0, "run"), (5.0, 6.0, "run")]}
PREDICTIONS = {
    "a": [Detection(0, 10, "run", 0.9),     # true
          Detection(0.5, 10, "run", 0.8),   # double
          Detection(20, 30, "run", 0.7),    # wrong label
          Detection(0, 4, "run", 0.6),      # localization
          Detection(20, 24, "run", 0.5),    # confusion
          Detection(50, 60, "jump", 0.4)],  # background
    "b": [Detection(0, 1, "run", 0.3)]}     # true


@pytest.fixture(scope="module")
def diagnosis():
    return diagnose(TRUTH, PREDICTIONS, class_names=("run", "jump"),
                    tiou_thresholds=(0.5,), durations={"a": 100.0, "b": 10.0})


def test_error_categories(diagnosis):
    # G is 4: the best four, then all seven.
    assert {name: shares[0] for name, shares in diagnosis.profile.items()} == {
        "true": 0.25, "double": 0.25, "wrong_label": 0.25,
        "localization": 0.25, "confusion": 0.0, "background": 0.0}
    assert diagnosis.profile["true"][-1] == pytest.approx(2 / 7)
    assert diagnosis.profile["background"][-1] == pytest.approx(1 / 7)
    assert diagnosis.missed == pytest.approx(0.5)


def test_the_gain_without_an_error_category(diagnosis):
    # run: hits at ranks 1 and 6 of 3 actions: (1 + 2/6) / 3; jump 0.
    assert diagnosis.average_map == pytest.approx((1 + 2 / 6) / 3 / 2)
    # Without the double, the second hit is at rank 5.
    assert diagnosis.gain["double"] == pytest.approx((2 / 5 - 2 / 6) / 3 / 2)
    assert diagnosis.gain["background"] == pytest.approx(0.0)


def test_bins(diagnosis):
    bins = diagnosis.bins["length_seconds"]
    # Fifths of 1, 1, 10, 10; the empty one in the middle is left out.
    assert [(round(one.low, 6), round(one.high, 6), one.num_actions)
            for one in bins] == [(1.0, 2.8, 2), (8.2, 10.0, 2)]
    assert sum(one.num_actions for one in diagnosis.bins["coverage"]) == 4
    assert all(0 <= one.missed <= 1 for one in bins)
    text = format_diagnosis(diagnosis)
    assert "wrong_label" in text and "missed: 50.0 %" in text


@pytest.mark.parametrize("counts", [[1], [1, 3, 4, 9, 12], [2, 2, 7], [3] * 4])
def test_bins_of_counts_are_whole_numbers(counts):
    truth = {f"v{number}": [(float(i), i + 0.5, "run") for i in range(count)]
             for number, count in enumerate(counts)}
    diagnosis = diagnose(truth, {}, class_names=("run",),
                         tiou_thresholds=(0.5,), durations={})
    bins = diagnosis.bins["actions_in_video"]
    assert sum(one.num_actions for one in bins) == sum(counts)
    assert {edge for one in bins for edge in one[:2]} <= set(counts)
    assert all(low.high < high.low for low, high in itertools.pairwise(bins))
    rows = format_diagnosis(diagnosis).split("actions_in_video")[1]
    for one, row in zip(bins, rows.splitlines()[1:], strict=True):
        shown = (f"{one.low} .. {one.high}" if one.low < one.high
                 else f"{one.low}")
        assert row.strip().startswith(f"{shown} ")
        assert len(row) == len(rows.splitlines()[1])


def test_matches_of_other_bins_are_ignored():
    truth = {"a": [(0.0, 1.0, "run"), (10.0, 20.0, "run")]}
    predictions = {"a": [Detection(0, 1, "run", 0.9),
                         Detection(10, 20, "run", 0.8)]}
    diagnosis = diagnose(truth, predictions, class_names=("run",),
                     tiou_thresholds=(0.5,), durations={})
    assert [one.average_map for one in diagnosis.bins["length_seconds"]] == [
        1.0] * len(diagnosis.bins["length_seconds"])
    assert diagnosis.bins["coverage"] == []
