"""Batches do not depend on threads or processes, and skip bad videos."""

import json
import shutil
import threading
import types

import numpy as np
import pytest

from configs import common
from losa_jax import timeline
from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.records import Action, AnnotatedVideo, Video
from losa_jax.data.synthetic import data_set
from losa_jax.data.video.decode import VideoDecodeError, iterate_frames
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import augment
from losa_jax.data.windows.examples import TrainWindows, train_dataset
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


def _batches(videos, config, count=4, *, start=0, rows=None, threads=2):
    before = {*threading.enumerate()}
    batches = iter(train_dataset(
        _windows(videos, config), len(videos), seed=3, batch_windows=2,
        num_threads=threads, rows=rows))
    try:
        batches.set_state({"next_index": start})
        read = [next(batches) for _ in range(count)]
        assert batches.get_state() == {"next_index": start + count}
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
    _same(_batches(videos, config, threads=1), whole)
    _same(_batches(videos, config, 2, start=2), whole[2:])
    halves = [_batches(videos, config, rows=(row,)) for row in (0, 1)]
    _same([{name: np.concatenate([one[name], other[name]]) for name in one}
           for one, other in zip(*halves, strict=True)], whole)


def test_every_epoch_has_all_videos_in_an_order_of_its_own():
    def order(seed):
        numbers = types.SimpleNamespace(batch=lambda draws: {
            "number": np.array([index for index, _ in draws])})
        batches = iter(train_dataset(numbers, 12, seed=seed, batch_windows=3,
                                     num_threads=1))
        rows = np.concatenate([next(batches)["number"] for _ in range(12)])
        batches.close()
        return rows.reshape(3, 12)

    epochs = order(1)
    np.testing.assert_array_equal(np.sort(epochs), [range(12)] * 3)
    assert len({tuple(epoch) for epoch in (*epochs, *order(2))}) == 6


def test_a_view_while_decoding_is_the_view_of_the_frames(videos, config):
    video, settings = videos[0], config.augment
    for per, clips in (("window", 1), ("clip", 2)):
        config.augment.per = per
        got, = _windows([video], config).batch(
            [(0, np.random.default_rng(5))])["frames"]
        rng = np.random.default_rng(5)
        window = train_window(
            video.grid, video.actions, 16, rng, crop_ratio=(0.9, 1.0),
            min_action_kept=config.window.min_action_kept)
        frames = list(iterate_frames(
            video.path, window.frame_indices(video.grid), video.info))
        views = [augment.TrainView(32, 32, rng, settings)
                 for _ in range(clips)]
        want = np.empty_like(got)
        for i in range(16):
            want[i] = views[i * clips // 16].apply(frames[i])
        for view, part in zip(views, np.split(want, clips), strict=True):
            view.finish(part)
        np.testing.assert_array_equal(got, want)


def test_a_deleted_video_is_replaced_by_the_next_one(
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
    redrawn = [broken.collect(batch, TRAINING, step) for step, batch
               in enumerate(batches, start=1)]
    # Two epochs: it was met twice.
    assert sum(redrawn) == 2
    for before, after in zip(whole, batches, strict=True):
        for row, number in enumerate(before["video_number"]):
            if number == 2:
                assert after["video_number"][row] == 3
                assert after["frames"][row].any()
                assert after["action_valid"][row].any()
            else:
                np.testing.assert_array_equal(after["frames"][row],
                                              before["frames"][row])
    # The file, and that steps done again after a restart count once.
    steps = [step + 1 for step, count in enumerate(redrawn) if count]
    again = BrokenVideos(tmp_path / "broken_videos.json")
    again.collect(_batches(videos, config, 1, start=steps[0] - 1)[0],
                  TRAINING, steps[0])
    (entry,) = json.loads(
        (tmp_path / "broken_videos.json").read_text())["videos"]
    assert (entry["video_id"], entry["steps"]) == (gone.video_id, steps)
    assert "cannot be opened" in entry["reason"]
    assert again.redrawn_windows == 2
    assert f"{gone.video_id} (training): " in again.report()

    # Without any readable video the search ends.
    for video in videos:
        video.path.unlink(missing_ok=True)
    with pytest.raises(VideoDecodeError, match="None of the 5 training videos"):
        _batches(videos, config, 1)


def test_many_faults_of_one_window_are_counted():
    broken = BrokenVideos()
    faults = [(f"video_{n}", "ö" * 900) for n in range(9)]
    batch = {"faults": np.array(["[]", json.dumps(faults)])}
    assert broken.collect(batch, TRAINING, 1) == 9 and not batch
    assert "video_0" in broken.reasons


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_features_that_are_not_finite_are_replaced_by_the_next_video(
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
    draws = [(1, np.random.default_rng(0))]
    with pytest.raises(InputError, match="video 1: .*1.npy: .* not finite"):
        windows.batch(draws)
    config.data.on_broken_video = "skip"
    batch = windows.batch(draws)
    assert batch["video_number"] == [2] and np.isfinite(batch["last"]).all()
    assert json.loads(batch["faults"][0])[0][0] == "1"
