"""Finds of several windows become one list of a video."""

import json

import numpy as np
import pytest

from configs import common
from losa_jax.detection.merge import VideoFinds, WindowFinds, merge_windows
from losa_jax.detection.segments import Detection

CLASSES = ("jump", "run")


def _finds(segments, scores, labels):
    scores = np.float32(scores)
    return WindowFinds(
        np.float32(segments), scores, np.int32(labels),
        np.stack([scores, 1 - scores], axis=1))


def test_every_class_score_stays_with_its_segment_and_can_be_sent():
    settings = common.get_config().evaluate
    found = merge_windows(
        [_finds([[0, 1], [5, 7]], [0.25, 0.75], [0, 1]),
         _finds([[20, 21]], [0.5], [0])], CLASSES, settings)
    assert [(one.start_seconds, one.label) for one in found] == [
        (5, "run"), (20, "jump"), (0, "jump")]
    for one in found:
        assert one.class_scores == pytest.approx(
            {"jump": one.score, "run": 1 - one.score})
    # As processes hand them to each other.
    assert [Detection(*row) for row in json.loads(json.dumps(found))] == found


@pytest.mark.parametrize("has_scores", [True, False])
def test_finds_put_together_are_the_same(has_scores):
    settings = common.get_config().evaluate
    parts = [_finds([[0, 1], [5, 7]], [0.25, 0.75], [0, 1]),
             _finds([[20, 21]], [0.5], [0])]
    if not has_scores:
        parts = [part._replace(class_scores=None) for part in parts]
    finds = VideoFinds()
    for part in parts:
        finds.add(part)
    assert merge_windows(finds.take(), CLASSES, settings) == merge_windows(
        parts, CLASSES, settings)
    assert finds.take() == []


def test_nothing_found():
    assert merge_windows([], CLASSES, common.get_config().evaluate) == []
