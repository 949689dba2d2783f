"""An exported run predicts the same without the code of its model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from losa_jax.errors import InputError
from losa_jax.inference import exported
from losa_jax.inference.exported import is_exported, load_exported
from losa_jax.inference.load import load
from losa_jax.jobs.evaluate import evaluate
from losa_jax.jobs.export import export

pytestmark = pytest.mark.slow

# Any import of the model's code fails.
WITHOUT_MODELS = """
import sys
sys.modules["losa_jax.models"] = None
from losa_jax import predict
raise SystemExit(predict.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def run(config, fake_run, tmp_path_factory):
    """Returns a config that keeps few detections, and its folder."""
    config = config.copy_and_resolve_references()
    config.evaluate.max_detections = 40
    config.evaluate.top_k = 200
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    shutil.copytree(fake_run, workdir)
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    (workdir / "thresholds.json").write_text(json.dumps(
        {"clockwise": {"score": 0.25, "f1": 1.0}}))
    return config, workdir


@pytest.fixture(scope="module")
def folder(run):
    config, workdir = run
    return export(config, workdir)


def _same(actual, wanted, tolerance=1e-5):
    """Asserts equal lists, but for the order of nearly equal scores."""
    assert len(actual) == len(wanted) > 10
    left = list(actual)
    for row in wanted:
        partner = next(one for one in left if one["label"] == row["label"]
                       and abs(one["score"] - row["score"]) <= tolerance
                       and np.allclose(one["segment"], row["segment"],
                                       rtol=0, atol=tolerance))
        left.remove(partner)


def test_an_exported_model_predicts_what_evaluation_predicts(
        run, folder, tmp_path, monkeypatch):
    devices = jax.devices()[:1]  # one is compiled for in half the time
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    config, workdir = run
    evaluate(config, workdir, output=workdir / "eval")
    wanted = json.loads((workdir / "eval/predictions.json").read_text())[
        "results"]
    paths = [str(path) for path in Path(config.data.videos).iterdir()
             if path.stem in wanted]
    # Elsewhere and alone: no config, no work directory, no backbone.
    alone = tmp_path / "alone"
    shutil.copytree(folder, alone)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_MODELS, *paths,
         f"--checkpoint={alone}", f"--output={tmp_path / 'out'}"],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    actual = json.loads((tmp_path / "out/predictions.json").read_text())[
        "results"]
    assert set(actual) == set(wanted)
    for name, rows in wanted.items():
        _same(actual[name], rows)


def test_the_export_takes_any_number_of_windows_on_every_platform(run, folder):
    config, _ = run
    stored, predict_windows = load_exported(folder)
    assert stored["thresholds"] == {"clockwise": 0.25}
    assert len(stored["class_names"]) == 8
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["platforms"] == ["cpu", "tpu", "cuda"]
    program = exported.jax_export.deserialize(
        bytearray((folder / "program.bin").read_bytes()))
    assert program.platforms == ("cpu", "tpu", "cuda")
    # Weights are in one place only.
    weights = (folder / "weights.safetensors").stat().st_size
    assert (folder / "program.bin").stat().st_size < 20 * weights
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 64, 32, 32, 3), np.uint8)
    three = jax.device_get(predict_windows(
        {"frames": frames, "valid_samples": [64, 40, 64]}))
    one = jax.device_get(predict_windows(
        {"frames": frames[1:2], "valid_samples": [40]}))
    assert three.class_scores is None and three.valid.sum() > 50
    for name in ("segments", "scores", "labels", "valid"):
        np.testing.assert_allclose(getattr(three, name)[1],
                                   getattr(one, name)[0], atol=1e-5)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:9\nsize 9\n"


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def _edit(copy, **changes):
    path = copy / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"


@pytest.mark.parametrize("damage, message", [
    (lambda copy: _edit(copy, format_version=2),
     "format version 2, but this program reads 1.*update losa_jax"),
    (lambda copy: _edit(copy, format_version=0), "export the run again"),
    (lambda copy: _edit(copy, format="zip"), "not the manifest"),
    (lambda copy: _edit(copy, files={}),
     "no entry program.bin, weights.safetensors"),
    (lambda copy: (copy / "manifest.json").write_text("{"),
     "manifest.json: not JSON: .*export the run again"),
    (lambda copy: (copy / "manifest.json").write_text(LFS), "git lfs pull"),
    (lambda copy: (copy / "manifest.json").write_text("<html>"), "HTML page"),
    (lambda copy: (copy / "manifest.json").write_text("[]"),
     "not the manifest"),
    (lambda copy: (copy / "weights.safetensors").write_text(LFS),
     "weights.safetensors: .*git lfs pull"),
    (lambda copy: (copy / "program.bin").write_text("<html>"),
     "program.bin: .*HTML page"),
    (lambda copy: _edit(copy, platforms=["tpu", "cuda"]),
     "is for tpu, cuda, this is cpu"),
    (lambda copy: (copy / "program.bin").unlink(), "program.bin: is missing"),
    (lambda copy: os.truncate(copy / "weights.safetensors", 1000),
     "weights.safetensors is not the file that manifest.json .*damaged"),
    (lambda copy: _flip(copy / "weights.safetensors"), "damaged or replaced"),
    (lambda copy: _flip(copy / "program.bin"),
     "program.bin is not the file that manifest.json .*export the run again"),
    *((lambda copy, name=name: (copy / name).write_text(LFS_POINTER),
       f"{name}.* a Git LFS pointer.*: run `git lfs pull`")
      for name in ("manifest.json", "program.bin", "weights.safetensors")),
])
def test_a_damaged_export_is_refused(copy, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=message):
        load_exported(copy)


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_export_holds_only_one_checkpoint(folder):
    for settings in ({"which": "last"}, {"backbone": "elsewhere"}):
        with pytest.raises(InputError, match="holds one checkpoint"):
            load(folder, **settings)


def test_a_failed_export_leaves_the_old_folder(tmp_path, monkeypatch):
    parts = {"program": b"program", "weights": {"a": np.ones(3, np.float32)},
             "manifest": {"class_names": ["a"]}}
    exported.write_exported(tmp_path / "out", **parts)
    before = (tmp_path / "out/manifest.json").read_bytes()

    def full(path):
        raise OSError("no space left")

    monkeypatch.setattr(exported, "sha256", full)
    for name in ("out", "new"):
        with pytest.raises(InputError, match="no space left"):
            exported.write_exported(tmp_path / name, **parts)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/manifest.json").read_bytes() == before
    monkeypatch.undo()
    exported.write_exported(tmp_path / "out", **parts)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    # What is somebody else's stays.
    (tmp_path / "out/note.txt").write_text("mine")
    with pytest.raises(InputError, match="no exported model"):
        exported.write_exported(tmp_path / "out", **parts)


@pytest.mark.parametrize("key, value, message", [
    ("platforms", ("cpu", "rocm"), "choose among cpu, tpu, cuda"),
    ("features.folder", "somewhere", "reads files of features"),
])
def test_runs_that_cannot_be_exported_are_refused(
        run, tmp_path, key, value, message):
    config, workdir = run
    config = config.copy_and_resolve_references()
    settings = {"output": tmp_path / "out"}
    section, _, name = key.partition(".")
    if name:
        config[section][name] = value
    else:
        settings[key] = value
    with pytest.raises(InputError, match=message):
        export(config, workdir, **settings)
    assert not is_exported(tmp_path / "out")
