"""A resumed run notices that its training set is another one."""

import dataclasses
import json
import zlib
from pathlib import Path

import pytest

from losa_jax.data.records import Action, Video, VideoInfo
from losa_jax.errors import InputError
from losa_jax.timeline import sample_grid
from losa_jax.training import training_set


def _video(name, frame_count=250):
    info = VideoInfo(path=Path(f"{name}.mp4"), fps=25.0,
                     frame_count=frame_count, duration_seconds=10.0,
                     width=32, height=32)
    grid = sample_grid(25.0, frame_count, sampling="stride", frame_stride=1,
                       sample_fps=0.0, window_samples=64)
    return Video(name, info, grid, (Action(1.0, 2.5, "jump"),))


VIDEOS = [_video(name) for name in "abcdefgh"]


def _saved():
    """Returns the fact as a checkpoint gives it back."""
    return json.loads(json.dumps(training_set.describe(VIDEOS, 12)))


def _check(videos, steps=12, accepted=False):
    training_set.check_same(_saved(), training_set.describe(videos, steps),
                            accepted=accepted, workdir="runs/mine")


def test_the_same_set_is_accepted():
    _check(VIDEOS)


@pytest.mark.parametrize("videos, steps, message", [
    (VIDEOS[:6], 10, r"2 videos are gone: g, h.*an epoch has 10 steps "
     "instead of 12"),
    ([*VIDEOS[:-1], _video("new")], 12,
     "1 videos are gone: h.*1 videos are new: new"),
    ([dataclasses.replace(VIDEOS[0], actions=()), *VIDEOS[1:]], 12,
     "1 videos have other annotations or another length: a"),
    ([_video("a", 251), *VIDEOS[1:]], 12, "another length: a"),
    ([dataclasses.replace(VIDEOS[0], reviewed_seconds=()), *VIDEOS[1:]], 12,
     "other annotations or another length: a"),
    ([dataclasses.replace(VIDEOS[0], hard_negatives=(
        Action(4.0, 5.0, "jump"),)), *VIDEOS[1:]], 12, "another length: a"),
    (VIDEOS[::-1], 12, "another order"),
    ([_video(name) for name in "nopqrstu"], 12, "gone: a, b, c, d, e, ..."),
])
def test_what_differs_is_named_and_can_be_accepted(videos, steps, message,
                                                   caplog):
    with pytest.raises(InputError, match=f"(?s)runs/mine.*{message}.*restore "
                       "the data, or accept .*accept_changes=True"):
        _check(videos, steps)
    _check(videos, steps, accepted=True)
    assert "the run goes on with these" in caplog.text


def test_a_run_of_an_older_version_is_not_compared():
    training_set.check_same({}, training_set.describe(VIDEOS, 1),
                            accepted=False, workdir="runs/mine")


def test_videos_without_a_review_keep_their_checksum():
    """That of runs of older versions."""
    facts = training_set.describe(VIDEOS[:1], 12)[training_set.FACT]
    assert facts["videos"] == {"a": zlib.crc32(
        b'[25.0, 250, [[1.0, 2.5, "jump", null]]]')}
