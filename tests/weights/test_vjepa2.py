"""Checkpoints of V-JEPA 2: sizes, layouts, and what is refused."""

import json
import math
import pickle
import re
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from losa_jax import convert
from losa_jax.errors import InputError
from losa_jax.models.backbones.vjepa2 import SIZES, VJepa2Spec
from losa_jax.weights import backbone_folder, videomae, vjepa2
from losa_jax.weights.name_table import expected_shapes, expected_source
from losa_jax.weights.open_checkpoint import open_checkpoint
from losa_jax.weights.torch_pickle import Tensor

SPEC = VJepa2Spec(width=24, depth=3, heads=2, mlp_width=40, patch=8,
                  clip_frames=8, image_size=(16, 24), num_classes=4,
                  probe_depth=2, probe_heads=3, probe_blocks=(0, 2),
                  probe_norm_epsilon=1e-6)


def _unread(spec):
    return {name: Tensor(Path(), place.shape, np.dtype(np.float32),
                         lambda: pytest.fail("tensors are not read"))
            for name, place in expected_source(spec).items()}


def _params(spec):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32)
            for name, shape in expected_shapes(spec).items()}


@pytest.mark.parametrize("name, count", [
    ("vjepa2_l", 303_885_312), ("vjepa2_h", 631_648_000),
    ("vjepa2_g", 1_012_173_952), ("vjepa21_b", 86_833_152),
    ("vjepa21_l", 304_680_960), ("vjepa21_g", 1_013_267_968),
    ("vjepa21_gigantic", 1_845_216_768)])
def test_public_sizes_are_inferred_and_have_their_parameters(name, count):
    spec = VJepa2Spec(**SIZES[name])
    assert sum(map(math.prod, expected_shapes(spec).values())) == count
    got = vjepa2.infer_spec(_unread(spec))
    side = 384 if spec.version == "2.1" else 256
    assert got == VJepa2Spec(**SIZES[name], image_size=(side, side))
    assert vjepa2.describe(got).startswith(f"{name}: V-JEPA {spec.version}, ")
    wrong = spec.heads // 2
    with pytest.raises(InputError, match=f"{wrong} heads, but .* blocks has "
                                         f"{spec.heads}: leave out --heads"):
        vjepa2.infer_spec(_unread(spec), heads=wrong)


def test_the_same_width_has_other_heads_in_another_family():
    assert vjepa2.infer_spec(_unread(VJepa2Spec(
        width=1408, depth=2, heads=22, mlp_width=6144))).heads == 22
    assert videomae.HEADS_OF_WIDTH[1408] == 16


@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone."])
def test_one_message_lists_all_that_does_not_fit(tmp_path, prefix):
    backbone_folder.save_source(tmp_path / "whole.safetensors", SPEC,
                                _params(SPEC))
    state = {prefix + name: array for name, array in
             load_file(tmp_path / "whole.safetensors").items()}
    state[f"{prefix}blocks.1.norm1.bias"] = np.zeros(23, np.float32)
    state["stray"] = np.zeros(3, np.float32)
    del state[f"{prefix}blocks.2.mlp.fc1.weight"]
    del state[f"{prefix}pooler.cross_attention_block.xattn.q.bias"]
    save_file(state, tmp_path / "source.safetensors")
    with pytest.raises(InputError) as caught:
        backbone_folder.convert_backbone(
            tmp_path / "source.safetensors", tmp_path / "out", heads=2,
            probe_heads=3)
    message = str(caught.value)
    for line in ("4 tensors do not fit", "unexpected: stray",
                 "missing: blocks.2.mlp.fc1.weight",
                 "missing: pooler.cross_attention_block.xattn.q.bias",
                 "wrong shape: blocks.1.norm1.bias"):
        assert line in message
    assert not (tmp_path / "out").exists()


def test_what_no_tensor_shows_is_stored_by_the_way_back(tmp_path):
    backbone_folder.save_source(tmp_path / "a.safetensors", SPEC,
                                _params(SPEC))
    assert backbone_folder.convert_backbone(
        tmp_path / "a.safetensors", tmp_path / "a") == SPEC
    command = [str(tmp_path / "a"), "--to=torch",
               f"--output={tmp_path / 'b.safetensors'}"]
    assert convert.main(command) == 0
    assert backbone_folder.convert_backbone(
        tmp_path / "b.safetensors", tmp_path / "b") == SPEC
    first, second = (load_file(tmp_path / f"{name}.safetensors")
                     for name in "ab")
    assert set(first) == set(second)
    assert all(first[name].tobytes() == second[name].tobytes()
               for name in first)


def test_an_image_transformer_is_no_vjepa2(tmp_path):
    state = {f"blocks.0.attn.qkv.{name}": np.zeros(shape, np.float32)
             for name, shape in (("weight", (36, 12)), ("bias", (36,)))}
    state["cls_token"] = np.zeros((1, 1, 12), np.float32)
    save_file(state, tmp_path / "image.safetensors")
    with pytest.raises(InputError, match="no VideoMAE, .* or V-JEPA 2 encoder; "
                                         "the file begins with blocks.0"):
        backbone_folder.convert_backbone(tmp_path / "image.safetensors",
                                         tmp_path / "out")


def test_blocks_that_are_cut_off_are_named_for_version_21(tmp_path):
    spec = VJepa2Spec(width=24, depth=12, heads=2, mlp_width=40, patch=8,
                      version="2.1")
    backbone_folder.save_source(tmp_path / "a.safetensors", spec,
                                _params(spec))
    state = load_file(tmp_path / "a.safetensors")
    save_file({name: array for name, array in state.items()
               if ".11." not in name}, tmp_path / "cut.safetensors")
    with pytest.raises(InputError, match="cut.safetensors: 11 blocks, but "
                       "V-JEPA 2.1 has 12, 24, 40, 48: blocks are missing"):
        backbone_folder.convert_backbone(tmp_path / "cut.safetensors",
                                         tmp_path / "out", heads=2)


def test_options_of_a_classifier_without_one_are_refused(tmp_path):
    spec = VJepa2Spec(width=24, depth=2, heads=2, mlp_width=40, patch=8)
    backbone_folder.save_source(tmp_path / "a.safetensors", spec,
                                _params(spec))
    for options in ({"probe_heads": 3}, {"probe_blocks": (0, 1)}):
        with pytest.raises(InputError, match=f"{next(iter(options))} has no "
                           "effect on .*; no classifier: leave it out"):
            backbone_folder.convert_backbone(
                tmp_path / "a.safetensors", tmp_path / "out", **options)


@pytest.mark.parametrize("content", [
    {"classifiers": [3]}, {"classifiers": []}, {"classifiers": [{}]}, [1], 2])
def test_a_file_of_something_else_is_no_probe(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "probe.pt", "w") as archive:
        archive.writestr("probe/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("probe/byteorder", "little")
    with pytest.raises(InputError, match="probe.pt: no attentive probe; .*: "
                                         "give one of Meta's probe files"):
        vjepa2.probe_tensors(tmp_path / "probe.pt")


@pytest.fixture
def hugging_face(shared_dir, tmp_path):
    source = shared_dir / "data/parity/hf_vjepa2_tiny"
    facts = json.loads((source / "config.json").read_text())
    state = load_file(source / "model.safetensors")
    (tmp_path / "hf").mkdir()

    def write(changes):
        (tmp_path / "hf/config.json").write_text(json.dumps(facts | changes))
        save_file(state, tmp_path / "hf/model.safetensors")
        return tmp_path / "hf"

    return write, state


@pytest.mark.shared
@pytest.mark.parametrize("changes, message", [
    ({"model_type": "videomae"}, "model_type='videomae', but the tensors "
                                 "beside it are those of V-JEPA 2"),
    ({"hidden_act": "silu"}, "hidden_act='silu'.* with 'gelu'"),
    ({"num_attention_heads": 5}, "5 heads do not divide the width 36"),
    ({"crop_size": None}, "config.json: not the config of a V-JEPA 2 model .*"
                          "None is no number.* put the config.json of"),
    ({"num_attention_heads": "3"}, "'3' is no number of 1 or more"),
    ({"frames_per_clip": 7}, "clip_frames=7 cannot be cut into tubelets")])
def test_a_config_that_does_not_fit_is_refused(hugging_face, tmp_path, changes,
                                               message):
    write, _ = hugging_face
    with pytest.raises(InputError, match=message):
        backbone_folder.convert_backbone(write(changes), tmp_path / "out")


@pytest.mark.shared
def test_a_missing_config_is_named_with_the_remedy(hugging_face, tmp_path):
    write, _ = hugging_face
    folder = write({})
    for text in ("[1]", None):
        if text is None:
            (folder / "config.json").unlink()
        else:
            (folder / "config.json").write_text(text)
        with pytest.raises(InputError, match="hf/config.json: .* put the "
                           "config.json of the same model beside the weights"):
            backbone_folder.convert_backbone(folder, tmp_path / "out")


@pytest.mark.shared
def test_parts_of_several_dtypes_are_joined_in_float32(hugging_face, tmp_path):
    write, state = hugging_face
    for name, dtype in (("query", np.float16), ("key", ml_dtypes.bfloat16)):
        name = f"vjepa2.encoder.layer.1.attention.{name}.weight"
        state[name] = state[name].astype(dtype)
    checkpoint = open_checkpoint(write({}))
    joined = checkpoint.tensors["blocks.1.attn.qkv.weight"]
    assert joined.dtype == joined.read().dtype == np.float32
    np.testing.assert_array_equal(
        joined.read()[:36], state["vjepa2.encoder.layer.1.attention.query"
                                  ".weight"].astype(np.float32))


@pytest.mark.shared
def test_a_missing_query_is_reported_by_its_name_in_the_file(hugging_face,
                                                             tmp_path):
    write, state = hugging_face
    name = "vjepa2.encoder.layer.1.attention.query.bias"
    del state[name], state["pooler.cross_attention_layer.cross_attn.k_proj"
                           ".weight"]
    with pytest.raises(InputError) as caught:
        backbone_folder.convert_backbone(write({}), tmp_path / "out")
    assert f"missing: blocks.1.attn.query.bias (in the file: {name})" in str(
        caught.value)
    assert "missing: pooler.cross_attention_block.xattn.k.weight" in str(
        caught.value)
    assert "2 tensors do not fit" in str(caught.value)


@pytest.mark.shared
@pytest.mark.parametrize("source, options, message", [
    ("vjepa2_tiny_probe.pt", (), "these are attentive probes: give the "
                                 "checkpoint of their encoder"),
    ("vjepa2_tiny_meta.pt", ("--heads=3", "--probe=PROBE"),
     "Meta's 16 do not divide the width 36: give --probe_heads=N"),
    ("vjepa2_tiny_meta.pt", ("--heads=3", "--probe=ENCODER"),
     "no attentive probe; it begins with encoder"),
    ("hf_vjepa2_tiny", ("--probe=PROBE",), "linear.bias is in the checkpoint "
                                           "too: leave out --probe"),
    ("hf_videomae_tiny", ("--probe=PROBE",), "a VideoMAE checkpoint takes no "
                                             "probe"),
    ("hf_videomae_tiny", ("--probe_heads=2",), "probe_heads cannot be chosen "
                                               "for VideoMAE"),
    ("vjepa2_tiny_meta.pt", (), "width 36 is none of V-JEPA 2's"),
    ("vjepa2_tiny_meta.pt", ("--heads=5",), "5 heads do not divide"),
    ("vjepa2_tiny_meta.pt", ("--heads=3", "--frames=5"),
     "clip_frames=5 cannot be cut into tubelets of 2"),
    ("vjepa2_tiny_meta.pt", ("--heads=3", "--probe=PROBE", "--probe_heads=2",
                             "--probe_blocks=1,4"),
     "probe_blocks=.* must ascend and be blocks with a final norm, of 0, 1")])
def test_options_that_do_not_fit_are_refused(shared_dir, tmp_path, capsys,
                                             source, options, message):
    folder = shared_dir / "data/parity"
    options = [option.replace("PROBE", str(folder / "vjepa2_tiny_probe.pt"))
               .replace("ENCODER", str(folder / "vjepa2_tiny_meta.pt"))
               for option in options]
    assert convert.main([str(folder / source), f"--output={tmp_path / 'out'}",
                         *options]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.shared
def test_the_moving_average_is_preferred(shared_dir):
    checkpoint = open_checkpoint(shared_dir
                                 / "data/parity/vjepa2_tiny_meta.pt")
    assert checkpoint.notes[:2] == (
        "state dict under 'target_encoder'",
        "entries of the file that are not read: encoder, predictor, opt")
