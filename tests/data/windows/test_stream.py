"""Windows in one pass are the windows that evaluation reads."""

import threading

import numpy as np
import pytest

from configs import quick
from losa_jax import timeline
from losa_jax.data.records import Video, Window
from losa_jax.data.synthetic import data_set
from losa_jax.data.video import decode
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import augment, sampling, stream
from losa_jax.data.windows.readers import FrameReader
from losa_jax.data.windows.readers import test_rows as rows_of_tests
from losa_jax.data.windows.sampling import video_grid
from losa_jax.data.windows.stream import VideoEnd, WindowStream
from tests.data.reading import read_window


@pytest.fixture(scope="module")
def config():
    config = quick.get_config()
    config.window.samples = config.window.tokens = 32
    config.augment.size = 16
    return config


@pytest.fixture(scope="module")
def videos(config, tmp_path_factory):
    folder = data_set.render_untrimmed_set(
        tmp_path_factory.mktemp("stream") / "set", num_training=2,
        num_testing=1, size=32)
    videos = []
    for path in sorted((folder / "videos").glob("*.mp4")):
        info = probe_video(path)
        videos.append(Video(path.stem, info,
                                 video_grid(info, config.window), ()))
    return videos


def _stream(videos, config, batch_windows=1, num_threads=2, reader=None):
    return WindowStream(
        range(len(videos)),
        rows_of_tests(reader or FrameReader(config), videos),
        batch_windows=batch_windows, num_threads=num_threads)


def _rows(batches):
    """(row, frames) of all windows, and the ends, as they come."""
    rows, ends = [], []
    for batch in batches:
        for place, row in enumerate(batch.rows):
            if row is not None:
                assert batch.inputs["valid_samples"][place] == (
                    row.window.valid_samples)
                rows.append((row, batch.inputs["frames"][place]))
            else:
                assert not batch.inputs["valid_samples"][place]
                assert not batch.inputs["frames"][place].any()
        ends += batch.ended
    return rows, ends


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("total", [1, 15, 63, 64, 65, 100, 127, 128, 1151])
def test_sliding_windows_equal_test_windows(total, overlap, align, config):
    align = config.window.clip_samples if align else 1
    grid = timeline.sample_grid(10.0, total, sampling="stride",
                                frame_stride=1)
    expected = sampling.test_windows(grid, 64, overlap, align)
    windows = list(stream.sliding_windows(
        (np.array([i]) for i in range(total)), 64,
        sampling.window_step(64, overlap, align), align))
    assert [place for place, _ in windows] == expected
    for place, frames in windows:
        np.testing.assert_array_equal(frames[:, 0],
                                      place.frame_indices(grid))


def test_no_samples_are_no_windows():
    assert list(stream.sliding_windows([], 64, 32)) == []


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
@pytest.mark.parametrize("sampling_rule, fps", [
    ("fps", 10.0), ("fps", 60.0), ("resize", 0.0)])
def test_frames_are_those_of_windows_read_alone(videos, config, cache_gib,
                                                sampling_rule, fps):
    other = config.copy_and_resolve_references()
    other.window.sampling, other.window.sample_fps = sampling_rule, fps
    sources = [Video(one.video_id, one.info,
                     video_grid(one.info, other.window), ())
               for one in videos]
    cache, alone = FrameCache(cache_gib), FrameCache(0.0)
    cache.admit(sources, "all")
    rows, ends = _rows(_stream(sources, other, batch_windows=3,
                               reader=FrameReader(other, cache)))
    left = {(number, window) for number, video in enumerate(sources)
            for window in sampling.test_windows_of(video, other)}

    def view(frame, i):
        return augment.test_view(frame.rgb(), other.augment.size,
                                 other.augment.test_resize)

    for row, frames in rows:
        left.remove((row.video_number, row.window))
        np.testing.assert_array_equal(frames, read_window(
            alone, sources[row.video_number], row.window, view))
    assert not left
    assert sorted(end.video_number for end in ends) == [0, 1, 2]
    assert all(end.error is None for end in ends)


def test_a_video_ends_behind_its_last_window(videos, config):
    seen, ended = set(), set()
    for batch in _stream(videos, config, batch_windows=4):
        for row in batch.rows:
            if row is not None:
                assert row.video_number not in ended
                seen.add(row.video_number)
        for end in batch.ended:
            assert end.video_number in seen
            ended.add(end.video_number)
    assert ended == {0, 1, 2}


def test_a_batch_has_windows_of_one_length():
    def windows_of(number, decoder_threads):
        for length in (4, 4, 4, 8):
            yield (stream.WindowRow(number, Window(0, length, length)),
                   {"last": np.ones((length, 2))})

    batches = list(WindowStream([0], windows_of, batch_windows=2,
                                num_threads=1))
    assert [(batch.inputs["last"].shape, sum(
        row is not None for row in batch.rows)) for batch in batches] == [
        ((2, 4, 2), 2), ((2, 4, 2), 1), ((2, 8, 2), 1)]
    assert [batch.ended for batch in batches] == [(), (), (VideoEnd(0),)]


def test_a_video_is_opened_once_and_read_forward(videos, config,
                                                 monkeypatch):
    opened, asked = [], []
    real_open, real_shown = decode.open_video, decode._shown_at

    def counted(frames, *rest):
        return real_shown(((asked.append(frame.pts), (seconds, frame))[1]
                           for seconds, frame in frames), *rest)

    monkeypatch.setattr(decode, "open_video", lambda path, threads: (
        opened.append(path), real_open(path, threads))[1])
    monkeypatch.setattr(decode, "_shown_at", counted)
    list(_stream(videos[:1], config, num_threads=1))
    assert opened == [videos[0].path]
    assert asked == sorted(set(asked))  # half of each window is seen twice
    assert len(asked) == videos[0].info.frame_count


def test_a_damaged_video_ends_with_its_reason(videos, config, tmp_path):
    damaged = tmp_path / "damaged.mp4"
    content = videos[0].path.read_bytes()
    middle = len(content) * 2 // 3
    damaged.write_bytes(content[:middle] + bytes(len(content) - middle))
    info = videos[0].info.__class__(**{
        **vars(videos[0].info), "path": damaged})
    sources = [Video("damaged", info, videos[0].grid, ()), videos[1]]
    rows, ends = _rows(_stream(sources, config, num_threads=1))
    errors = {end.video_number: end.error for end in ends}
    assert "damaged.mp4" in str(errors[0]) and errors[1] is None
    assert sum(row.video_number == 1 for row, _ in rows) == len(
        sampling.test_windows(videos[1].grid, 32, 0.5))


def test_memory_does_not_grow_with_the_length():
    alive, most = set(), [0]

    class Sample(np.ndarray):
        def __new__(cls, number):
            self = np.zeros(1).view(cls)
            self.number = number
            alive.add(number)
            most[0] = max(most[0], len(alive))
            return self

        def __del__(self):
            alive.discard(getattr(self, "number", None))

    for _ in stream.sliding_windows(map(Sample, range(1000)), 32, 16):
        pass
    assert most[0] <= 32 + 2


def test_no_thread_is_left_after_an_early_stop(videos, config):
    before = threading.active_count()
    items = iter(_stream(videos, config))
    next(items)
    assert threading.active_count() > before
    items.close()
    assert threading.active_count() == before


def test_an_error_of_a_reader_reaches_the_caller():
    def broken():
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(stream.read_ahead([broken()], num_threads=1, queue_size=1))
