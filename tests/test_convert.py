"""The command line of the converter."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from losa_jax import convert
from losa_jax.errors import InputError
from losa_jax.jobs.convert import _public_settings
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.weights import backbone_folder
from losa_jax.weights.checkpoint_file import is_hub_name
from losa_jax.weights.head_folder import load_head
from losa_jax.weights.name_table import expected_shapes
from losa_jax.weights.videomae import _hugging_face_hints

SPEC = VideoMaeSpec(width=12, depth=2, heads=3, mlp_width=24, patch=4,
                    clip_frames=4, image_size=(8, 8), num_classes=2)


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "tiny.safetensors"
    backbone_folder.save_source(path, SPEC, {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in
        expected_shapes(SPEC).items()})
    return path


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:9\nsize 9\n"


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "hf"])
@pytest.mark.parametrize("content, message", [
    (LFS, "but a Git LFS pointer: run `git lfs pull`"),
    ("<!DOCTYPE html><title>Sign in</title>", 'an HTML page ("Sign in")'),
    ('{"error": 404}', "but a JSON document"),
    ("Not Found", 'but a text file ("Not Found")'),
    ("\0" * 9999, "but a file of zeros"), ("", "but an empty file")])
def test_misplaced_checkpoints_are_named(
        tmp_path, capsys, name, content, message):
    path = tmp_path / name
    if name == "hf":
        path.mkdir()
        (path / "model.safetensors").write_text(content)
        (path / "config.json").write_text(content)
    else:
        path.write_text(content)
    for flags in ([f"--output={tmp_path / 'out'}"], ["--inspect"]):
        assert convert.main([str(path), *flags]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("content, message", [
    (LFS, "Git LFS pointer"), ("<html>", "HTML page"),
    ("{", "not JSON: line 1.*; put the config.json")])
def test_a_misplaced_config_of_hugging_face_is_named(
        tmp_path, source, content, message):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"config.json.*{message}"):
        _hugging_face_hints(path)


def test_a_folder_without_weights_lists_its_files(tmp_path, capsys):
    (tmp_path / "tf_model.h5").touch()
    assert convert.main([str(tmp_path), "--inspect"]) == 1
    assert "but tf_model.h5: give a file .pth" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        convert.main(["", "--inspect"])
    assert "is empty: name a file or folder" in capsys.readouterr().err


@pytest.mark.parametrize("name, content, message", [
    ("head.json", None, r"no converted head \(no head.json\): make one"),
    ("head.json", LFS, "head.json: not a text file but a Git LFS pointer"),
    ("head.json", "<html>", "head.json: .*HTML page"),
    ("head.json", "[]", "head.json: does not describe a head: convert"),
    ("head.json", "{", "head.json: not JSON: line 1"),
    ("head.safetensors", None, "head.safetensors: (is missing|not a comple)"),
    ("head.safetensors", LFS, "head.safetensors: .*run `git lfs pull`"),
    ("head.safetensors", "<html>", "head.safetensors: .*HTML page"),
    ("head.safetensors", "x" * 99, "head.safetensors: not ")])
@pytest.mark.parametrize("facts", [{}, {"sha256": "9" * 64}])
def test_a_damaged_converted_head_is_an_error(tmp_path, name, content, message,
                                              facts):
    (tmp_path / "head.json").write_text(json.dumps(facts))
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    else:
        path.unlink(missing_ok=True)
    with pytest.raises(InputError, match=message) :
        load_head(tmp_path)


@pytest.mark.parametrize("text, message", [
    ("model: {embd_dim: 32}\nmodel: {}\n", "the key 'model' twice"),
    ("- 1\n", "holds no settings"), ("model: [1]\n", "of the wrong type"),
    ("model: {backbone_arch: 3}\n", "of the wrong type"),
    ("model_name: [1]\n", "of the wrong type"),
    ("model_name: X\n", "not one of"), ("a: [\n", "not YAML"),
    (LFS, "git lfs pull"), (None, "cannot be read")])
def test_a_wrong_public_config_is_refused(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"a.yaml: .*{message}"):
        _public_settings(path)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["w.pth", "hf"])
def test_pointers_of_users_are_explained(shared_dir, tmp_path, capsys, name):
    path = shared_dir / "data/public_cases/lfs" / name
    assert convert.main([str(path), f"--output={tmp_path / 'out'}"]) == 1
    assert "run `git lfs pull`" in capsys.readouterr().err


def test_the_command_offers_every_dtype():
    assert set(convert.DTYPES) == set(backbone_folder.DTYPES)


def test_convert_and_verify(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert convert.main([str(source), f"--output={out}", "--verify"]) == 0
    text = capsys.readouterr().out
    assert "2 blocks of width 12, 3 heads" in text
    assert "tensors equal" in text
    assert backbone_folder.open_backbone(out)[0] == SPEC


def test_verify_detects_a_changed_folder(source, tmp_path, monkeypatch, capsys):
    save = backbone_folder.convert_backbone

    def convert_another(path, output, **options):
        spec = save(path, output, **options)
        arrays = output / backbone_folder.ARRAYS_FILE
        content = bytearray(arrays.read_bytes())
        content[-2] ^= 1
        arrays.write_bytes(content)
        facts = json.loads((output / "backbone.json").read_text())
        facts["sha256"] = hashlib.sha256(content).hexdigest()
        (output / "backbone.json").write_text(json.dumps(facts))
        return spec

    monkeypatch.setattr(backbone_folder, "convert_backbone", convert_another)
    out = tmp_path / "out"
    assert convert.main([str(source), f"--output={out}", "--verify"]) == 1
    assert "1 tensors differ from" in capsys.readouterr().err


def test_inspect_writes_nothing(source, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    assert convert.main([str(source), "--inspect"]) == 0
    text = capsys.readouterr().out
    assert "blocks.1.attn.qkv.weight" in text and "(36, 12)" in text
    assert sorted(tmp_path.iterdir()) == before


def test_the_conversion_back_is_bit_exact(source, tmp_path):
    out, back = tmp_path / "out", tmp_path / "back.safetensors"
    assert convert.main([str(source), f"--output={out}"]) == 0
    assert convert.main([str(out), "--to=torch", f"--output={back}"]) == 0
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.torch
def test_pth_files_are_written_and_read_back(source, tmp_path):
    torch = pytest.importorskip("torch")
    out, back = tmp_path / "out", tmp_path / "back.pth"
    convert.main([str(source), f"--output={out}", "--dtype=bfloat16"])
    assert convert.main([str(out), "--to=torch", f"--output={back}"]) == 0
    state = torch.load(back, weights_only=True)["module"]
    assert state["head.weight"].dtype == torch.bfloat16
    # The file itself holds what no tensor shows: no --heads, --frames.
    assert convert.main([str(back), f"--output={tmp_path / 'again'}"]) == 0
    first, second = (backbone_folder.open_backbone(tmp_path / name)[1]
                     for name in ("out", "again"))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_pth_without_torch_is_refused_with_the_remedy(
        source, tmp_path, capsys, monkeypatch):
    out, back = tmp_path / "out", tmp_path / "back.pth"
    convert.main([str(source), f"--output={out}"])
    monkeypatch.setitem(sys.modules, "torch", None)
    assert convert.main([str(out), "--to=torch", f"--output={back}"]) == 1
    assert "pip install torch" in capsys.readouterr().err
    assert not back.exists()


def test_errors_have_a_status_and_no_traceback(tmp_path, capsys):
    missing = tmp_path / "nothing.pth"
    assert convert.main([str(missing), f"--output={tmp_path / 'o'}"]) == 1
    captured = capsys.readouterr()
    assert captured.err == f"error: {missing}: no such file: check the path\n"
    with pytest.raises(SystemExit) as caught:
        convert.main([str(missing)])
    assert caught.value.code == 2


@pytest.mark.parametrize("load, key", [
    (backbone_folder.open_backbone, "config.backbone.checkpoint"),
    (load_head, "config.head.checkpoint")])
@pytest.mark.parametrize("name, command", [
    ("x.pth", "convert {path} --output={folder}/x_converted`"),
    ("y.safetensors", "convert {path} --output={folder}/y_converted`"),
    ("z.pth.tar", "convert {path} --output={folder}/z_converted`"),
    ("hugging_face", "convert {path} --output={folder}/hugging_face_converted"),
    ("other", "convert CHECKPOINT --output={folder}/other_converted`"),
    ("missing.pth", "convert CHECKPOINT --output={folder}/missing_converted`"),
    ("missing", "convert CHECKPOINT --output={folder}/missing`")])
def test_what_is_no_converted_folder_is_converted_into_a_new_one(
        tmp_path, name, command, load, key):
    path = tmp_path / name
    if path.suffix and "missing" not in name:
        path.touch()
    elif "missing" not in name:
        path.mkdir()
        (path / ("model.safetensors" if name == "hugging_face" else "notes")
         ).touch()
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert command.format(path=path, folder=tmp_path) in message
    output = re.search(r"--output=(\S+)`", message)[1]
    assert not Path(output).exists() and message.endswith(
        f" and set --{key}={output}")
    assert message.startswith(f"{path}: no ")


def test_a_file_or_folder_of_the_other_type_names_its_key(source, tmp_path):
    out = tmp_path / "out"
    convert.main([str(source), f"--output={out}"])
    with pytest.raises(InputError, match="a converted backbone, not a head: "
                       "it belongs to --config.backbone.checkpoint"):
        load_head(out)
    for name in ("backbone.safetensors", "backbone.json"):
        with pytest.raises(InputError, match="name its folder, "
                           f"--config.backbone.checkpoint={out}$"):
            backbone_folder.open_backbone(out / name)


@pytest.mark.parametrize("is_head, flags, named", [
    (False, ["--public_config=a.yaml"], "--public_config, for a head"),
    (False, ["--no_ema"], "leave out --no_ema, for a head only"),
    (True, ["--dtype=float16"], "leave out --dtype, for a backbone only"),
    (True, ["--verify"], "leave out --verify, for a backbone only"),
    (True, ["--frames=4", "--heads=2"], "--heads, --frames, for a backbone "),
    (True, ["--image_size=8,8"], "--image_size, for a backbone")])
def test_a_flag_for_the_other_type_of_checkpoint_is_refused(
        source, tmp_path, capsys, is_head, flags, named):
    if is_head:
        save_file({"cls_head.cls_head.conv.weight": np.ones(3, np.float32)},
                  source)
    out = tmp_path / "out"
    assert convert.main([str(source), f"--output={out}", *flags]) == 1
    assert f"{source}: holds a" in (error := capsys.readouterr().err)
    assert named in error and not out.exists()


@pytest.mark.parametrize("flag", [
    "--output=out", "--verify", "--dtype=float16", "--public_config=a.yaml"])
def test_inspect_refuses_what_it_would_not_do(source, capsys, flag):
    with pytest.raises(SystemExit, match="2"):
        convert.main([str(source), "--inspect", flag])
    assert "--inspect writes nothing" in capsys.readouterr().err


@pytest.mark.parametrize("text, expected", [
    ("facebook/vjepa2-vitl-fpc64-256", True), ("MCG-NJU/videomae-base", True),
    ("owner/name_1.5", True), ("weights/vitg.pth", False),
    ("weights/a.pth.tar", False), ("a/b.safetensors", False),
    ("./facebook/vjepa2", False), ("/facebook/vjepa2", False),
    ("facebook/vjepa2/x", False), ("facebook/vjepa2/", False),
    ("../vjepa2", False), ("vjepa2", False), ("here/vjepa2", False),
    ("here/there", False), ("owner/a name", False)])
def test_names_of_the_hub_are_no_mistyped_paths(tmp_path, monkeypatch, text,
                                                expected):
    (tmp_path / "here/there").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert is_hub_name(text) == expected


@pytest.mark.parametrize("path", ["weights/vitg.pth", "here/vjepa2"])
def test_a_mistyped_path_does_not_ask_the_hub(tmp_path, monkeypatch, capsys,
                                              path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "losa_jax.weights.hub", None)
    assert convert.main([path, "--output=out"]) == 1
    assert capsys.readouterr().err == (
        f"error: {path}: no such file: check the path\n")
    with pytest.raises(SystemExit, match="2"):
        convert.main([path, "--output=out", "--revision=main"])
    assert "--revision goes with a name of the Hugging Face hub" in (
        capsys.readouterr().err)
    with pytest.raises(SystemExit, match="2"):
        convert.main(["a/b", "--output=x", "--to=torch", "--revision=main"])
    assert "--to=torch takes a converted folder" in capsys.readouterr().err


def test_only_names_of_the_hub_import_its_client(source, tmp_path):
    code = ("import sys; from losa_jax import convert; convert.main("
            f"[{str(source)!r}, '--inspect']); "
            "assert 'huggingface_hub' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True,
                   capture_output=True, cwd=Path(__file__).parents[1])


@pytest.mark.torch
def test_a_folder_of_features_of_pytorch_becomes_npy_files(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    folder, out = tmp_path / "features", tmp_path / "out"
    folder.mkdir()
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    torch.save(torch.from_numpy(rows), folder / "clip1.pt")
    assert convert.main([str(folder / "clip1.pt"), f"--output={out}"]) == 1
    assert "or give the folder of such files if these are features" in (
        capsys.readouterr().err)
    torch.save({"feats": torch.from_numpy(rows).bfloat16()},
               folder / "clip2.pt")
    assert convert.main([str(folder), "--inspect"]) == 0
    assert "2 files of features; the first is float32 (5, 3)" in (
        capsys.readouterr().out)
    assert convert.main([str(folder), f"--output={out}"]) == 0
    assert "--config.features.width=3" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(out / "clip1.npy"), rows)
    np.testing.assert_allclose(np.load(out / "clip2.npy"), rows, rtol=0.01)
    torch.save({"a": torch.ones(2), "b": torch.ones(2)}, folder / "clip3.pt")
    (folder / "clip4.pth").write_bytes(b"")
    for flags, message in (
            ([], "clip3.pt: holds 2 tensors (a, b), not one with the features"),
            (["--dtype=float16"], "holds features: leave out --dtype, for a "
                                  "backbone only")):
        assert convert.main([str(folder), f"--output={out}", *flags]) == 1
        assert message in capsys.readouterr().err
    for content, message in (
            (torch.ones(3), "holds 1 tensor of the shape (3,), not one with"),
            (torch.ones(0, 3), "holds 1 tensor of the shape (0, 3), not one"),
            (torch.tensor(1.0), "holds 1 tensor of the shape (), not one")):
        torch.save(content, folder / "clip3.pt")
        assert convert.main([str(folder), f"--output={out}"]) == 1
        assert f"clip3.pt: {message}" in capsys.readouterr().err
    (folder / "clip3.pt").unlink()
    assert convert.main([str(folder), f"--output={out}"]) == 1
    assert "clip4.pth: not a PyTorch" in capsys.readouterr().err


@pytest.mark.torch
def test_of_a_folder_hidden_files_are_no_features_nor_is_a_model(tmp_path,
                                                                 capsys):
    torch = pytest.importorskip("torch")
    folder, out = tmp_path / "features", tmp_path / "out"
    (folder / "old.pt").mkdir(parents=True)
    torch.save(torch.ones(5, 3), folder / "clip.v1.pt")
    (folder / "._clip.v1.pt").write_bytes(b"\0\x05\x16\x07")
    assert convert.main([str(folder), f"--output={out}"]) == 0
    assert [path.name for path in out.iterdir()] == ["clip.v1.npy"]
    # With the option of a model it is named as one, too.
    model = tmp_path / "model"
    model.mkdir()
    torch.save({"module": {"a": torch.ones(2)}}, model / "vit.pth")
    for flag in (f"--output={out}", "--inspect"):
        assert convert.main([str(model), flag, "--heads=4"]) == 1
        assert "of a model give the file, not its folder" in (
            capsys.readouterr().err)
