"""Each process reads its own rows of every batch and pads missing windows."""

import time
import types

import jax
import numpy as np
import pytest

from configs import common
from losa_jax import timeline
from losa_jax.data.records import Video, VideoInfo
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.windows.sampling import test_windows_of as windows_of
from losa_jax.distributed import sharding
from losa_jax.distributed.sharding import Lane
from losa_jax.inference.run_windows import SpreadWindows, run_windows


@pytest.fixture
def config():
    config = common.get_config()
    config.window.samples = config.window.tokens = 16
    config.window.clip_samples = 8
    config.window.overlap = 0.0
    return config


def _video(name, num_samples):
    info = VideoInfo(
        path=name, fps=25.0, frame_count=num_samples,
        duration_seconds=num_samples / 25, height=8, width=8,
        first_seconds=0.0, last_seconds=None)
    return Video(name, info, timeline.sample_grid(
        25.0, num_samples, sampling="stride", frame_stride=1), ())


class _Reader:
    """Windows of one number; some videos fail, and time is uneven."""

    reads_samples = False

    def __init__(self, config, failing=(), num_threads=4):
        self._config, self._failing = config, failing
        self.stream_threads, self.read = num_threads, []
        self._rng = np.random.default_rng()

    def empty_window(self, num_samples):
        return {"last": np.zeros((num_samples, 1), np.float32)}

    def test_windows(self, video, decoder_threads=1, samples=None):
        for window in windows_of(video, self._config):
            self.read.append((video.video_id, window.first_sample))
            time.sleep(self._rng.uniform(0, 0.004))
            if video.video_id in self._failing:
                raise VideoDecodeError(f"{video.video_id}: cannot decode")
            yield window, {"last": np.full(
                (window.num_samples, 1), window.first_sample, np.float32)}


def _mesh():
    return sharding.make_mesh((1, 1, 1), jax.devices()[:1])


def _run(windows):
    """(every output's row, {video: error}), by `run_windows`."""
    rows, ends = [], {}
    for item in run_windows(lambda inputs: inputs["valid_samples"], windows,
                            output_rows=windows.output_rows):
        if hasattr(item, "error"):
            ends[item.video_number] = item.error
        else:
            rows.append((item[0].video_number, item[0].window.first_sample))
    return rows, ends


def test_every_window_comes_once_and_every_video_ends(config):
    videos = [_video(f"v{number}", 16 * count)
              for number, count in enumerate((3, 1, 4, 2, 1))]
    rows, ends = _run(SpreadWindows(videos, _Reader(config), config, _mesh(),
                                    2))
    assert sorted(rows) == [(number, 16 * place)
                            for number, count in enumerate((3, 1, 4, 2, 1))
                            for place in range(count)]
    assert ends == dict.fromkeys(range(5))


@pytest.mark.parametrize("failing", [["v0"], ["v1"], ["v0", "v1", "v2"]])
def test_a_skipped_video_is_padded_without_reading_it_again(config, failing):
    videos = [_video(f"v{number}", 32) for number in range(3)]
    reader = _Reader(config, failing)
    windows = SpreadWindows(videos, reader, config, _mesh(), 1)
    batches = list(windows)
    assert sum(bool(batch.inputs) for batch in batches) == windows.num_batches
    ends = {end.video_number: end.error for batch in batches
            for end in batch.ended}
    assert {f"v{number}" for number, error in ends.items() if error} == set(
        failing)
    # A failing video ends at its first window.
    assert len(reader.read) == len(set(reader.read))
    assert len(reader.read) == 6 - len(failing)


def test_processes_that_hold_the_same_rows_read_one_order(config, monkeypatch):
    videos = [_video(f"v{number}", 32) for number in range(6)]
    # The clips of each window are spread over two processes.
    monkeypatch.setattr(sharding, "lanes",
                        lambda mesh, count: [Lane((0, 1), (0, 1))])
    orders = []
    for process in (0, 1, 0, 1):
        monkeypatch.setattr(jax, "process_index", lambda at=process: at)
        windows = SpreadWindows(videos, _Reader(config), config, _mesh(), 2)
        orders.append([batch.rows for batch in windows])
        assert windows.own_videos == ([] if process else list(range(6)))
    assert all(order == orders[0] for order in orders)


def test_processes_that_share_windows_keep_their_order_where_one_fails(
        config, monkeypatch):
    """A process may be able to read its part of a video, another not."""
    videos = [_video(f"v{number}", 16 * count)
              for number, count in enumerate((3, 4, 2))]
    monkeypatch.setattr(sharding, "lanes",
                        lambda mesh, count: [Lane((0, 1), (0, 1))])
    (good, bad) = ([*SpreadWindows(videos, _Reader(config, failing), config,
                                   _mesh(), 2)] for failing in ([], ["v1"]))
    assert [batch.rows for batch in good] == [batch.rows for batch in bad]
    ends = [end for batch in bad for end in batch.ended]
    assert [end.video_number for end in ends if end.error] == [1]
    for one, other in zip(good, bad, strict=True):
        for row, read, empty in zip(one.rows, one.inputs.get("last", ()),
                                    other.inputs.get("last", ()),
                                    strict=False):
            is_lost = row is not None and row.video_number == 1
            np.testing.assert_array_equal(empty, 0 if is_lost else read)


def test_windows_that_were_not_planned_are_an_error(config):
    videos = [_video("v0", 64)]
    reader = _Reader(config)
    planned = SpreadWindows(videos, reader, config, _mesh(), 1)
    reader.test_windows = lambda video, threads=1, samples=None: (
        (window, {"last": np.zeros((8, 1), np.float32)}) for window in [
            types.SimpleNamespace(first_sample=0, num_samples=8,
                                  valid_samples=8)])
    with pytest.raises(RuntimeError, match="not planned"):
        list(planned)
