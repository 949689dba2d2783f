"""Extracted features are correct, and a head trains on them."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import thumos_features
from losa_jax.data.features.files import read_record
from losa_jax.data.records import AnnotatedVideo
from losa_jax.data.video.probe import probe_video
from losa_jax.distributed import processes
from losa_jax.errors import InputError
from losa_jax.jobs import encode_videos
from losa_jax.jobs import extract as extract_job
from losa_jax.jobs.extract import ExtractSettings, extract
from losa_jax.jobs.train import train
from losa_jax.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from losa_jax.training.feature_store import open_feature_files
from losa_jax.training.restore import load_run
from losa_jax.utils.interrupt import Interrupted
from losa_jax.weights.backbone_folder import open_backbone
from tests.data.reading import read_frames, views_of_testing

pytestmark = pytest.mark.slow


def _of(config, videos):
    config = config.copy_and_resolve_references()
    config.data.videos = str(videos)
    return config


@pytest.fixture(scope="module")
def videos(config, tmp_path_factory):
    """Returns a folder with two of the videos."""
    folder = tmp_path_factory.mktemp("videos")
    paths = sorted(extract_job.Path(config.data.videos).iterdir())
    for path in paths[:2]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def extracted(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "npy"
    extract(config, folder.parent / "log", ExtractSettings(folder))
    return folder


def _numpy_feature(clip, config):
    """Computes a clip's feature with numpy."""
    from scipy.special import erf

    spec, flat, _ = open_backbone(config.backbone.checkpoint)
    pixels = (clip / 1.0 - IMAGENET_MEAN) / IMAGENET_STD
    u, p, c = spec.tubelet, spec.patch, spec.width
    f, h, w, _ = pixels.shape
    cubes = pixels.reshape(f // u, u, h // p, p, w // p, p, 3)
    cubes = cubes.transpose(0, 2, 4, 1, 3, 5, 6).reshape(-1, u * p * p * 3)
    x = cubes @ flat["patch_embed/kernel"].reshape(-1, c)
    x = x + flat["patch_embed/bias"]
    # VideoMAE's table: sines then cosines over the running token number.
    angle = np.arange(len(x))[:, None] / 10000 ** (
        2 * (np.arange(c) // 2) / c)
    x = x + np.where(np.arange(c) % 2, np.cos(angle), np.sin(angle))

    def norm(x, name, i=None):
        scale, bias = (flat[f"{name}/{key}"] if i is None
                       else flat[f"{name}/{key}"][i]
                       for key in ("scale", "bias"))
        y = x - x.mean(-1, keepdims=True)
        return y / np.sqrt((y ** 2).mean(-1, keepdims=True) + 1e-6
                           ) * scale + bias

    for i in range(spec.depth):
        def weight(name, i=i):
            return flat[f"blocks/{name}"][i]

        y = norm(x, "blocks/norm1", i) @ weight("attn/qkv/kernel")
        query, key, value = np.split(y, 3, -1)
        heads = [np.split(part, spec.heads, -1) for part in (
            query + weight("attn/q_bias"), key,
            value + weight("attn/v_bias"))]
        out = []
        for q, k, v in zip(*heads, strict=True):
            scores = q @ k.T / np.sqrt(q.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            out.append(scores / scores.sum(-1, keepdims=True) @ v)
        x = x + np.concatenate(out, -1) @ weight(
            "attn/proj/kernel") + weight("attn/proj/bias")
        y = norm(x, "blocks/norm2", i) @ weight("mlp/fc1/kernel")
        y = y + weight("mlp/fc1/bias")
        y = y * (1 + erf(y / np.sqrt(2))) / 2
        x = x + y @ weight("mlp/fc2/kernel") + weight("mlp/fc2/bias")
    return norm(x.mean(0), "fc_norm")


def test_a_feature_equals_videomae_on_its_clip(config, extracted):
    path = sorted(extract_job.Path(config.data.videos).iterdir())[0]
    info = probe_video(path)
    got = np.load(extracted / f"{path.stem}.npy")
    assert got.dtype == np.float32
    assert len(got) == len(range(0, info.frame_count - 15, 4))
    for row in (0, 1, len(got) - 1):
        clip = views_of_testing(
            read_frames(path, range(4 * row, 4 * row + 16)), 32,
            config.augment.test_resize)
        np.testing.assert_allclose(got[row], _numpy_feature(clip, config),
                                   atol=2e-5)


def test_a_head_trains_on_extracted_features(
        config, extracted, tmp_path, monkeypatch):
    """The record of the features completes the annotations."""
    devices = jax.devices()[:1]  # one is compiled for in half the time
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    ours = thumos_features.get_config()
    ours.data = config.data
    ours.features.folder = str(extracted)
    ours.window.samples = ours.window.tokens = 64
    ours.head.width, ours.head.num_levels = 16, 2
    ours.head.num_stem_blocks = ours.head.num_embedding_convs = 1
    ours.head.head_layers = 1
    ours.train.epochs = ours.train.evaluate_from_epoch = 1
    ours.train.checkpoint_every_epochs = 1
    with pytest.raises(InputError, match=(
            "--config.features.stride_frames=4 "
            "--config.features.clip_frames=16 --config.features.width=16")):
        train(ours, tmp_path / "run")
    ours.features.width = 16
    report = train(ours, tmp_path / "run")
    assert report.num_actions > 0
    # Features stand where ActionFormer puts them, on the files' clock.
    store = open_feature_files(ours)
    name, entry = next(iter(read_record(extracted).videos.items()))
    info = probe_video(next(extract_job.Path(config.data.videos).glob(
        f"{name}.*")))
    assert (entry["fps"], entry["frame_count"]) == (info.fps,
                                                    info.frame_count)
    stored = store.info_of(AnnotatedVideo(name, "testing", None, None, ()))
    assert stored.path == extracted / f"{name}.npy"
    assert (stored.fps, stored.frame_count) == (info.fps, info.frame_count)


def test_an_extraction_continues_where_it_stopped(
        config, videos, tmp_path, capsys, monkeypatch):
    one = _of(config, videos)
    half = ExtractSettings(tmp_path / "out", dtype="float16", stride_frames=8)

    class Stops(encode_videos.StopSignal):
        came = property(lambda self: "SIGTERM", lambda self, value: None)

    with monkeypatch.context() as patch:
        patch.setattr(encode_videos, "StopSignal", Stops)
        with pytest.raises(Interrupted, match="finished files stay"):
            extract(one, tmp_path / "log", half)
    files = sorted((tmp_path / "out").glob("*.npy"))
    assert len(files) < 2
    extract(one, tmp_path / "log", half)
    capsys.readouterr()
    files = sorted((tmp_path / "out").glob("*.npy"))
    content = [path.read_bytes() for path in files]
    stamp = files[0].stat().st_mtime_ns
    # Cut off by a copy: made again, the other left alone.
    files[1].write_bytes(content[1][:-5])
    extract(one, tmp_path / "log", half)
    assert "1 of 2 videos are there already" in capsys.readouterr().out
    assert [path.read_bytes() for path in files] == content
    assert files[0].stat().st_mtime_ns == stamp
    assert np.load(files[0]).dtype == np.float16
    assert not [*(tmp_path / "out").glob(".*")]
    with pytest.raises(InputError, match="stride_frames=8 .asked for 4"):
        extract(one, tmp_path / "log",
                dataclasses.replace(half, stride_frames=4))


def test_processes_share_the_videos(
        config, videos, extracted, tmp_path, monkeypatch, capsys):
    """The first process reports the videos of all."""
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    for name in ("zy", "zz"):  # one for each process
        (folder / f"{name}.mp4").touch()
    one = _of(config, folder)
    one.data.on_broken_video = "skip"
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    gathered = []
    for number in (1, 0):
        monkeypatch.setattr(jax, "process_index", lambda n=number: n)
        monkeypatch.setattr(processes, "is_first", lambda n=number: n == 0)
        monkeypatch.setattr(processes, "gather", lambda value, n=number: (
            [value, gathered.pop(0)] if n == 0 else gathered.append(value) or [
                value]))
        capsys.readouterr()
        extract(one, tmp_path / "log", ExtractSettings(tmp_path / "out"))
        assert len([*(tmp_path / "out").glob("*.npy")]) == 2 - number
    shown = capsys.readouterr().out
    assert gathered == [] and shown.startswith("2 videos, [time, 16]")
    assert "2 videos were skipped" in shown
    assert "zy: " in shown and "zz: " in shown
    assert len(read_record(tmp_path / "out").videos) == 2
    for path in (tmp_path / "out").glob("*.npy"):
        assert path.read_bytes() == (extracted / path.name).read_bytes()


def test_broken_videos_are_reported_and_skipped_only_on_demand(
        config, videos, tmp_path, capsys):
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    good, bad = sorted(folder.iterdir())
    (folder / "empty.mp4").touch()
    # Damaged in its middle: its header and its end are whole.
    content = bytearray(bad.read_bytes())
    middle = len(content) // 2
    content[middle - 3000:middle + 3000] = bytes(6000)
    bad.write_bytes(content)
    one = _of(config, folder)
    with pytest.raises(InputError, match="empty: .*the file is empty"):
        extract(one, tmp_path / "log", ExtractSettings(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    one.data.on_broken_video = "skip"
    one.data.check = "none"
    extract(one, tmp_path / "log", ExtractSettings(tmp_path / "out"))
    printed = capsys.readouterr().out
    broken = json.loads((tmp_path / "out/features.json").read_text())[
        "broken"]
    assert set(broken) == {"empty", bad.stem}
    assert all(f"{name}: {why}" in printed for name, why in broken.items())
    assert [path.stem for path in (tmp_path / "out").glob("*.npy")] == [
        good.stem]


def test_features_with_adapters_are_what_the_head_reads(
        config, fake_run, videos, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        extract_job, "load_run",
        lambda *given, **named: loaded.append(load_run(*given, **named))
        or loaded[0])
    one = _of(config, videos)
    extract(one, fake_run,
            ExtractSettings(tmp_path / "out", features="adapted"))
    record = read_record(tmp_path / "out")
    assert (record.facts["stride_frames"], record.facts["clock"]) == (
        2, "samples")
    assert record.facts["run"]["kind"] == "losa"
    path = sorted(videos.iterdir())[0]
    entry = record.videos[path.stem]
    info = probe_video(path)
    assert entry["fps"] == pytest.approx(10.0)
    assert entry["frame_count"] == round(info.duration_seconds * 10)
    got = np.load(tmp_path / "out" / f"{path.stem}.npy")
    assert got.shape == (-(-entry["frame_count"] // 2), 16)

    # The first window, once for each device.
    run, = loaded
    step = info.fps / 10
    frames = views_of_testing(read_frames(
        path, [int((i + 0.5) * step + 1e-6) for i in range(64)]), 32,
        config.augment.test_resize)[None]

    @jax.jit
    def expected(frozen, ema, statistics, frames):
        features = run.model.encode(frozen, ema, {"frames": frames}, None,
                                    None)
        return features, run.model.detector.bind(ema).fused(
            features, statistics, jnp.full(8, 64))[0]

    features, fused = expected(run.model.frozen, run.state.ema,
                               run.state.statistics, np.repeat(frames, 8, 0))
    np.testing.assert_allclose(got[:24], fused[0, :24], atol=1e-4)

    # Without adapters: the backbone's, not standardized.
    extract(one, tmp_path / "log",
            ExtractSettings(tmp_path / "last", features="last"))
    last = np.load(tmp_path / "last" / f"{path.stem}.npy")
    np.testing.assert_allclose(
        last[:24], features.last.reshape(-1, 16)[:24], atol=1e-4)
    standard = (last - np.asarray(run.state.statistics.mean)) / np.asarray(
        run.state.statistics.deviation)
    assert np.abs(standard[:24] - got[:24]).max() > 1e-2


@pytest.mark.parametrize("tfds", ["", "a_data_set"])
def test_an_empty_setting_is_not_the_current_folder(
        config, videos, tmp_path, monkeypatch, tfds):
    monkeypatch.chdir(videos)
    one = _of(config, "")
    one.data.tfds = tfds
    with pytest.raises(InputError, match="set\n  --config.data.videos=FOLDER"):
        extract(one, tmp_path / "log", ExtractSettings(tmp_path / "out"))


def test_features_of_adapters_need_a_run(config, videos, tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        extract(_of(config, videos), tmp_path / "log",
                ExtractSettings(tmp_path / "out", features="adapted"))
    assert not (tmp_path / "out").exists()
