"""Cached features replace the videos, and wrong caches are refused."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from losa_jax.data.features import tap_cache
from losa_jax.data.records import Window
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows.examples import TrainWindows
from losa_jax.data.windows.readers import FeatureReader
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.jobs import cache as cache_job
from losa_jax.jobs import encode_videos
from losa_jax.jobs import train as train_job
from losa_jax.jobs.check_data import UNREADABLE, check_data
from losa_jax.jobs.evaluate import evaluate
from losa_jax.jobs.setup import load_data
from losa_jax.training import build
from losa_jax.training.feature_store import open_store
from losa_jax.utils.interrupt import Interrupted
from tests.data.reading import read_window, views_of_testing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(config):
    """A config without pixel augmentation; windows start with a clip."""
    config = config.copy_and_resolve_references()
    config.window.align_to_clips = True
    config.adapter.tap_grid = (1, 1)
    config.augment.color_jitter = 0.0
    config.train.epochs = config.train.schedule_epochs = 2
    return config


def _cached(config, folder):
    config = config.copy_and_resolve_references()
    config.data.cache = str(folder)
    return config


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache") / "taps"
    cache_job.cache(_cached(plain, folder), folder.parent / "log")
    return folder


def _trace(workdir):
    lines = [json.loads(line) for line in
             (workdir / "metrics.jsonl").read_text().splitlines()]
    return np.array([(line["step"], line[key]) for line in lines
                     for key in ("loss", "map") if key in line])


def test_training_from_cache_is_training_from_video(plain, folder, tmp_path):
    config = _cached(plain, folder)
    # This folder does not exist, so no video is read.
    config.data.videos = str(tmp_path / "nowhere")
    cached = train_job.train(config, tmp_path / "cached")
    config = config.copy_and_resolve_references()
    config.data.cache, config.data.videos = "", plain.data.videos
    real = train_job.train(config, tmp_path / "video")
    np.testing.assert_allclose(_trace(tmp_path / "cached"),
                               _trace(tmp_path / "video"), rtol=1e-4)
    assert cached.average_map == pytest.approx(real.average_map, abs=1e-3)


def test_head_only_reads_the_features_of_any_taps(plain, folder):
    config = _cached(plain, folder)
    config.adapter.kind = "none"
    config.adapter.tap_grid = (2, 2)
    assert open_store(config) is not None


@pytest.mark.parametrize("key, value", [
    ("augment.size", 16), ("window.sample_fps", 5.0),
    ("adapter.tap_grid", (2, 2)), ("adapter.num_taps", 2)])
def test_a_cache_with_other_settings_is_refused(
        plain, folder, tmp_path, key, value):
    config = _cached(plain, folder)
    section, name = key.split(".")
    if name == "num_taps":
        name, value = "tap_layers", (0, 1)
    config[section][name] = value
    with pytest.raises(InputError, match=r"asked for"):
        train_job.train(config, tmp_path / "run")


@pytest.mark.parametrize("section, name, value, message", [
    ("window", "align_to_clips", False, "align_to_clips=True"),
    ("adapter", "kind", "tia", "cached features only with none, losa, ladder")])
def test_settings_that_cannot_be_cached_are_refused(
        plain, folder, tmp_path, section, name, value, message):
    config = _cached(plain, folder)
    config[section][name] = value
    with pytest.raises(InputError, match=message):
        train_job.train(config, tmp_path / "run")
    with pytest.raises(InputError, match=message):
        cache_job.cache(_cached(config, tmp_path / "new"), tmp_path / "log")
    assert not (tmp_path / "new").exists()


def test_a_dry_run_prints_the_size(plain, tmp_path, capsys, folder):
    cache_job.cache(_cached(plain, tmp_path / "new"), tmp_path / "log",
                    dry_run=True)
    assert not (tmp_path / "new").exists()
    printed = float(capsys.readouterr().out.split(" GiB")[0].split()[-1])
    real = sum(path.stat().st_size for path in folder.glob("*.arrayrecord"))
    assert printed == pytest.approx(real / 2**30, abs=0.01)


def test_a_stopped_cache_continues_with_the_missing_shards(
        plain, folder, tmp_path, monkeypatch, capsys):
    config = _cached(plain, tmp_path / "new")
    monkeypatch.setattr(cache_job, "SHARD_BYTES", 1)  # a shard a video

    class Stops(encode_videos.StopSignal):
        @property
        def came(self):
            whole = [*(tmp_path / "new").glob("taps-*.json")]
            return "SIGTERM" if len(whole) == 2 else ""

        @came.setter
        def came(self, value):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(encode_videos, "StopSignal", Stops)
        with pytest.raises(Interrupted, match="finished shards stay"):
            cache_job.cache(config, tmp_path / "log")
    # Which two videos are read first is up to the threads.
    names = {path.name for path in (tmp_path / "new").iterdir()}
    stems = {name.partition(".")[0] for name in names} - {"cache"}
    assert len(stems) == 2
    assert names == {"cache.json", *(f"{stem}.{suffix}" for stem in stems
                                     for suffix in ("arrayrecord", "json"))}
    config.data.videos = ""
    with pytest.raises(InputError, match="(?s)of 4 videos are missing.*not "
                       "among the cached features of .*new: set "
                       "--config.data.videos, or run --mode=cache"):
        train_job.train(config, tmp_path / "run")
    config.data.videos = plain.data.videos
    capsys.readouterr()
    cache_job.cache(config, tmp_path / "log")
    printed = capsys.readouterr().out
    assert f"2 of 6 videos are in {tmp_path / 'new'} already" in printed
    assert (f"6 videos are in {tmp_path / 'new'}; to train on them: the same "
            "command without --mode=cache") in printed

    # A flipped byte is detected when its video is read.
    path = sorted((tmp_path / "new").glob("*.arrayrecord"))[3]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"(?s){path.stem}.*are damaged"):
        train_job.train(config, tmp_path / "run")
    unreadable = {one.video_id: one.detail
                  for one in check_data(config, tmp_path / "check")
                  if one.category == UNREADABLE}
    (name, detail), = unreadable.items()
    assert f"the features of {name} are damaged" in detail
    config.data.on_broken_video = "skip"
    train_job.train(config, tmp_path / "run")
    assert name in (tmp_path / "run/broken_videos.json").read_text()


def test_numbers_that_are_not_finite_are_not_cached(plain, folder, tmp_path):
    store = open_store(_cached(plain, folder))
    data = load_data(_cached(plain, folder), tmp_path, store=store)
    arrays = store._read(data.train[0].video_id, 0)
    for dtype in (np.float16, np.float32, ml_dtypes.bfloat16):
        taps = arrays["taps"].astype(dtype)
        taps[-1, -1, -1, -1, -1, -1] = np.inf
        with pytest.raises(InputError, match="features are not finite"):
            tap_cache.write_shard(tmp_path, "a", [
                (data.train[0], [{**arrays, "taps": taps}])])


def test_a_folder_with_other_files_is_refused(plain, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        cache_job.cache(_cached(plain, tmp_path), tmp_path / "log2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log2", "note.txt"]


def test_the_cache_holds_augmented_views_and_the_plain_view(
        plain, folder, tmp_path):
    config = _cached(plain, tmp_path / "new")
    config.augment.color_jitter = 0.5
    config.data.cache_copies, config.data.cache_dtype = 2, "float16"
    cache_job.cache(config, tmp_path / "log")
    store, one_view = open_store(config), open_store(_cached(plain, folder))
    data = load_data(config, tmp_path / "log", store=store)
    video, other = data.train[:2]
    window = Window(16, 64, 40)
    assert store.num_views(video) == 3
    views = [next(store.read_windows(video, [window], view))
             for view in range(3)]
    assert all(view["taps"].dtype == np.float16 for view in views)
    want, = one_view.read_windows(video, [window])
    np.testing.assert_array_equal(views[0]["last"], want["last"])
    np.testing.assert_allclose(views[0]["taps"], want["taps"], atol=2e-3)
    for one, two in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(views[one]["last"] - views[two]["last"]).max() > 1e-3
    # Another video's view is drawn otherwise; padding stays zero.
    assert (views[1]["last"][3:] == 0).all()
    assert next(store.read_windows(other, [window], 2))["last"].any()

    # Training draws from all views, measuring and testing take the plain.
    def drawn(augmented):
        windows = TrainWindows(data.train, data.class_names, config,
                               reader=FeatureReader(store, config),
                               augmented=augmented)
        return {float(windows.example(
            (0, np.random.default_rng(i)), range(1))["last"][0].sum())
                for i in range(12)}

    config.window.short_crop_ratio = ()
    config.window.samples = config.window.tokens = 512  # the whole video
    assert (len(drawn(True)), len(drawn(False))) == (3, 1)
    config.augment.color_jitter = 0.4
    with pytest.raises(InputError, match="color_jitter"):
        open_store(config)
    with pytest.raises(InputError, match="tap_dtype='float16'"):
        config.data.cache_dtype = ""
        open_store(config)


@pytest.fixture(scope="module")
def every_patch(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches") / "taps"
    config = _cached(plain, folder)
    config.adapter.tap_grid, config.adapter.tap_layers = (), (0, 1)
    cache_job.cache(config, folder.parent / "log")
    return folder


@pytest.mark.parametrize("kind, grid, layers", [
    ("ladder", (), (0, 1)), ("pooled ladder", (1, 1), (0, 1)),
    ("losa", (1, 1), (1,)), ("losa", (), (0,)), ("ladder", (), (-1, -1, -1))])
def test_a_cache_of_every_patch_serves_every_grid_and_any_of_its_blocks(
        plain, every_patch, tmp_path, kind, grid, layers):
    config = _cached(plain, every_patch)
    config.adapter.kind, config.adapter.tap_grid = kind.split()[-1], grid
    config.adapter.raw_taps = "pooled" not in kind
    config.adapter.tap_layers = layers
    store = open_store(config)
    data = load_data(config, tmp_path / "log", store=store)
    video, window = data.test[0], Window(16, 64, 64)
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])

    def taps(config, inputs):
        model = build.build_model(config, len(data.class_names), mesh)
        batch = {name: jnp.asarray(array)[None]
                 for name, array in inputs.items()}
        return np.asarray(model.encode(
            model.frozen, model.trained, batch, None, None).taps)

    got = taps(config, *store.read_windows(video, [window]))
    config.data.cache = ""
    frames = views_of_testing(
        read_window(FrameCache(0), video, window), 32,
        config.augment.test_resize)
    want = taps(config, {"frames": frames})
    assert len(got) == len(layers)
    assert got.shape[-3:-1] == (grid or (2, 2))
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


def test_a_block_that_the_cache_lacks_is_refused(plain, folder):
    config = _cached(plain, folder)
    config.adapter.tap_layers = (0, 1)
    with pytest.raises(InputError, match=r"tap_layers=\[1\].*\[0, 1\]"):
        open_store(config)


def test_only_one_subset_can_be_cached(plain, folder, tmp_path):
    config = _cached(plain, folder)
    config.adapter.kind = "ladder"
    with pytest.raises(InputError, match=r"tap_grid=\[1, 1\]"):
        open_store(config)
    config.data.cache = str(tmp_path / "new")
    config.data.cache_dtype = "bfloat16"
    config.data.cache_subsets = ("testing",)
    cache_job.cache(config, tmp_path / "log")
    store = open_store(config)
    data = load_data(config, tmp_path / "log", ("test",), store=store)
    inputs, = store.read_windows(data.test[0], [Window(0, 16, 16)])
    taps = inputs["raw_taps"]
    assert (taps.shape, taps.dtype.name) == ((1, 1, 8, 2, 2, 16), "bfloat16")
    with pytest.raises(InputError, match="(?s)4 of 4 .*not among the cached"):
        load_data(config, tmp_path / "log", ("train",), store=store)


def _count_encodings(monkeypatch):
    """Returns a list of the videos that are encoded from now on."""
    encoded, real = [], encode_videos.encode_videos

    def encode(videos, *rest, **options):
        encoded.extend(video.video_id for video in videos)
        return real(videos, *rest, **options)

    monkeypatch.setattr(encode_videos, "encode_videos", encode)
    return encoded


def _with_subset(config, path, keep):
    """Returns the config with those videos of the annotations."""
    content = json.loads(Path(config.data.annotations).read_text())
    content["database"] = {name: video for name, video
                           in content["database"].items() if name in keep}
    path.write_text(json.dumps(content))
    config = config.copy_and_resolve_references()
    config.data.annotations = str(path)
    return config


def test_training_encodes_the_videos_that_the_cache_lacks(
        plain, folder, tmp_path, monkeypatch, capsys):
    names = sorted(tap_cache.read_entries(folder))
    few = [name for name in names if not name.endswith("training_0003")]
    config = _cached(plain, tmp_path / "taps")
    config.train.epochs = config.train.schedule_epochs = 1
    encoded = _count_encodings(monkeypatch)
    first = _with_subset(config, tmp_path / "few.json", few)
    cache_job.cache(first, tmp_path / "one")
    assert sorted(encoded) == few
    encoded.clear()
    # Known videos are neither encoded nor opened.
    reader = shutil.copytree(plain.data.videos, tmp_path / "videos")
    for name in few:
        (reader / f"{name}.mp4").write_bytes(b"no video")
    config.data.videos = str(reader)
    train_job.train(config, tmp_path / "two")
    (added,) = set(names) - set(few)
    assert encoded == [added]
    assert "1 videos, " in capsys.readouterr().out
    # A head alone adds videos with the taps that the cache has.
    encoded.clear()
    head_only = _with_subset(_cached(plain, tmp_path / "more"),
                             tmp_path / "few.json", few)
    cache_job.cache(head_only, tmp_path / "log")
    head_only = _cached(plain, tmp_path / "more")
    head_only.train.epochs = head_only.train.schedule_epochs = 1
    head_only.adapter.kind = "none"
    train_job.train(head_only, tmp_path / "three")
    assert encoded[-1] == added and len(encoded) == len(names)
    # All of them are the same features.
    for store in (open_store(_cached(plain, tmp_path / place))
                  for place in ("taps", "more")):
        for name in names:
            for key, array in open_store(_cached(plain, folder))._read(
                    name, 0).items():
                np.testing.assert_allclose(
                    store._read(name, 0)[key], array, atol=1e-5)


def test_evaluation_encodes_only_testing_videos(
        plain, tmp_path, monkeypatch, capsys):
    config = _cached(plain, tmp_path / "taps")
    config.train.epochs = config.train.schedule_epochs = 1
    train_job.train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "taps")
    encoded = _count_encodings(monkeypatch)
    evaluate(config, tmp_path / "run")
    assert len(encoded) == 2 and all("testing" in name for name in encoded)


def test_a_file_that_changed_is_encoded_again_with_its_shard(
        plain, folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "taps")
    config = _cached(plain, tmp_path / "taps")
    (tmp_path / "log").mkdir()
    names = sorted(tap_cache.read_entries(folder))
    (shard,) = {shard for shard, _ in tap_cache.read_entries(folder).values()}
    path = tap_cache.shard_path(tmp_path / "taps", shard, "json")
    content = json.loads(path.read_text())
    content[names[0]]["info"]["frame_count"] += 1
    path.write_text(json.dumps(content))
    encoded = _count_encodings(monkeypatch)
    cache_job.cache(config, tmp_path / "log", dry_run=True)
    assert not encoded and path.exists()
    cache_job.cache(config, tmp_path / "log")
    assert sorted(encoded) == names
    encoded.clear()
    cache_job.cache(config, tmp_path / "log")
    assert encoded == []
    assert "6 of 6 videos are in" in capsys.readouterr().out


def test_a_cache_of_numbered_shards_is_read_and_extended(
        plain, folder, tmp_path, monkeypatch):
    """Earlier versions wrote taps-00000 and the number of shards."""
    taps = tmp_path / "taps"
    shutil.copytree(folder, taps)
    for path in [*taps.glob("taps-*")]:
        path.rename(path.with_name(f"taps-00000{path.suffix}"))
    index = json.loads((taps / "cache.json").read_text())
    (taps / "cache.json").write_text(json.dumps({**index, "num_shards": 1}))
    encoded = _count_encodings(monkeypatch)
    config = _cached(plain, taps)
    cache_job.cache(config, tmp_path / "log")
    assert open_store(config) is not None and not encoded
