"""Checkpoints with other names or missing tensors."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from losa_jax import convert
from losa_jax.errors import InputError
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.weights import backbone_folder
from losa_jax.weights.open_checkpoint import open_checkpoint
from tests.weights.test_checkpoint_file import SPEC, _convert, _state


def _lines(error):
    return [line.strip() for line in str(error.value).splitlines()
            if line.startswith("  ")]


@pytest.mark.parametrize("prefix", ["module.", "encoder.", "model.",
                                    "module.model.", "backbone."])
def test_a_stray_tensor_does_not_hide_the_prefix(tmp_path, prefix):
    state = {prefix + name: array for name, array in _state().items()}
    assert _convert(tmp_path, state)[0] == SPEC
    state["stray"] = np.zeros(3, np.float32)
    del state[f"{prefix}fc_norm.bias"]
    with pytest.raises(InputError) as caught:
        _convert(tmp_path, state)
    assert _lines(caught) == ["missing: fc_norm.bias (12,)",
                              "unexpected: stray (3,)"]


def test_errors_name_the_tensors_as_in_the_file(tmp_path):
    state = {f"module.{name}": array for name, array in _state().items()}
    state["module.blocks.1.norm1.bias"] = np.zeros(11, np.float32)
    del state["module.blocks.2.mlp.fc1.weight"]
    with pytest.raises(InputError) as caught:
        _convert(tmp_path, state)
    assert _lines(caught) == [
        "missing: blocks.2.mlp.fc1.weight (in the file: "
        "module.blocks.2.mlp.fc1.weight) (48, 12)".replace("48", "20"),
        "wrong shape: blocks.1.norm1.bias (in the file: "
        "module.blocks.1.norm1.bias) is (11,), should be (12,)"]


def test_two_tensors_of_one_name_are_refused(tmp_path):
    state = _state()
    state |= {f"module.{name}": array for name, array in state.items()}
    with pytest.raises(InputError, match="both become"):
        _convert(tmp_path, state)


def test_heads_are_inferred_from_cosine_attention(tmp_path):
    spec = VideoMaeSpec(**{**vars(SPEC), "cosine_attention": True, "heads": 3})
    path = tmp_path / "source.safetensors"
    save_file(_state(spec), path)
    converted = backbone_folder.convert_backbone(
        path, tmp_path / "out", clip_frames=4, image_size=(8, 8))
    assert converted == spec


def test_frames_are_inferred_from_learned_positions(tmp_path):
    spec = VideoMaeSpec(**{**vars(SPEC), "positions": "learned",
                      "image_size": (8, 12)})
    path = tmp_path / "source.safetensors"
    save_file(_state(spec), path)
    converted = backbone_folder.convert_backbone(
        path, tmp_path / "out", heads=2, image_size=(8, 12))
    assert converted == spec


def test_a_wrong_position_table_is_one_error_among_others(tmp_path):
    state = _state()
    state["pos_embed"] = np.zeros((1, 7, 12), np.float32)
    state["head.bias"][0] = np.nan
    with pytest.raises(InputError) as caught:
        path = tmp_path / "source.safetensors"
        save_file(state, path)
        backbone_folder.convert_backbone(path, tmp_path / "out", heads=2)
    assert len(_lines(caught)) == 2
    assert _lines(caught)[0].startswith("wrong shape: pos_embed is (1, 7, ")


@pytest.mark.parametrize("shape, blamed", [
    ((12, 5), "head.weight"), ((), "head.weight")])
def test_a_misshapen_classifier_is_reported(tmp_path, shape, blamed):
    state = _state()
    state["head.weight"] = np.zeros(shape, np.float32)
    with pytest.raises(InputError) as caught:
        _convert(tmp_path, state)
    [line] = _lines(caught)
    assert line.startswith(f"wrong shape: {blamed} is {shape}, should be "
                           "(5, 12)")


def test_a_stray_gamma_is_unexpected(tmp_path):
    state = _state()
    state["blocks.0.gamma_1"] = np.zeros(12, np.float32)
    with pytest.raises(InputError) as caught:
        _convert(tmp_path, state)
    assert _lines(caught) == ["unexpected: blocks.0.gamma_1 (12,)"]


def test_a_classifier_without_its_norm_is_reported(tmp_path):
    state = _state()
    del state["fc_norm.weight"], state["fc_norm.bias"]
    with pytest.raises(InputError) as caught:
        _convert(tmp_path, state)
    assert [line.split(" (")[0] for line in _lines(caught)] == [
        "missing: fc_norm.weight", "missing: fc_norm.bias"]


@pytest.fixture
def hugging_face(shared_dir, tmp_path):
    from safetensors.numpy import load_file

    source = shared_dir / "data/parity/hf_videomae_tiny"
    facts = json.loads((source / "config.json").read_text())
    state = load_file(source / "model.safetensors")
    folder = tmp_path / "hf"
    folder.mkdir()

    def write(**changes):
        (folder / "config.json").write_text(json.dumps({**facts, **changes}))
        save_file(state, folder / "model.safetensors")
        return folder

    [prefix] = {name.removesuffix("query.weight") for name in state
                if name.endswith("layer.0.attention.attention.query.weight")}
    return write, state, prefix


@pytest.mark.shared
def test_hugging_face_attention_of_unequal_parts(hugging_face, tmp_path):
    write, state, prefix = hugging_face
    width = state[f"{prefix}query.weight"].shape[1]
    state[f"{prefix}query.weight"] = np.zeros((width - 1, width), np.float32)
    state[f"{prefix}key.weight"] = np.zeros((width + 1, width), np.float32)
    with pytest.raises(InputError) as caught:
        backbone_folder.convert_backbone(write(), tmp_path / "out")
    assert len(_lines(caught)) == 2
    assert f"(in the file: {prefix}query.weight)" in _lines(caught)[0]


@pytest.mark.shared
def test_a_missing_query_is_reported_by_its_name_in_the_file(
        hugging_face, tmp_path):
    write, state, prefix = hugging_face
    del state[f"{prefix}query.weight"]
    with pytest.raises(InputError) as caught:
        backbone_folder.convert_backbone(write(), tmp_path / "out")
    [line] = _lines(caught)
    assert line.startswith("missing: ") and f"{prefix}query.weight" in line


@pytest.mark.shared
def test_a_zero_key_bias_is_dropped_and_another_refused(hugging_face,
                                                        tmp_path):
    write, state, prefix = hugging_face
    width = len(state[f"{prefix}query.weight"])
    state[f"{prefix}key.bias"] = np.zeros(width, np.float32)
    folder = write()
    backbone_folder.convert_backbone(folder, tmp_path / "out")
    assert any("is zero" in note for note in open_checkpoint(folder).notes)
    state[f"{prefix}key.bias"][0] = 1
    with pytest.raises(InputError, match="unexpected: .*key.bias"):
        backbone_folder.convert_backbone(write(), tmp_path / "out")


@pytest.mark.shared
def test_a_query_bias_under_two_names_is_refused(hugging_face, tmp_path):
    write, state, prefix = hugging_face
    width = len(state[f"{prefix}query.weight"])
    for name in ("q_bias", "query.bias"):
        state[prefix + name] = np.ones(width, np.float32)
    with pytest.raises(InputError, match="both become blocks.0.attn.q_bias"):
        backbone_folder.convert_backbone(write(), tmp_path / "out")


@pytest.mark.shared
def test_hugging_face_sizes_and_activations(hugging_face, tmp_path):
    write, _, _ = hugging_face
    size = json.loads((write() / "config.json").read_text())["image_size"]
    spec = backbone_folder.convert_backbone(write(image_size=[size, size]),
                                    tmp_path / "out")
    assert spec.image_size == (size, size)
    with pytest.raises(InputError, match="hidden_act='relu'"):
        backbone_folder.convert_backbone(write(hidden_act="relu"),
                                         tmp_path / "out")


def test_inspect_prints_what_it_can_infer(tmp_path, capsys):
    path = tmp_path / "source.safetensors"
    save_file(_state(), path)
    assert convert.main([str(path), "--inspect"]) == 0
    assert "give the number of attention heads" in capsys.readouterr().out
    assert convert.main([str(path), "--inspect", "--heads=2", "--frames=4",
                         "--image_size=8,8"]) == 0
    text = capsys.readouterr().out
    assert "VideoMAEv2 names" in text and "float32" in text
    assert "what it is: 3 blocks of width 12" in text


def test_commands_that_do_not_fit_are_refused(tmp_path, capsys):
    path = tmp_path / "source.safetensors"
    save_file(_state(), path)
    options = ["--heads=2", "--frames=4", "--image_size=8,8"]
    assert convert.main([str(path), f"--output={tmp_path / 'out'}",
                         *options]) == 0
    capsys.readouterr()
    assert convert.main([str(tmp_path / "out"), "--inspect"]) == 1
    assert "converted already" in capsys.readouterr().err
    for extra in (["--inspect"], ["--verify", "--output=x"], []):
        with pytest.raises(SystemExit, match="2"):
            convert.main([str(tmp_path / "out"), "--to=torch", *extra])
    bad = tmp_path / "new/dir/out"
    assert convert.main([str(path), f"--output={bad}"]) == 1
    assert convert.main([str(path), f"--output={bad}", *options[:1],
                         "--frames=4", "--image_size=16,16"]) == 0


def test_a_failure_leaves_no_folders(tmp_path):
    state = _state()
    del state["head.bias"]
    path = tmp_path / "source.safetensors"
    save_file(state, path)
    assert convert.main([str(path), f"--output={tmp_path}/new/dir/out",
                         "--heads=2"]) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["source.safetensors"]


@pytest.mark.torch
def test_pth_files_keep_what_no_tensor_shows(tmp_path):
    torch = pytest.importorskip("torch")
    spec = VideoMaeSpec(**{**vars(SPEC), "norm_epsilon": 1e-12,
                      "final_norm_epsilon": 1e-5})
    path = tmp_path / "source.safetensors"
    rng = np.random.default_rng(0)
    from losa_jax.weights.name_table import expected_shapes
    backbone_folder.save_source(path, spec, {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in expected_shapes(spec).items()})
    with safe_open(path, "pt") as file:
        torch.save({"module": {name: file.get_tensor(name)
                               for name in file.keys()},  # noqa: SIM118
                    **file.metadata()}, tmp_path / "stored.pth")
    assert spec == backbone_folder.convert_backbone(
        tmp_path / "stored.pth", tmp_path / "again")


@pytest.mark.torch
def test_nested_wrappers(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array)
             for name, array in _state().items()}
    path = tmp_path / "nested.pth"
    torch.save({"epoch": 3, "state_dict": {"module": state}}, path)
    spec = backbone_folder.convert_backbone(path, tmp_path / "out", heads=2,
                                    clip_frames=4, image_size=(8, 8))
    assert spec == SPEC


def test_damaged_metadata_is_refused(tmp_path):
    path = tmp_path / "source.safetensors"
    save_file(_state(), path, metadata={"losa_jax": "{}"})
    with pytest.raises(InputError, match="losa_jax metadata is damaged"):
        open_checkpoint(path)
