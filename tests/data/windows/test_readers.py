"""Frames and clips of videos against frame numbers."""

from pathlib import Path

import numpy as np
import pytest

from configs import common
from losa_jax import timeline
from losa_jax.data.records import Video, VideoInfo
from losa_jax.data.video import frame_cache
from losa_jax.data.video.frame import DecodedFrame
from losa_jax.data.windows.readers import FrameReader
from losa_jax.data.windows.sampling import num_clips

SIDE = 16  # pixels


def _video(frame_count, fps=30.0, **sampling):
    info = VideoInfo(Path("v.mp4"), fps, frame_count, frame_count / fps,
                     SIDE, SIDE)
    grid = timeline.sample_grid(fps, frame_count,
                                **{"sampling": "stride", **sampling})
    return Video("v", info, grid, ())


@pytest.fixture
def decoded(monkeypatch):
    """Frames that are their own number; returns what was decoded."""
    asked = []

    def iterate(path, frame_indices, info, **settings):
        assert np.all(np.diff(frame_indices) >= 0)
        for i, frame_index in enumerate(frame_indices):
            if i == 0 or frame_index != frame_indices[i - 1]:
                asked.append(int(frame_index))
                frame = DecodedFrame(
                    np.full((SIDE, SIDE, 3), frame_index, np.uint8))
            yield frame

    monkeypatch.setattr(frame_cache, "iterate_frames", iterate)
    return asked


@pytest.mark.parametrize("frames, stride, sampling, want", [
    # VideoMAEv2's range(0, frames - 15, stride).
    (100, 4, {}, [range(i, i + 16) for i in range(0, 85, 4)]),
    (100, 16, {}, [range(i, i + 16) for i in range(0, 85, 16)]),
    (100, 40, {}, [range(i, i + 16) for i in range(0, 85, 40)]),
    (17, 4, {}, [range(16)]),
    # Shorter than a clip: the last frame again.
    (10, 4, {}, [[*range(10)] + [9] * 6]),
    # 15 of 30 a second; sample i shows the frame in its middle.
    (100, 4, {"sampling": "fps", "sample_fps": 15.0},
     [range(2 * i + 1, 2 * i + 33, 2) for i in range(0, 35, 4)]),
])
def test_clips_are_the_frames_they_should_be(decoded, frames, stride,
                                             sampling, want):
    config = common.get_config()
    config.augment.size, config.augment.test_resize = 8, "squash"
    video = _video(frames, **sampling)
    got = list(FrameReader(config).clips(video, 16, stride))
    assert num_clips(video.grid.num_samples, 16, stride) == len(want)
    assert [window.first_sample for window, _ in got] == [
        stride * i for i in range(len(want))]
    for (_, clip), expected in zip(got, want, strict=True):
        assert clip.shape == (16, 8, 8, 3)
        assert clip[:, 0, 0, 0].tolist() == list(expected)
    # Each frame is decoded once, those that no clip shows never.
    assert decoded == sorted({frame for clip in want for frame in clip})


@pytest.mark.parametrize("frame_count", [3, 16, 17, 31, 40, 77, 160])
@pytest.mark.parametrize("overlap, align", [(0.5, 0), (0.0, 0), (0.75, 4)])
def test_a_part_of_a_window_is_that_of_the_whole(decoded, frame_count,
                                                 overlap, align):
    config = common.get_config()
    config.window.samples, config.window.overlap = 16, overlap
    config.window.clip_samples = align or 8
    config.window.align_to_clips = bool(align)
    reader = FrameReader(config)
    video = _video(frame_count)
    whole = list(reader.test_windows(video))
    for samples in (range(0, 4), range(4, 16), range(15, 16), range(16)):
        parts = list(reader.test_windows(video, 1, samples))
        assert [place for place, _ in parts] == [place for place, _ in whole]
        for (_, part), (_, all_of_it) in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(
                part["frames"],
                all_of_it["frames"][samples.start:samples.stop])


def test_a_part_of_each_window_decodes_its_frames_only(decoded):
    config = common.get_config()
    config.window.samples, config.window.overlap = 16, 0.0
    config.window.clip_samples = 4
    list(FrameReader(config).test_windows(_video(160), 1, range(4, 8)))
    np.testing.assert_array_equal(
        decoded, [16 * window + sample for window in range(10)
                 for sample in range(4, 8)])
