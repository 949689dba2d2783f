"""Every job works with VideoPrism, which has tokens for each frame, in clips of
an odd number of frames, and with V-JEPA 2.1."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.data.windows.readers import FrameReader
from losa_jax.inference.load import load
from losa_jax.jobs import cache as cache_job
from losa_jax.jobs.evaluate import evaluate
from losa_jax.jobs.export import export
from losa_jax.jobs.extract import ExtractSettings, extract
from losa_jax.jobs.predict import Settings, predict
from losa_jax.jobs.setup import load_data
from losa_jax.jobs.train import train
from losa_jax.jobs.video_sources import find_videos
from losa_jax.models.backbones.videoprism import VideoPrismSpec
from losa_jax.models.backbones.vjepa2 import VJepa2Spec
from losa_jax.training.checkpoint import Checkpoints
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import expected_shapes
from tests.jobs import predicted

pytestmark = pytest.mark.slow

# A tiny model, the suffix of its public file, and samples of a clip.
FAMILIES = {
    "videoprism": (VideoPrismSpec(
        width=16, depth=4, heads=2, mlp_width=32, patch=8, clip_frames=4,
        image_size=(32, 32), temporal_depth=2, position_frames=4), ".npz", 5),
    "vjepa2": (VJepa2Spec(
        width=16, depth=12, heads=2, mlp_width=32, patch=8, clip_frames=6,
        image_size=(32, 32), version="2.1", rescales_positions=True),
        ".safetensors", 6),
}


class _Died(Exception):
    pass


@pytest.fixture(scope="module", params=FAMILIES)
def family_config(request, config, tmp_path_factory):
    spec, suffix, clip_samples = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(0)
    path = folder / f"tiny{suffix}"
    # A scale near zero would make a channel of rounding errors; VideoPrism
    # stores offsets from 1.
    backbone_folder.save_source(path, spec, {
        name: (rng.normal(0, 0.1, shape) + (
            request.param == "vjepa2" and name.endswith("scale"))
               ).astype(np.float32)
        for name, shape in expected_shapes(spec).items()})
    backbone_folder.convert_backbone(path, folder / "tiny")
    config = config.copy_and_resolve_references()
    config.backbone.update(checkpoint=str(folder / "tiny"), depth=spec.depth)
    # 60 samples: 12 or 10 clips, and 30 tokens of the head.
    config.window.update(samples=60, tokens=30, clip_samples=clip_samples,
                         align_to_clips=True)
    config.augment.color_jitter = 0.0
    config.adapter.num_taps = 2
    config.train.epochs = config.train.schedule_epochs = 2
    return config


@pytest.fixture(scope="module")
def run(family_config, tmp_path_factory):
    """Returns the folder of a run, and its result."""
    workdir = tmp_path_factory.mktemp("run") / "video"
    return workdir, train(family_config, workdir)


def _losses(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().split("\n")
                [:-1])
    return [line["loss"] for line in lines if "loss" in line]


def test_training_from_cached_taps_is_training_from_video(
        family_config, run, tmp_path):
    config = family_config.copy_and_resolve_references()
    config.data.cache = str(tmp_path / "taps")
    cache_job.cache(config, tmp_path / "log")
    config.data.videos = str(tmp_path / "nowhere")
    cached = train(config, tmp_path / "cached")
    workdir, result = run
    np.testing.assert_allclose(_losses(tmp_path / "cached"), _losses(workdir),
                               rtol=1e-4)
    assert cached.average_map == pytest.approx(result.average_map, abs=1e-3)


def test_evaluation_prediction_and_export_agree(family_config, run, tmp_path):
    workdir, _ = run
    evaluate(family_config, workdir, output=tmp_path / "eval")
    wanted = predicted.results(tmp_path / "eval/predictions.json")
    videos = [str(path) for path in Path(family_config.data.videos).iterdir()
              if path.stem in wanted]
    for name, model in (("run", load(workdir)),
                        ("export", load(export(family_config, workdir)))):
        assert predict(find_videos(videos), model,
                       Settings(tmp_path / name)) == {}
        actual = predicted.results(tmp_path / name / "predictions.json")
        assert set(actual) == set(wanted)
        for video, rows in wanted.items():
            np.testing.assert_allclose(
                predicted.scores(actual[video]), predicted.scores(rows),
                atol=1e-5)


def test_one_vector_is_extracted_for_each_token(family_config, tmp_path):
    extract(family_config, tmp_path / "log",
            ExtractSettings(tmp_path / "out", features="last"))
    data = load_data(family_config, tmp_path / "log", subsets=("test",))
    backbone = backbone_folder.load_backbone(
        family_config.backbone.checkpoint)
    clip = family_config.window.clip_samples
    backbone.spec = dataclasses.replace(backbone.spec, clip_frames=clip)
    tokens = backbone.spec.clip_tokens
    reader = FrameReader(family_config)
    for video in data.test:
        got = np.load(tmp_path / f"out/{video.video_id}.npy")
        assert len(got) == -(-video.grid.num_samples // backbone.spec.tubelet)
        _, frames = next(reader.clips(video, clip, clip, 1))
        want = backbone.features(jnp.asarray(frames)[None]).last[0]
        np.testing.assert_allclose(got[:tokens], want, atol=1e-5)


def test_a_run_that_died_resumes_to_the_same_numbers(
        family_config, run, tmp_path, monkeypatch):
    _, result = run
    save = Checkpoints.save

    def save_and_die(*arguments):
        save(*arguments)
        raise _Died

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_die)
        with pytest.raises(_Died):
            train(family_config, tmp_path)
    assert len(_losses(tmp_path)) < len(_losses(run[0]))
    resumed = train(family_config, tmp_path)
    assert _losses(tmp_path) == _losses(run[0])
    assert resumed.average_map == result.average_map
