"""Conversion of checkpoints with unusual wrappers, dtypes and errors."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from losa_jax import convert
from losa_jax.errors import InputError
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import expected_shapes, source_tensors
from losa_jax.weights.open_checkpoint import open_checkpoint

SPEC = VideoMaeSpec(width=12, depth=3, heads=2, mlp_width=20, patch=4,
                    clip_frames=4, image_size=(8, 8), num_classes=5)


def _state(spec=SPEC):
    rng = np.random.default_rng(0)
    return source_tensors(spec, {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in
        expected_shapes(spec).items()})


def _convert(tmp_path, state, **options):
    path = tmp_path / "source.safetensors"
    save_file(state, path)
    backbone_folder.convert_backbone(
        path, tmp_path / "out", heads=2, clip_frames=4, image_size=(8, 8),
        **options)
    return backbone_folder.open_backbone(tmp_path / "out")


@pytest.mark.parametrize("missing", [
    "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight",
    "blocks.2.norm1.weight", "fc_norm.weight", "head.weight"])
def test_all_errors_are_reported_whichever_tensor_is_missing(
        tmp_path, missing):
    state = _state()
    del state[missing]
    state["blocks.3.norm1.weight"] = np.ones(12, np.float32)
    state["blocks.1.norm1.bias"] = np.zeros(11, np.float32)
    state["blocks.2.norm2.bias"][3] = np.nan
    with pytest.raises(InputError) as caught:
        _convert(tmp_path, state)
    lines = [line.strip() for line in str(caught.value).splitlines()
             if line.startswith("  ")]
    assert len(lines) == 4
    assert lines[0].startswith(f"missing: {missing} ")
    assert lines[1:] == [
        "unexpected: blocks.3.norm1.weight (12,)",
        "wrong shape: blocks.1.norm1.bias is (11,), should be (12,)",
        "not finite: blocks.2.norm2.bias, 1 of 12 values as float32"]
    assert [p.name for p in tmp_path.iterdir()] == ["source.safetensors"]


def test_a_misshapen_patch_embedding_is_reported(tmp_path):
    state = _state()
    state["patch_embed.proj.weight"] = np.zeros((12, 3, 4, 4), np.float32)
    with pytest.raises(InputError, match="wrong shape: patch_embed.proj.we"):
        _convert(tmp_path, state)


def test_one_missing_gamma_is_reported(tmp_path):
    spec = VideoMaeSpec(**{**vars(SPEC), "layer_scale": True})
    state = _state(spec)
    del state["blocks.0.gamma_1"]
    with pytest.raises(InputError, match=r"1 tensors.*\n.*missing: "
                                         r"blocks.0.gamma_1 \(12,\)"):
        _convert(tmp_path, state)


def test_each_parameter_keeps_its_own_dtype(tmp_path):
    """Half-precision matrices with full-precision norms stay exact."""
    state = {name: array.astype(np.float16) if array.ndim > 1 else array
             for name, array in _state().items()}
    _, got, _ = _convert(tmp_path, state)
    assert got["blocks/attn/qkv/kernel"].dtype == np.float16
    np.testing.assert_array_equal(got["blocks/norm1/scale"][1],
                                  state["blocks.1.norm1.weight"])
    back = source_tensors(SPEC, got)
    for name, array in state.items():
        assert back[name].dtype == array.dtype
        assert back[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("dtype, options, message", [
    (np.float16, {}, "norm1/scale would not be exact.*is float16.*float32"),
    (np.int64, {"dtype": "float32"}, "wrong type: .*weight is int64"),
])
def test_dtypes_that_would_not_be_exact_are_reported(
        tmp_path, dtype, options, message):
    state = _state()
    state["blocks.1.norm1.weight"] = np.ones(12, dtype)
    with pytest.raises(InputError, match=message):
        _convert(tmp_path, state, **options)


@pytest.mark.parametrize("prefix", ["encoder.", "module.encoder."])
def test_decoders_are_dropped_inside_any_wrapper(tmp_path, prefix):
    state = {prefix + name: array for name, array in _state().items()}
    outer = prefix.removesuffix("encoder.")
    state[f"{outer}decoder.norm.weight"] = np.zeros(4, np.float32)
    state[f"{outer}encoder_to_decoder.weight"] = np.zeros((4, 12), np.float32)
    state[f"{outer}mask_token"] = np.zeros((1, 1, 4), np.float32)
    assert _convert(tmp_path, state)[0] == SPEC
    notes = open_checkpoint(tmp_path / "source.safetensors").notes
    assert any("3 tensors of its decoder" in note for note in notes)


@pytest.fixture
def hugging_face(shared_dir, tmp_path):
    """A copy of the fixture to change: (folder, its tensors)."""
    from safetensors.numpy import load_file

    folder = tmp_path / "hf"
    folder.mkdir()
    source = shared_dir / "data/parity/hf_videomae_tiny"
    (folder / "config.json").write_text((source / "config.json").read_text())
    return folder, load_file(source / "model.safetensors")


@pytest.mark.shared
def test_the_decoder_of_a_hugging_face_folder_is_dropped(
        hugging_face, tmp_path):
    folder, state = hugging_face
    state["decoder.norm.weight"] = np.zeros(4, np.float32)
    state["mask_token"] = np.zeros((1, 1, 4), np.float32)
    save_file(state, folder / "model.safetensors")
    spec = backbone_folder.convert_backbone(folder, tmp_path / "out")
    assert (spec.depth, spec.heads) == (2, 4)


@pytest.mark.shared
def test_the_config_beside_a_hugging_face_file_is_read(hugging_face, tmp_path):
    """Heads and epsilons are the same, folder or file named."""
    folder, state = hugging_face
    path = folder / "model.safetensors"
    save_file(state, path)
    spec = backbone_folder.convert_backbone(path, tmp_path / "out")
    assert spec == backbone_folder.convert_backbone(folder, tmp_path / "again")
    assert spec.final_norm_epsilon == 1e-5
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="config.json"):
        backbone_folder.convert_backbone(path, tmp_path / "out")


@pytest.mark.shared
def test_a_missing_last_layer_is_reported(hugging_face, tmp_path):
    folder, state = hugging_face
    save_file({name: array for name, array in state.items()
               if ".layer.1." not in name}, folder / "model.safetensors")
    with pytest.raises(InputError, match="missing: blocks.1.norm1.weight"):
        backbone_folder.convert_backbone(folder, tmp_path / "out")


@pytest.mark.shared
@pytest.mark.torch
def test_a_hugging_face_bin_is_read(hugging_face, tmp_path):
    torch = pytest.importorskip("torch")
    folder, state = hugging_face
    torch.save({name: torch.from_numpy(array)
                for name, array in state.items()},
               folder / "pytorch_model.bin")
    backbone_folder.convert_backbone(folder, tmp_path / "out")
    _, got, _ = backbone_folder.open_backbone(tmp_path / "out")
    np.testing.assert_array_equal(got["classifier/bias"],
                                  state["classifier.bias"])


@pytest.mark.shared
@pytest.mark.parametrize("lost", [None, "model-00002-of-00002.safetensors"])
def test_a_hugging_face_folder_of_several_files_is_read(
        hugging_face, tmp_path, lost):
    folder, state = hugging_face
    names = sorted(state)
    parts = {f"model-0000{i}-of-00002.safetensors": names[i - 1::2]
             for i in (1, 2)}
    for part, held in parts.items():
        save_file({name: state[name] for name in held}, folder / part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({
        "metadata": {}, "weight_map": {
            name: part for part, held in parts.items() for name in held}}))
    if lost:
        (folder / lost).unlink()
        with pytest.raises(InputError, match=f"{lost}: no such file"):
            backbone_folder.convert_backbone(folder, tmp_path / "out")
        return
    backbone_folder.convert_backbone(folder, tmp_path / "parts")
    save_file(state, folder / "model.safetensors")
    backbone_folder.convert_backbone(folder, tmp_path / "whole")
    first, second = (
        (tmp_path / name / backbone_folder.ARRAYS_FILE).read_bytes()
        for name in ("parts", "whole"))
    assert first == second


def test_an_index_of_files_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({
        "weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(InputError,
                       match="secret.safetensors.*, not files beside it"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(InputError, match="not an index"):
        open_checkpoint(tmp_path)


def test_opentad_names_are_renamed(tmp_path):
    """mmaction2's classifier checkpoints: backbone.* beside cls_head.*."""
    state = _state()
    _convert(tmp_path, state)
    want = (tmp_path / "out" / backbone_folder.ARRAYS_FILE).read_bytes()
    renamed = {}
    for name, array in state.items():
        name = (name.replace("patch_embed.proj.", "patch_embed.projection.")
                .replace("mlp.fc1.", "mlp.layers.0.0.")
                .replace("mlp.fc2.", "mlp.layers.1."))
        name = f"backbone.{name}" if not name.startswith("head.") else (
            name.replace("head.", "cls_head.fc_cls."))
        renamed[name] = array
    assert _convert(tmp_path, renamed)[0] == SPEC
    assert (tmp_path / "out" / backbone_folder.ARRAYS_FILE).read_bytes() == want


def test_epsilons_survive_the_public_layout(tmp_path):
    spec = VideoMaeSpec(**{**vars(SPEC), "norm_epsilon": 1e-12,
                      "final_norm_epsilon": 1e-5})
    rng = np.random.default_rng(0)
    path = tmp_path / "source.safetensors"
    backbone_folder.save_source(path, spec, {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in
        expected_shapes(spec).items()})
    hints = open_checkpoint(path).hints
    assert hints["norm_epsilon"] == 1e-12
    assert hints["final_norm_epsilon"] == 1e-5
    assert backbone_folder.convert_backbone(path, tmp_path / "out") == spec


@pytest.mark.parametrize("options, message", [
    (["--heads=5"], "5 heads do not divide the width 12"),
    (["--heads=2", "--frames=7"], "7 frames"),
    (["--heads=2", "--frames=4", "--image_size=9,8"], "do not fill"),
])
def test_sizes_that_do_not_fit_are_refused(tmp_path, capsys, options,
                                           message):
    path = tmp_path / "source.safetensors"
    save_file(_state(), path)
    output = tmp_path / "out"
    assert convert.main([str(path), f"--output={output}", *options]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_files_of_the_user_are_not_overwritten(tmp_path, capsys):
    _convert(tmp_path, _state())
    notes = tmp_path / "out" / "notes.txt"
    notes.write_text("years of work")
    with pytest.raises(InputError, match="no converted backbone"):
        _convert(tmp_path, _state())
    assert notes.read_text() == "years of work"
    precious = tmp_path / "precious.safetensors"
    precious.write_text("weights")
    assert convert.main([str(tmp_path / "out"), "--to=torch",
                         f"--output={precious}"]) == 1
    assert precious.read_text() == "weights"
    assert "exists" in capsys.readouterr().err


def test_loaded_arrays_are_memory_mapped(tmp_path):
    """Nothing is read before it is used, and nothing can be changed."""
    _, got, _ = _convert(tmp_path, _state())
    for array in got.values():
        assert not array.flags.writeable and not array.flags.owndata
        assert array.flags.aligned
