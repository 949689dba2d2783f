"""Segments of several windows become the detections of one video."""

import json

import numpy as np
import pytest

from losa_jax import timeline
from losa_jax.detection.nms import NmsSettings, suppress
from losa_jax.detection.segments import (
    Detection,
    Segments,
    detections,
    in_seconds,
    joined,
)

CLASSES = ("jump", "run")


def _segments(segments, scores, labels, has_scores=True):
    scores = np.float32(scores)
    return Segments(
        np.float32(segments), scores, np.int32(labels),
        np.ones(len(scores), bool),
        np.stack([scores, 1 - scores], axis=1) if has_scores else None)


def test_every_class_score_stays_with_its_segment_and_can_be_sent():
    left, rows = suppress(joined([
        _segments([[0, 1], [5, 7]], [0.25, 0.75], [0, 1]),
        _segments([[20, 21]], [0.5], [0])]), 2, NmsSettings())
    rows_of_video = detections(left, CLASSES)
    assert rows.tolist() == [1, 2, 0]
    assert [(one.start_seconds, one.label) for one in rows_of_video] == [
        (5, "run"), (20, "jump"), (0, "jump")]
    for one in rows_of_video:
        assert one.class_scores == pytest.approx(
            {"jump": one.score, "run": 1 - one.score})
    # As processes hand them to each other.
    assert [Detection(*row) for row
            in json.loads(json.dumps(rows_of_video))] == rows_of_video


@pytest.mark.parametrize("has_scores", [True, False])
def test_joined_segments_keep_their_order_and_empty_the_list(has_scores):
    parts = [_segments([[0, 1], [5, 7]], [0.25, 0.75], [0, 1], has_scores),
             _segments([[20, 21]], [0.5], [0], has_scores)]
    whole = joined(parts)
    assert parts == []
    np.testing.assert_array_equal(whole.segments, [[0, 1], [5, 7], [20, 21]])
    np.testing.assert_array_equal(whole.labels, [0, 1, 0])
    assert (whole.class_scores is not None) == has_scores


def test_no_segments_give_no_detections():
    left, _ = suppress(joined([]), 2, NmsSettings())
    assert detections(left, CLASSES) == []


def test_segments_of_a_window_on_the_clock_of_the_video():
    # 10 frames a second, two frames a sample, two samples a token: a token
    # lasts 0.4 s, and token 0 of the window is at sample 11.
    grid = timeline.SampleGrid(10.0, 60, 2.0)
    window = Segments(
        np.float32([[0, 5], [-40, 2], [30, 40], [1, 2]]),
        np.float32([0.9, 0.8, 0.7, 0.6]), np.int32([0, 1, 0, 1]),
        np.array([True, True, True, False]))
    got = in_seconds(window, grid, first_sample=10, samples_per_token=2)
    # Cut to the video of 6 s; one that lies behind it and one that is not
    # valid are gone.
    np.testing.assert_allclose(got.segments, [[2.2, 4.2], [0, 3.0]],
                               atol=1e-6)
    np.testing.assert_array_equal(got.labels, [0, 1])
