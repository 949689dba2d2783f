"""A second family of backbones works everywhere, except where VideoMAE is
required."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import quick
from losa_jax import convert
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.inference.extractor import clip_extractor, token_extractor
from losa_jax.models.backbones import BACKBONES
from losa_jax.models.backbones.base import BackboneFamily
from losa_jax.training import build
from losa_jax.training.encoder import encoder_inputs
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import (
    FAMILIES,
    expected_shapes,
    source_tensors,
)
from losa_jax.weights.open_checkpoint import open_checkpoint
from tests import toy_family
from tests.models.backbones.contract import check_family

SPEC = toy_family.ToySpec(width=16, depth=4)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(BACKBONES, "toy", BackboneFamily(
        toy_family.ToySpec, toy_family.Toy))
    monkeypatch.setitem(FAMILIES, "toy", toy_family)


def _state():
    rng = np.random.default_rng(0)
    return source_tensors(SPEC, {
        name: rng.normal(0, 0.2, shape).astype(np.float32)
        for name, shape in expected_shapes(SPEC).items()})


@pytest.fixture
def config(tmp_path):
    save_file(_state(), tmp_path / "toy.safetensors")
    backbone_folder.convert_backbone(tmp_path / "toy.safetensors",
                                     tmp_path / "toy")
    config = quick.get_config()
    config.backbone.update(checkpoint=str(tmp_path / "toy"), width=16,
                           depth=4, heads=0)
    config.augment.size = 16
    config.window.update(samples=32, tokens=32, clip_samples=8)
    config.head.update(width=16, num_levels=2, num_stem_blocks=1,
                       num_embedding_convs=1, head_layers=1)
    config.adapter.update(width=8, num_taps=2, tap_grid=(1, 2))
    return config


def _mesh():
    return sharding.make_mesh((1, 1, 1), jax.devices()[:1])


def test_the_contract(tmp_path):
    check_family(SPEC, tmp_path)


def test_parts_and_wrappers_of_its_own(tmp_path, capsys):
    state = {}
    for name, array in _state().items():
        first, second = np.split(array, 2) if "both" in name else (array, None)
        state[f"module.{name.replace('both', 'first')}"] = first.copy()
        if second is not None:
            state[f"module.{name.replace('both', 'second')}"] = second.copy()
    save_file(state, tmp_path / "parts.safetensors")
    checkpoint = open_checkpoint(tmp_path / "parts.safetensors")
    assert checkpoint.family == "toy"
    for name, array in _state().items():
        np.testing.assert_array_equal(checkpoint.tensors[name].read(), array)
    command = [str(tmp_path / "parts.safetensors"),
               f"--output={tmp_path / 'out'}"]
    assert convert.main([*command, "--verify", "--frames=6"]) == 0
    shown = capsys.readouterr().out
    assert "4 blocks of width 16" in shown
    assert "verified: 10 tensors equal" in shown
    assert backbone_folder.open_backbone(tmp_path / "out")[0].clip_frames == 6
    facts = json.loads((tmp_path / "out/backbone.json").read_text())
    assert facts["family"] == "toy" and facts["pixel_std"] == [255.0] * 3
    assert convert.main([*command, "--heads=2"]) == 1
    assert "heads cannot be chosen for Toy" in capsys.readouterr().err
    del state["module.layers.1.second.weight"]
    save_file(state, tmp_path / "parts.safetensors")
    assert convert.main(command) == 1
    assert ("missing: layers.1.second.weight (in the file: "
            "module.layers.1.second.weight) (16, 16)"
            ) in capsys.readouterr().err


def test_windows_of_clips_of_another_length_are_encoded(config):
    model = build.build_model(config, 3, _mesh())
    assert model.spec.clip_frames == 8 and model.tap_layers == (2, 3)
    frames = jnp.asarray(np.random.default_rng(0).integers(
        0, 256, (2, 32, 16, 16, 3), np.uint8))
    features = model.encode(model.frozen, model.trained,
                            encoder_inputs({"frames": frames}), None, None)
    assert features.last.shape == (2, 4, 4, 16)
    assert features.taps.shape == (2, 2, 4, 4, 1, 2, 16)
    backbone = backbone_folder.load_backbone(config.backbone.checkpoint)
    alone = backbone.features(frames[1, 8:16][None])
    np.testing.assert_allclose(features.last[1, 1], alone.last[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["tia", "full"])
def test_adapters_inside_another_backbone_are_refused(config, kind):
    config.adapter.kind = kind
    with pytest.raises(InputError, match=f"adapter.kind={kind} .* is a toy"):
        build.build_model(config, 3, _mesh())


def test_sizes_that_do_not_fit_the_config_are_refused(config):
    config.window.clip_samples = 1
    with pytest.raises(InputError, match="^config.window.clip_samples=1"):
        build.build_model(config, 3, _mesh())
    config.backbone.update(name="vit_s", width=0, depth=0)
    with pytest.raises(InputError, match="family=videomae .vit_s.*family=toy"):
        build.build_model(config, 3, _mesh())


def test_tokens_are_extracted_and_clips_refused(config):
    with pytest.raises(InputError, match="a toy backbone gives no vector"):
        clip_extractor(config, _mesh(), stride_frames=4, is_resampled=False,
                       normalization="imagenet")
    facts = token_extractor(config, _mesh(), None).facts
    assert facts["pooling"] == "mean of the patches of each token"
    assert facts["pixels"]["std"] == [255.0] * 3
