"""What every family of backbones must do, for the test of a new one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.errors import InputError
from losa_jax.models.backbones import BACKBONES, family_of
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import (
    FAMILIES,
    expected_shapes,
    expected_source,
)
from losa_jax.weights.open_checkpoint import open_checkpoint


def check_family(spec, folder):
    """Fails where the family of a spec breaks the contract.

    Args:
      spec: a tiny one, with every parameter that the family may have; at
        least two blocks, two temporal tokens, two rows and three columns.
      folder: an empty one.
    """
    rng = np.random.default_rng(0)
    params = {name: rng.normal(0, 0.3, shape).astype(np.float32)
              for name, shape in expected_shapes(spec).items()}
    _check_spec(spec)
    _check_weights(spec, params, folder)
    backbone = backbone_folder.load_backbone(folder / "converted")
    assert backbone.spec == spec
    _check_features(spec, backbone, rng)


def _check_spec(spec):
    assert dataclasses.asdict(spec) and hash(spec) is not None
    with pytest.raises(InputError, match=type(spec).__name__):
        dataclasses.replace(spec, width=0)
    if spec.tubelet > 1:
        with pytest.raises(InputError, match="clip_frames"):
            dataclasses.replace(spec, clip_frames=spec.tubelet + 1)
    if not spec.has_fixed_frames:
        longer = dataclasses.replace(spec, clip_frames=2 * spec.clip_frames)
        assert expected_shapes(longer) == expected_shapes(spec)


def _check_weights(spec, params, folder):
    """There and back, without a bit lost; recognized by this family only."""
    places = expected_source(spec).values()
    assert {place.rule.parameter for place in places} == set(params), (
        "each parameter needs a line in RULES")
    source = folder / "source.safetensors"
    backbone_folder.save_source(source, spec, params)
    checkpoint = open_checkpoint(source)
    for name in BACKBONES:
        assert FAMILIES[name].recognizes(checkpoint.tensors) == (
            name == family_of(spec)), name
    assert checkpoint.family == family_of(spec)
    assert spec == backbone_folder.convert_backbone(source,
                                                    folder / "converted")
    got_spec, got, _ = backbone_folder.open_backbone(folder / "converted")
    assert got_spec == spec and set(got) == set(params)
    for name, array in params.items():
        assert got[name].tobytes() == array.tobytes(), name
    assert FAMILIES[family_of(spec)].describe(spec)


def _check_features(spec, backbone, rng):
    u, c, (h, w) = spec.clip_tokens, spec.width, spec.grid
    clips = jnp.asarray(rng.integers(
        0, 256, (3, spec.clip_frames, *spec.image_size, 3), np.uint8))
    taps = (0, spec.depth - 1)
    run = jax.jit(lambda clips: backbone.features(clips, taps=taps))
    features = run(clips)
    assert features.last.shape == (3, u, c)
    assert features.last.dtype == "float32"
    assert features.taps.shape == (2, 3, u, h, w, c)
    # Nothing may be large, constant or missing.
    assert np.isfinite(features.last).all() and np.std(features.last) > 0
    np.testing.assert_allclose(np.mean(features.taps, -1), 0, atol=1e-4)
    np.testing.assert_allclose(np.std(features.taps, -1), 1, atol=0.1)
    # Each clip is seen alone, and bytes are numbers.
    alone = run(clips[1:2].astype(np.float32))
    np.testing.assert_allclose(alone.last[0], features.last[1], atol=1e-4)
    np.testing.assert_allclose(alone.taps[:, 0], features.taps[:, 1],
                               atol=1e-4)
    pooled = backbone.features(clips, taps=taps[-1:], tap_grid=(1, 1))
    np.testing.assert_allclose(
        pooled.taps[0, :, :, 0, 0], features.taps[-1].mean((2, 3)), atol=1e-4)
    none = backbone.features(clips)
    assert none.taps.shape[:3] == (0, 3, u) and none.taps.shape[-1] == c
    np.testing.assert_allclose(none.last, features.last, atol=1e-4)
    half = backbone.features(clips, taps=taps, dtype="bfloat16")
    assert half.last.dtype == "float32" and half.taps.dtype == "bfloat16"
    # Frames of another size.
    larger = jnp.repeat(jnp.repeat(clips[:1], 2, axis=2), 2, axis=3)
    assert backbone.features(larger).last.shape == (1, u, c)
    for wrong in ((1, 0), (0, 0), (-1,), (0, spec.depth)):
        with pytest.raises(InputError, match=f"taps=.*depth of {spec.depth}"):
            backbone.features(clips, taps=wrong)
    with pytest.raises(InputError, match=f"below the patch of {spec.patch}"):
        backbone.features(clips[:, :, :spec.patch - 1])
    with pytest.raises(InputError, match="shape"):
        backbone.features(clips[..., 0])
    if spec.has_fixed_frames:
        with pytest.raises(InputError, match="frames"):
            backbone.features(jnp.repeat(clips[:1], 2, axis=1))
    if spec.clip_pooling:
        means = backbone.mean_features(clips, "float32")
        assert means.shape == (3, c) and means.dtype == "float32"
