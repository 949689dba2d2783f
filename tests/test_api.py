"""The public API: every line of docs/api.md, on a tiny model."""

import dataclasses
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import losa_jax
from losa_jax.data.predictions import write_predictions
from losa_jax.detection.decode import DecodeSettings
from losa_jax.detection.metrics import MapReport
from losa_jax.detection.nms import NmsSettings
from losa_jax.detection.segments import Detection
from losa_jax.inference.localizer import Localizer
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.backbones.vjepa2 import VJepa2, VJepa2Spec
from losa_jax.models.heads.base import HeadLoss
from losa_jax.models.heads.pyramid import HeadOutput
from losa_jax.weights import backbone_folder, name_table
from tests.jobs.conftest import config, fake_run  # noqa: F401

ROOT = Path(__file__).parent.parent


def _blocks():
    """The code of the page, one string a block."""
    text = (ROOT / "docs/api.md").read_text()
    return [re.sub(r"(?m)^ {4}", "", block) for block
            in re.findall(r"(?m)(?:^(?: {4}.*)?\n)+", text) if block.strip()]


@pytest.fixture
def folder(config, fake_run, tmp_path, monkeypatch):  # noqa: F811
    """What the page names, in the current folder."""
    shutil.copytree(fake_run, tmp_path / "runs/mine")
    (tmp_path / "runs/mine/config.json").write_text(
        config.to_json_best_effort())
    (tmp_path / "runs/mine/thresholds.json").write_text("{}")
    spec = VideoMaeSpec(width=32, depth=12, heads=2, mlp_width=64, patch=16,
                        image_size=(32, 32))
    rng = np.random.default_rng(0)
    backbone_folder.save_source(tmp_path / "b.safetensors", spec, {
        name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape
        in name_table.expected_shapes(spec).items()})
    backbone_folder.convert_backbone(tmp_path / "b.safetensors",
                               tmp_path / "backbones/vit_b")
    video = next(Path(config.data.videos).glob("*.mp4"))
    shutil.copy(video, tmp_path / "video.mp4")
    shutil.copy(config.data.annotations, tmp_path / "annotations.json")
    write_predictions(tmp_path / "predictions.json", {
        video.stem: [Detection(0.0, 1.0, "clockwise", 0.5)]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_line_of_the_page_runs(folder, capsys):
    names = {}
    assert len(_blocks()) == 3
    for block in _blocks():
        exec(compile(block, "docs/api.md", "exec"), names)
    assert names["features"].last.shape == (2, 8, 32)
    assert names["features"].taps.shape == (3, 2, 8, 2, 2, 32)
    # An adapter that was not trained changes nothing.
    np.testing.assert_array_equal(
        names["fused"], names["features"].last.reshape(1, 16, 32))
    assert names["outputs"].class_logits.shape == (1, 16 + 8 + 4, 20)
    assert names["outputs"].offsets.shape == (1, 28, 2)
    assert names["segments"].segments.shape == (1, 28 * 20, 2)
    assert names["segments"].valid.any()
    assert 0 <= names["report"].average_map <= 1
    lines = capsys.readouterr().out.splitlines()
    shown = list(names["model"]("video.mp4"))
    assert len(lines) == len(shown) + 1
    assert len(names["model"]("video.mp4", threshold=0)) > 10


def test_the_import_alone_brings_no_jax():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, losa_jax; print(sorted({'jax', "
         "'flax', 'numpy', 'av', 'grain'} & set(sys.modules)))"],
        cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _described():
    """The public names, and what their results are: (name, object)."""
    public = {name: getattr(losa_jax, name) for name in losa_jax.__all__}
    return {**public, **{one.__name__: one for one in (
        Localizer, MapReport, VideoMae, VideoMaeSpec, VJepa2, VJepa2Spec,
        HeadOutput, HeadLoss, DecodeSettings, NmsSettings)}}


@pytest.mark.parametrize("name", losa_jax.__all__)
def test_every_public_name_is_documented(name):
    value = getattr(losa_jax, name)
    assert inspect.getdoc(value).splitlines()[0].endswith(".")
    assert name in dir(losa_jax)


@pytest.mark.parametrize("name", _described())
def test_help_stands_alone(name):
    """Fields, arguments and results are documented where a reader looks."""
    value = _described()[name]
    text = inspect.getdoc(value)
    if dataclasses.is_dataclass(value):
        fields = [field.name for field in dataclasses.fields(value)]
        assert not name.endswith(("Spec", "Settings")) or "Raises:" in text
    else:
        fields = getattr(value, "_fields", ())
    for field in fields:
        assert re.search(rf"(?m)^ +(\w+, )*{field}(, \w+)*: ", text), field
    if isinstance(value, type) and issubclass(value, nnx.Module):
        assert "spec: " in text and "rngs: " in text
    own = vars(value).items() if isinstance(value, type) else [(name, value)]
    for key, member in own:
        if not inspect.isfunction(member) or (
                key.startswith("_") and key != "__call__"):
            continue
        text = inspect.getdoc(member)
        signature = inspect.signature(member)
        if signature.return_annotation not in (None, "None"):
            assert re.search(r"\b(Returns|Yields)\b|^[A-Z][^.]*\.$", text), key
        for wanted in signature.parameters:
            # A short helper may name them all in its one sentence.
            assert wanted == "self" or "Args:" not in text or re.search(
                rf"(?m)^ +(\w+, )*{wanted}(, \w+)*: ", text), (key, wanted)
        assert not re.search(r"\b[Ss]ee (above|`)|\b[Aa]s `", text), key
    assert not re.search(r"\b[Ss]ee (above|`)|\b[Aa]s `",
                         inspect.getdoc(value))


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        losa_jax.lode  # noqa: B018
