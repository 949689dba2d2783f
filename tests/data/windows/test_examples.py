"""Batches do not depend on threads or processes, and skip bad videos."""

import json
import shutil
import threading
import time
import types

import numpy as np
import pytest

from configs import common
from losa_jax import timeline
from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.records import Action, AnnotatedVideo, Video
from losa_jax.data.synthetic import data_set
from losa_jax.data.video.decode import VideoDecodeError, iterate_frames
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import augment
from losa_jax.data.windows.examples import TrainWindows, train_batches
from losa_jax.data.windows.readers import FeatureReader, FrameReader
from losa_jax.data.windows.sampling import train_window
from losa_jax.data.windows.skipped_videos import (
    TRAINING,
    BrokenVideos,
)
from losa_jax.errors import InputError
from tests.data.reading import feature_settings

NUM_VIDEOS = 5


def _videos(folder):
    videos = []
    for path in sorted(folder.glob("*.mp4")):
        info = probe_video(path)
        grid = timeline.sample_grid(info.fps, info.frame_count,
                                    sampling="stride", frame_stride=2)
        videos.append(Video(path.stem, info, grid,
                            (Action(0.2, 1.5, "move"),)))
    return videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = data_set.render_trimmed_set(
        tmp_path_factory.mktemp("row") / "set", num_training=NUM_VIDEOS,
        num_testing=0, size=32)
    return folder / "videos"


@pytest.fixture(scope="module")
def videos(folder):
    return _videos(folder)


@pytest.fixture
def config():
    config = common.get_config()
    config.window.samples = config.window.tokens = 16
    config.window.clip_samples = 8
    config.augment.size = 16
    config.augment.random_operations = 2
    return config


def _windows(videos, config):
    return TrainWindows(videos, ["move"], config, reader=FrameReader(config))


def _batches(videos, config, count=4, *, threads=2, **which):
    before = {*threading.enumerate()}
    batches = iter(train_batches(
        _windows(videos, config), len(videos), seed=3, batch_windows=2,
        num_threads=threads, num_batches=count, **which))
    try:
        read = list(batches)
        assert len(read) == count
    finally:
        batches.close()
        # It does not wait: threads would decode within the next test.
        for thread in {*threading.enumerate()} - before:
            thread.join(60)
    return read


def _same(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], name)


def test_processes_and_restarts_read_the_same_batches(videos, config):
    whole = _batches(videos, config)
    assert whole[0]["frames"].shape == (2, 16, 16, 16, 3)
    # Another epoch and another window look otherwise.
    assert len({batch["frames"].tobytes() for batch in whole}) == 4
    for threads in (1, 3, 8):
        _same(_batches(videos, config, threads=threads), whole)
    _same(_batches(videos, config, 2, first_batch=2), whole[2:])
    halves = [_batches(videos, config, rows=(row,)) for row in (0, 1)]
    _same([{name: np.concatenate([one[name], other[name]]) for name in one}
           for one, other in zip(*halves, strict=True)], whole)


@pytest.mark.parametrize("per", ["window", "clip"])
@pytest.mark.parametrize("frame_cache_gib", [0.0, 1.0])
def test_a_process_decodes_its_samples_only(videos, config, per,
                                            frame_cache_gib):
    config.augment.per = per
    cache = FrameCache(frame_cache_gib)
    if frame_cache_gib:
        cache.admit(videos, "training")
    whole = _batches(videos, config)
    for samples in (range(0, 4), range(4, 16)):  # not of whole clips
        parts = list(train_batches(
            TrainWindows(videos, ["move"], config,
                         reader=FrameReader(config, cache)),
            len(videos), seed=3, batch_windows=2, num_threads=3,
            num_batches=4, samples=samples))
        for part, batch in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(
                part["frames"],
                batch["frames"][:, samples.start:samples.stop])
            np.testing.assert_array_equal(part["segments"], batch["segments"])
            if not frame_cache_gib:
                assert (part["decoded_frames"] <= len(samples)).all()


def test_memory_does_not_grow_with_threads(videos, config, monkeypatch):
    """As many pieces are read before they are asked for as a batch has."""
    started = []
    read = TrainWindows.example

    def example(self, draw, samples):
        started.append(len(samples))
        return read(self, draw, samples)

    monkeypatch.setattr(TrainWindows, "example", example)
    for threads in (1, 2, 5, 64):
        started.clear()
        batches = iter(train_batches(
            _windows(videos, config), len(videos), seed=3, batch_windows=2,
            num_threads=threads))
        next(batches)
        time.sleep(0.5)
        batches.close()
        # The one that was taken, and the one ahead; in samples of frames.
        assert sum(started) <= 2 * 2 * 16, threads
        # No piece is shorter than a clip.
        assert min(started) >= min(config.window.clip_samples, 16)
        assert len(started) >= min(2 * threads, 4 * 2), threads


def test_every_epoch_has_all_videos_in_an_order_of_its_own():
    def order(seed):
        numbers = types.SimpleNamespace(
            pieces=lambda samples, count: [range(1)],
            example=lambda draw, samples: {
                "number": draw[0], "readable": True, "decoded_frames": 0,
                "fault": ""})
        batches = train_batches(numbers, 12, seed=seed, batch_windows=3,
                                num_threads=1, num_batches=12)
        rows = np.concatenate([batch["number"] for batch in batches])
        return rows.reshape(3, 12)

    epochs = order(1)
    np.testing.assert_array_equal(np.sort(epochs), [range(12)] * 3)
    assert len({tuple(epoch) for epoch in (*epochs, *order(2))}) == 6


def test_a_view_while_decoding_is_the_view_of_the_frames(videos, config):
    video, settings = videos[0], config.augment
    for per, clips in (("window", 1), ("clip", 2)):
        config.augment.per = per
        got = _windows([video], config).example(
            (0, np.random.default_rng(5)), range(16))["frames"]
        rng = np.random.default_rng(5)
        window = train_window(
            video.grid, video.actions, 16, rng, crop_ratio=(0.9, 1.0),
            min_action_kept=config.window.min_action_kept)
        frames = list(iterate_frames(
            video.path, window.frame_indices(video.grid), video.info))
        views = [augment.TrainView(32, 32, rng, settings)
                 for _ in range(clips)]
        np.testing.assert_array_equal(
            got, [views[i * clips // 16].apply(frames[i]) for i in range(16)])


def test_windows_of_a_deleted_video_are_left_out(
        folder, config, tmp_path):
    for path in folder.glob("*.mp4"):
        shutil.copy(path, tmp_path)
    videos = _videos(tmp_path)
    whole = _batches(videos, config, 5)
    gone = videos[2]
    gone.path.unlink()
    with pytest.raises(VideoDecodeError, match=gone.path.name):
        _batches(videos, config, 5)
    config.data.on_broken_video = "skip"
    broken = BrokenVideos(tmp_path / "broken_videos.json")
    batches = _batches(videos, config, 5)
    _same(_batches(videos, config, 5), batches)
    left_out = [broken.collect(batch, TRAINING, step) for step, batch
               in enumerate(batches, start=1)]
    # Two epochs: it was met twice.
    assert sum(left_out) == 2
    for before, after in zip(whole, batches, strict=True):
        for row, number in enumerate(before["video_number"]):
            assert after["readable"][row] == (number != 2)
            if number == 2:
                assert not after["frames"][row].any()
            else:
                np.testing.assert_array_equal(after["frames"][row],
                                              before["frames"][row])
    # The file, and that steps done again after a restart count once.
    steps = [step + 1 for step, count in enumerate(left_out) if count]
    again = BrokenVideos(tmp_path / "broken_videos.json")
    again.collect(_batches(videos, config, 1, first_batch=steps[0] - 1)[0],
                  TRAINING, steps[0])
    (entry,) = json.loads(
        (tmp_path / "broken_videos.json").read_text())["videos"]
    assert (entry["video_id"], entry["steps"]) == (gone.video_id, steps)
    assert "cannot be opened" in entry["reason"]
    assert again.left_out_windows == 2
    assert f"{gone.video_id} (training): " in again.report()

    # Without any readable video the run ends.
    again.require_some(videos)
    for number, video in enumerate(videos):
        again.add(video.video_id, f"fault {number}", TRAINING, 1)
    with pytest.raises(InputError, match=r"None of the 5 .*\(fault 4\)"):
        again.require_some(videos)


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_windows_of_features_that_are_not_finite_are_left_out(
        config, tmp_path, cache_gib):
    rng = np.random.default_rng(0)
    config.window.samples = config.window.tokens = 16
    config.window.clip_samples = 1
    videos = []
    for number in range(3):
        array = rng.normal(size=(72, 4))
        np.save(tmp_path / f"{number}.npy", array)
    store = FeatureFiles(feature_settings(tmp_path, 4, 16, 4),
                         cache_gib=cache_gib)
    for number in range(3):
        info = store.info_of(AnnotatedVideo(
            f"{number}", "", 10.0, 30.0, (Action(1.0, 9.0, "move"),)))
        videos.append(Video(f"{number}", info, store.grid(info),
                            (Action(1.0, 9.0, "move"),)))
    np.save(tmp_path / "1.npy", np.full((72, 4), np.nan))
    windows = TrainWindows(videos, ["move"], config, reader=FeatureReader(
        FeatureFiles(feature_settings(tmp_path, 4, 16, 4),
                     cache_gib=cache_gib), config))
    draw = (1, np.random.default_rng(0))
    with pytest.raises(InputError, match="video 1: .*1.npy: .* not finite"):
        windows.example(draw, range(16))
    config.data.on_broken_video = "skip"
    # Features are read whole, whichever samples this process's devices hold.
    example = windows.example(draw, range(4, 8))
    assert not example["readable"] and not example["last"].any()
    assert json.loads(str(example["fault"]))[0] == "1"
    readable = windows.example((2, draw[1]), range(4, 8))
    assert readable["last"].shape == example["last"].shape
    assert readable["readable"] and readable["last"].any()
    assert readable.keys() == example.keys()
