"""Copies show at every moment what their source shows then."""

import numpy as np
import pytest

from losa_jax.data.video.decode import read_frames
from losa_jax.data.video.probe import probe_video
from losa_jax.data.video.transcode import (
    copy_frames,
    copy_size,
    transcode_video,
)
from losa_jax.errors import InputError
from tests.data.painted import numbers, render

# 20 pictures at 25 a second, then 20 at 5.
SECONDS = np.concatenate([np.arange(20) / 25, 0.8 + np.arange(20) / 5])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = render(tmp_path_factory.mktemp("source") / "variable.mkv",
                  frames=40, seconds=SECONDS)
    return probe_video(path)


@pytest.mark.parametrize("fps", [0.0, 10.0])
def test_a_copy_shows_the_same_at_the_same_time(source, tmp_path, fps):
    made = transcode_video(source, tmp_path / "copy.mp4", short_side=64,
                           fps=fps, gop=8, quality=10)
    rate = fps or source.fps
    assert made.fps == pytest.approx(rate, rel=1e-5)
    assert made.frame_count == round(source.duration_seconds * rate)
    assert made.duration_seconds == pytest.approx(
        source.duration_seconds, abs=0.5 / rate)
    # By the source's own time stamps: what is on screen in a frame's middle
    # (for another rate, of the source's frame that is then).
    middles = (np.arange(made.frame_count) + 0.5) / rate
    middles = (np.floor(middles * source.fps + 1e-9) + 0.5) / source.fps
    expected = [int(np.flatnonzero(SECONDS <= middle + 1e-9)[-1])
                for middle in middles]
    copy = tmp_path / "copy.mp4"
    shown = read_frames(copy, range(made.frame_count))
    assert shown.shape[1:] == (64, 160, 3)
    assert numbers(shown) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["copy.mp4"]


def test_sizes_are_even_and_never_grow(source):
    assert copy_size(source, 32) == (32, 80)
    assert copy_size(source, 33) == (32, 82)
    assert copy_size(source, 500) == (64, 160)


def test_frames_of_another_rate(source):
    frames = copy_frames(source, source.fps)
    np.testing.assert_array_equal(frames, np.arange(source.frame_count))
    assert copy_frames(source, 0.01).tolist() == [source.frame_count - 1]


def test_what_is_stopped_leaves_nothing(source, tmp_path):
    class Stop(Exception):
        pass

    calls = []

    def stop():
        calls.append(0)
        if len(calls) == 30:
            raise Stop

    with pytest.raises(Stop):
        transcode_video(source, tmp_path / "copy.mp4", short_side=32,
                        fps=0.0, gop=8, quality=30, on_frame=stop)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="cannot be written"):
        transcode_video(source, tmp_path / "none/copy.mp4", short_side=32,
                        fps=0.0, gop=8, quality=30)
