"""AdaTAD's ladder against OpenTAD's numbers; step 0, padding."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.adapters.ladder import (
    LadderAdapter,
    LadderSpec,
    TemporalAdapter,
)
from losa_jax.models.ops.params import Template, nest

TOLERANCE = 2e-5

# OpenTAD's name to ours, and the axes that bring its layout to ours.
_NAMES = {
    "gamma": ("gamma", (0,)),
    "dwconv.weight": ("mixer/kernel", (2, 0, 1)),
    "dwconv.bias": ("mixer/bias", (0,)),
    "conv.weight": ("pointwise/kernel", (1, 0, 2)),
    "conv.bias": ("pointwise/bias", (0,)),
    "down_proj.weight": ("down/kernel", (1, 0)),
    "down_proj.bias": ("down/bias", (0,)),
    "up_proj.weight": ("up/kernel", (1, 0)),
    "up_proj.bias": ("up/bias", (0,)),
}


def _stacked(data, prefix, count):
    """Tensors of `count` adapters under our names."""
    return {ours: np.stack([
        data[f"{prefix}ladders.adapters.{j}.{theirs}"].transpose(axes)
        .reshape(shape) for j in range(count)])
        for theirs, (ours, axes) in _NAMES.items()
        for shape in [_shape(data, prefix, theirs, axes)]}


def _shape(data, prefix, theirs, axes):
    shape = data[f"{prefix}ladders.adapters.0.{theirs}"].transpose(
        axes).shape
    # Convolutions carry an axis of one input channel or one position.
    return shape[:2] if len(shape) == 3 else shape


@pytest.mark.shared
def test_the_ladder_equals_opentad_with_its_gradients(shared_dir):
    folder = shared_dir / "data/parity"
    data = np.load(folder / "adatad_ladder_tiny.npz")
    facts = json.loads(
        (folder / "adatad_ladder_tiny_config.json").read_text())
    layers = facts["adapter_index"]
    spec = LadderSpec(in_width=48, width=12, num_taps=len(layers))
    template = Template(lambda: LadderAdapter(spec, rngs=nnx.Rngs(0)))
    params = nest({f"taps/{name}": jnp.asarray(array) for name, array in
                   _stacked(data, "param/", len(layers)).items()})
    blocks = {i: rearrange(jnp.asarray(data[f"out/block{i}"]),
                           "n (u h w) c -> 1 n u h w c", u=4, h=4)
              for i in range(facts["depth"])}
    taps = jnp.stack([blocks[i] for i in layers])
    last = blocks[layers[-1]].mean((3, 4))
    valid = jnp.ones(last.shape[:3], bool)

    def loss(params):
        out = template.bind(params)(last, taps, valid)
        resized = jax.image.resize(out, (1, 24, 48), "linear")
        return jnp.square(resized).mean(), out

    (value, out), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    want = data["out/pooled"].transpose(0, 2, 1)
    np.testing.assert_allclose(out, want, rtol=0,
                               atol=TOLERANCE * np.abs(want).max())
    assert float(value) == pytest.approx(float(data["loss/mean_square"]),
                                         rel=1e-5)
    for name, theirs in _stacked(data, "grad/", len(layers)).items():
        ours = gradients["taps"]
        for key in name.split("/"):
            ours = ours[key]
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(),
            err_msg=name)
    # Each adapter at every patch, as OpenTAD computes it.
    for j in range(len(layers)):
        adapter = Template(lambda: TemporalAdapter(
            48, 12, 3, nnx.Rngs(0))).bind(
            jax.tree.map(lambda leaf, j=j: leaf[j], params["taps"]))
        x = rearrange(taps[j], "b n u h w c -> b (n u) (h w) c")
        got = rearrange(adapter(x, valid.reshape(1, -1)),
                        "b (n u) s c -> (b n) (u s) c", u=4)
        theirs = data[f"out/ladder{j}"]
        np.testing.assert_allclose(got, theirs, rtol=0,
                                   atol=TOLERANCE * np.abs(theirs).max())


def _small():
    spec = LadderSpec(in_width=8, width=4, num_taps=2)
    ladder = LadderAdapter(spec, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    last = jnp.asarray(rng.normal(size=(1, 3, 2, 8)), jnp.float32)
    taps = jnp.asarray(rng.normal(size=(2, 1, 3, 2, 2, 2, 8)), jnp.float32)
    return ladder, last, taps


def test_step_zero_is_the_head_only_model():
    ladder, last, taps = _small()
    out = ladder(last, taps, jnp.ones((1, 3, 2), bool))
    np.testing.assert_array_equal(out, last.reshape(1, 6, 8))


def test_padding_does_not_reach_valid_tokens():
    ladder, last, taps = _small()
    ladder.taps.up.kernel[...] = jnp.ones_like(ladder.taps.up.kernel[...])
    valid = jnp.asarray([[[True, True], [True, False], [False, False]]])
    first = ladder(last, taps, valid)
    other = ladder(last, taps.at[:, :, 1, 1:].set(7.0).at[:, :, 2].set(-3.0),
                   valid)
    np.testing.assert_array_equal(first[:, :3], other[:, :3])
    assert float(jnp.abs(first[:, :3] - last.reshape(1, 6, 8)[:, :3]).max()
                 ) > 0.01


@pytest.mark.parametrize("wrong, message", [
    ({"in_width": 0}, "LadderSpec.in_width=0"),
    ({"in_width": 3}, "LadderSpec.in_width=3 .* give LadderSpec.width"),
    ({"num_taps": 0}, "LadderSpec.num_taps=0"),
    ({"width": -1}, "LadderSpec.width=-1"),
    ({"long_kernel": 2}, "LadderSpec.long_kernel=2: must be an odd number")])
def test_invalid_specs_raise_an_error_that_names_the_field(wrong, message):
    with pytest.raises(InputError, match=message):
        LadderSpec(**{"in_width": 8, "num_taps": 2, **wrong})
    assert LadderSpec(in_width=3, num_taps=1, width=1).width == 1
