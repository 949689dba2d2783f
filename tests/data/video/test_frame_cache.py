"""Windows from memory are the windows from the file."""

import numpy as np
import pytest

from losa_jax import timeline
from losa_jax.data.records import Video, Window
from losa_jax.data.synthetic import data_set
from losa_jax.data.video import frame_cache
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.video.probe import probe_video
from tests.data.reading import read_window


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = data_set.render_trimmed_set(
        tmp_path_factory.mktemp("cache") / "set", num_training=2,
        num_testing=0, size=32)
    videos = []
    for path in sorted((folder / "videos").glob("*.mp4")):
        info = probe_video(path)
        grid = timeline.sample_grid(info.fps, info.frame_count,
                                    sampling="fps", sample_fps=10.0)
        videos.append(Video(path.stem, info, grid, ()))
    return videos


def _windows(video):
    total = video.grid.num_samples
    return [Window(0, 16, 16), Window(3, 16, min(16, total - 3)),
            Window(0, 64, total)]


def test_windows_are_the_same_from_memory(videos):
    kept, fresh = FrameCache(1.0), FrameCache(0.0)
    assert kept.admit(videos, "set") and not fresh.admit(videos, "set")
    for video in videos:
        for window in _windows(video):
            frames = read_window(kept, video, window)
            assert frames.shape == (window.num_samples, 32, 32, 3)
            np.testing.assert_array_equal(
                frames, read_window(fresh, video, window))


def test_crops_are_the_same_from_memory(videos):
    kept, fresh = FrameCache(1.0), FrameCache(0.0)
    kept.admit(videos, "set")

    def view(frame, i):
        return frame.crop(2, 4 + 2 * (i % 5), 20, 18, 12)

    for window in _windows(videos[0]):
        np.testing.assert_array_equal(
            read_window(kept, videos[0], window, view),
            read_window(fresh, videos[0], window, view))


def test_an_admitted_video_is_decoded_once(videos, monkeypatch):
    calls = []

    def counted(path, *rest, **names):
        calls.append(path)
        return read(path, *rest, **names)

    read = frame_cache.iterate_frames
    monkeypatch.setattr(frame_cache, "iterate_frames", counted)
    cache = FrameCache(1.0)
    cache.admit(videos, "set")
    cache.admit(videos, "set again")
    for _ in range(2):
        for window in _windows(videos[0]):
            read_window(cache, videos[0], window)
    assert calls == [videos[0].path]


def test_a_set_is_cached_completely_or_not_and_sets_share_the_budget(videos):
    one, both = (frame_cache.set_bytes(v) for v in (videos[:1], videos))
    # Samples of a clip of 2 to 2.5 s at 10 a second, RGB.
    assert one == 3 * 32 * 32 * videos[0].grid.num_samples
    almost = FrameCache((both - 1) / 2**30)
    assert not almost.admit(videos, "both")
    assert almost.admit(videos[:1], "first")
    assert not almost.admit(videos[1:], "second")
    exact = FrameCache(both / 2**30)
    assert exact.admit(videos[:1], "first") and exact.admit(videos, "both")


def test_the_cache_is_not_changed_by_its_callers(videos):
    cache = FrameCache(1.0)
    cache.admit(videos, "set")
    window = Window(0, 16, 16)
    first = read_window(cache, videos[0], window)
    copy = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(read_window(cache, videos[0], window), copy)


def test_a_damaged_video_is_read_as_without_the_cache(videos, monkeypatch):
    """The windows before the damage stay readable, others name the video."""
    video, read, calls = videos[0], frame_cache.iterate_frames, []

    def damaged(path, indices, info, **names):
        calls.append(len(indices))
        if max(indices) > 30:
            raise VideoDecodeError(f"{path}: frame 31 cannot be decoded")
        return read(path, indices, info, **names)

    monkeypatch.setattr(frame_cache, "iterate_frames", damaged)
    cache = FrameCache(1.0)
    cache.admit(videos, "set")
    good = Window(0, 8, 8)
    for _ in range(2):
        assert read_window(cache, video, good).shape == (8, 32, 32, 3)
        with pytest.raises(VideoDecodeError, match=video.path.name):
            read_window(cache, video, Window(8, 16, 8))
    # The whole video was tried once.
    assert len(calls) == 1 + 4 and max(calls) == calls[0]
