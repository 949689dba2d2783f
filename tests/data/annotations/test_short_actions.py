"""Actions that are too short to be trained on, and their videos."""

import dataclasses
import logging
from pathlib import Path

import pytest

from losa_jax.data.annotations.short_actions import without_short_actions
from losa_jax.data.records import Action, Video, VideoInfo
from losa_jax.errors import InputError
from losa_jax.timeline import SampleGrid


def _video(name, *segments):
    info = VideoInfo(Path(name), 10.0, 2000, 200.0, 48, 64)
    return Video(name, info, SampleGrid(10.0, 2000, 1.0), tuple(
        Action(start, end, label) for start, end, label in segments))


VIDEOS = (
    _video("a", (0, 2, "jump"), (5, 7.5, "jump"), (5, 7.5, "jump"),
           (5, 7.5, "dive")),
    _video("b", (10, 12, "jump"), (20, 20.5, "jump")),
    _video("c"),
    _video("d", (0, 200, "dive")))


def test_actions_of_at_most_one_percent_and_duplicates_go(caplog):
    caplog.set_level(logging.WARNING)
    kept = without_short_actions(VIDEOS, 0.01)
    # 2 s are exactly 1 % of 200 s.
    assert [(video.video_id, [action[:3] for action in video.actions])
            for video in kept] == [
        ("a", [(5, 7.5, "jump"), (5, 7.5, "dive")]), ("d", [(0, 200, "dive")])]
    assert caplog.messages == [
        "training leaves out 3 actions of at most 1 % of their video's "
        "length, 1 duplicates, and 2 of 4 videos, which have no other action "
        "(config.data.min_action_share=0.01)"]


def test_nothing_is_left_out_without_the_key(caplog):
    assert without_short_actions(VIDEOS, 0.0) == VIDEOS
    assert without_short_actions(VIDEOS[3:], 0.01) == VIDEOS[3:]
    assert caplog.messages == []


def test_a_share_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match="min_action_share=0.05 leaves no "
                                         "action to train on in 2 videos"):
        without_short_actions(VIDEOS[1:3], 0.05)


def test_a_video_with_hard_negatives_only_stays():
    video = dataclasses.replace(
        _video("a", (10, 10.5, "jump")),
        hard_negatives=(Action(50.0, 51.0, "jump"),))
    (kept,) = without_short_actions([video], 0.01)
    assert kept.actions == () and kept.hard_negatives == video.hard_negatives
