"""Every job follows window.clip_overlap, or refuses it in words."""

import json
from pathlib import Path

import numpy as np
import pytest

from losa_jax.data.features import tap_cache
from losa_jax.data.features.files import read_record
from losa_jax.data.records import Window
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.errors import InputError
from losa_jax.inference.load import load
from losa_jax.jobs import cache as cache_job
from losa_jax.jobs.evaluate import evaluate
from losa_jax.jobs.export import export
from losa_jax.jobs.extract import ExtractSettings, extract
from losa_jax.jobs.live import live
from losa_jax.jobs.predict import Settings, predict
from losa_jax.jobs.setup import load_data
from losa_jax.jobs.train import train
from losa_jax.jobs.video_sources import find_videos
from losa_jax.training.feature_store import open_store
from losa_jax.weights.backbone_folder import load_backbone
from tests.data.reading import read_window, views_of_testing
from tests.jobs import predicted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def overlapping(config):
    config = config.copy_and_resolve_references()
    config.window.update(clip_overlap=8, align_to_clips=True)
    config.augment.color_jitter = 0.0
    config.train.epochs = config.train.schedule_epochs = 2
    return config


@pytest.fixture(scope="module")
def run(overlapping, tmp_path_factory):
    """Returns the folder of a run, and its result."""
    workdir = tmp_path_factory.mktemp("run") / "video"
    return workdir, train(overlapping, workdir)


@pytest.fixture(scope="module")
def cached(overlapping, tmp_path_factory):
    """Returns a config with a cache."""
    config = overlapping.copy_and_resolve_references()
    config.data.cache = str(tmp_path_factory.mktemp("cache") / "taps")
    cache_job.cache(config, tmp_path_factory.mktemp("log"))
    return config


def _changed(config, **window):
    config = config.copy_and_resolve_references()
    config.window.update(window)
    return config


def _losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().split("\n")
                [:-1])
    return [line["loss"] for line in lines if "loss" in line]


def test_training_from_cached_clips_is_training_from_video(
        cached, run, tmp_path):
    config = cached.copy_and_resolve_references()
    config.data.videos = str(tmp_path / "nowhere")
    result = train(config, tmp_path / "cached")
    workdir, wanted = run
    np.testing.assert_allclose(_losses(tmp_path / "cached"), _losses(workdir),
                               rtol=1e-4)
    assert result.average_map == pytest.approx(wanted.average_map, abs=1e-3)


def test_the_cache_holds_every_clip_once(cached, tmp_path):
    store = open_store(cached)
    data = load_data(cached, tmp_path, store=store)
    for video in data.train:
        arrays = store._read(video.video_id, 0)
        clips = -(-(video.grid.num_samples - 16) // 8) + 1
        assert arrays["last"].shape == (clips, 8, 16)
        assert arrays["raw_taps"].shape == (1, clips, 8, 2, 2, 16)
    # A window of 64 samples has seven clips, and a place without one.
    inputs, = store.read_windows(video, [Window(16, 64, 64)])
    np.testing.assert_array_equal(inputs["last"][:7], arrays["last"][2:9])
    assert inputs["last"].shape[0] == 8 and not inputs["last"][7].any()
    inputs, = store.read_windows(video, [Window(0, 64, 25)])
    taps = inputs["raw_taps"]
    assert not taps[:, 3:].any() and taps[:, 2].any()


def test_a_cache_with_another_overlap_is_refused(cached, tmp_path):
    with pytest.raises(InputError, match=r"clip_overlap=8 \(asked for 0\)"):
        open_store(_changed(cached, clip_overlap=0))
    with pytest.raises(InputError, match=r"clip_overlap=8 \(asked for 12\)"):
        cache_job.cache(_changed(cached, clip_overlap=12), tmp_path)


def test_a_cache_that_names_no_overlap_has_none(cached, tmp_path):
    facts = json.loads((Path(cached.data.cache) / tap_cache.INDEX_FILE
                        ).read_text())["facts"]
    del facts["clip_overlap"]
    (tmp_path / tap_cache.INDEX_FILE).write_text(json.dumps({
        "format_version": tap_cache.FORMAT_VERSION, "facts": facts,
        "num_shards": 0}))
    config = _changed(cached, clip_overlap=0)
    config.data.cache = str(tmp_path)
    assert open_store(config) is not None
    with pytest.raises(InputError, match=r"clip_overlap=0 \(asked for 8\)"):
        open_store(_changed(config, clip_overlap=8))


def test_evaluation_prediction_and_export_agree(overlapping, run, tmp_path,
                                                capsys):
    workdir, _ = run
    evaluate(overlapping, workdir, output=tmp_path / "eval")
    wanted = predicted.results(tmp_path / "eval/predictions.json")
    videos = [str(path) for path in Path(overlapping.data.videos).iterdir()
              if path.stem in wanted]
    # The overlap is that of the run.
    for name, model in (("run", load(workdir)),
                        ("export", load(export(overlapping, workdir)))):
        assert model.config.window.clip_overlap == 8
        assert predict(find_videos(videos), model,
                       Settings(tmp_path / name)) == {}
        actual = predicted.results(tmp_path / name / "predictions.json")
        assert set(actual) == set(wanted)
        for video, rows in wanted.items():
            np.testing.assert_allclose(
                predicted.scores(actual[video]), predicted.scores(rows),
                atol=1e-5)
    capsys.readouterr()
    count = live(videos[0], load(workdir, batch_windows=1), threshold=0,
                 idle_seconds=0)
    best = max(row["score"] for row in wanted[Path(videos[0]).stem])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == count > 10
    assert max(row["score"] for row in rows) == pytest.approx(best, abs=1e-5)
    with pytest.raises(InputError, match="clip_overlap: the run has 8, this "
                                         "command 0"):
        evaluate(_changed(overlapping, clip_overlap=0), workdir)


def test_extracted_vectors_are_means_over_the_clips(overlapping, tmp_path):
    extract(overlapping, tmp_path / "log",
            ExtractSettings(tmp_path / "out", features="last"))
    assert read_record(tmp_path / "out").facts["clip_overlap"] == 8
    data = load_data(overlapping, tmp_path / "log", subsets=("test",))
    backbone = load_backbone(overlapping.backbone.checkpoint)
    for video in data.test:
        got = np.load(tmp_path / f"out/{video.video_id}.npy")
        assert len(got) == -(-video.grid.num_samples // 2)
        frames = views_of_testing(
            read_window(FrameCache(0), video, Window(0, 24, 24)), 32,
            overlapping.augment.test_resize)
        clips = np.stack([np.asarray(frames)[start:start + 16]
                          for start in (0, 8)])
        last = np.asarray(backbone.features(clips).last)
        np.testing.assert_allclose(got[:4], last[0, :4], atol=1e-5)
        np.testing.assert_allclose(got[4:8], (last[0, 4:] + last[1, :4]) / 2,
                                   atol=1e-5)


def test_jobs_without_a_meaning_for_it_refuse_it(overlapping, tmp_path):
    with pytest.raises(InputError, match="--features=clips takes a clip every "
                                         "--stride_frames: set the overlap"):
        extract(overlapping, tmp_path / "log", ExtractSettings(tmp_path / "x"))
    for kind in ("tia", "full"):
        config = overlapping.copy_and_resolve_references()
        config.adapter.kind = kind
        with pytest.raises(InputError, match="clip_overlap=8 needs a frozen "
                                             f"backbone, and .*kind={kind}"):
            train(config, tmp_path / "run")
    with pytest.raises(InputError, match="clip_overlap=6: .*set it to 8"):
        train(_changed(overlapping, clip_overlap=6), tmp_path / "run")
