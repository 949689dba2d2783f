"""ActionFormer; tests/weights/test_head_folder.py has the public
numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.heads.actionformer import (
    ActionFormer,
    ActionFormerSpec,
)
from losa_jax.models.ops.params import Template, flatten, nest, parameters
from losa_jax.weights.head_names import from_public
from losa_jax.weights.head_settings import head_settings, infer_settings


@pytest.mark.parametrize("spec, count", [
    (ActionFormerSpec(2048, 20), 29_251_612),
    (ActionFormerSpec(1408, 20), 28_268_572),
    (ActionFormerSpec(
        512, 1, width=256, absolute_positions=True, max_tokens=192,
        attention_window=(7, 7, 7, 7, 7, -1)), 6_943_497),
])
def test_parameter_counts_of_the_published_recipes(spec, count):
    template = Template(lambda: ActionFormer(spec, rngs=nnx.Rngs(0)))
    assert sum(int(np.prod(leaf.shape))
               for leaf in flatten(template.shapes).values()) == count


def _small(**changes):
    values = dict(in_width=6, num_classes=3, width=16, num_levels=3,
                  attention_window=(5,), max_tokens=64)
    return ActionFormerSpec(**{**values, **changes})


def _perturbed(spec):
    """Random parameters everywhere: zeros would hide a leak."""
    module = ActionFormer(spec, rngs=nnx.Rngs(0))
    flat = flatten(parameters(module))
    rng = np.random.default_rng(0)
    return nest({name: leaf + 0.2 * rng.normal(size=leaf.shape).astype(
        np.float32) for name, leaf in flat.items()})


def test_joined_features_have_a_projection_each():
    """The embedding sees them one after the other; of the public names."""
    spec = _small(input_widths=(2, 4), input_projections=(3, 5))
    flat = flatten(_perturbed(spec))
    assert flat["pyramid/embedding/0/conv/kernel"].shape == (3, 8, 16)
    plain = {name: leaf for name, leaf in flat.items()
             if "projections" not in name}
    x = np.random.default_rng(1).normal(size=(1, 16, 6)).astype(np.float32)
    valid = jnp.ones((1, 16), bool)
    parts = [x[..., part] @ flat[f"pyramid/projections/{i}/kernel"][0]
             + flat[f"pyramid/projections/{i}/bias"]
             for i, part in enumerate((slice(0, 2), slice(2, 6)))]
    got, want = (
        Template(lambda spec=one: ActionFormer(spec, rngs=nnx.Rngs(0))).bind(
            nest(leaves))(jnp.asarray(inputs), valid).class_logits
        for one, leaves, inputs in (
            (spec, flat, x),
            (_small(in_width=8), plain, np.concatenate(parts, -1))))
    np.testing.assert_allclose(got, want, atol=1e-4)
    shown = infer_settings(flat)
    assert (shown["in_width"], shown["input_widths"],
            shown["input_projections"]) == (6, [2, 4], [3, 5])
    public = from_public({
        "backbone.proj.1.conv.weight": np.zeros((5, 4, 1)),
        "reg_head.scale.0.scale": np.ones(1)})
    assert public["pyramid/projections/1/kernel"].shape == (1, 4, 5)
    settings = head_settings({"dataset": {"input_dim": [2, 4]},
                              "model": {"embd_dim": [3, 5]}})
    assert (settings["in_width"], settings["width"],
            settings["input_widths"]) == (6, 8, (2, 4))


@pytest.mark.parametrize("changes", [
    {}, {"attention_window": (-1,)}, {"absolute_positions": True},
    {"input_widths": (2, 4), "input_projections": (3, 5)},
    {"relative_positions": True, "neck": "fpn", "neck_width": 8,
     "embedding_kernel": 5, "head_kernel": 1, "embedding_norm": False,
     "head_norm": False, "neck_norm": False, "opentad": True}])
def test_padding_never_leaks(changes):
    """In float64: windows of other lengths round otherwise in float32."""
    spec = _small(**changes)
    tree = jax.tree.map(np.float64, _perturbed(spec))
    template = Template(lambda: ActionFormer(spec, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 32, 6))
    outputs = []
    run = jax.jit(lambda tree, *inputs: template.bind(tree)(*inputs))
    for length in (24, 32, 64):
        padded = np.full((1, length, 6), 7.0)
        padded[:, :21] = x[:, :21]
        valid = np.arange(length)[None] < 21
        with jax.enable_x64(True):
            logits, offsets, mask = map(np.asarray, run(tree, padded, valid))
        assert logits.dtype == offsets.dtype == np.float64
        outputs.append((logits[mask], offsets[mask]))
        assert mask.sum() == 21 + 11 + 6
        np.testing.assert_array_equal(logits[~mask], 0.0)
    for logits, offsets in outputs[1:]:
        np.testing.assert_allclose(logits, outputs[0][0], atol=2e-6)
        np.testing.assert_allclose(offsets, outputs[0][1], atol=2e-6)


def test_local_attention_reaches_only_its_window():
    spec = _small(num_levels=1, num_stem_blocks=1, num_embedding_convs=1,
                  head_layers=1)
    tree = _perturbed(spec)
    template = Template(lambda: ActionFormer(spec, rngs=nnx.Rngs(0)))
    valid = jnp.ones((1, 64), bool)

    def logit(x):
        return template.bind(tree)(x, valid)[0][0, 30, 0]

    gradient = jax.jit(jax.grad(logit))(jnp.ones((1, 64, 6)))[0]
    reached = np.flatnonzero(np.abs(gradient).sum(-1))
    # head conv 1 + attention 2 + its convs 1 + embedding 1, on each side
    assert reached.min() == 25 and reached.max() == 35


def test_drop_path_acts_only_in_training():
    spec = _small(drop_path=0.5)
    template = Template(lambda: ActionFormer(spec, rngs=nnx.Rngs(0)))
    tree = _perturbed(spec)
    x, valid = jnp.ones((4, 32, 6)), jnp.ones((4, 32), bool)
    model = jax.jit(template.bind(tree))
    still = np.asarray(model(x, valid)[0])
    np.testing.assert_array_equal(still[0], still[1])
    moved = np.asarray(model(x, valid, jax.random.key(0))[0])
    assert np.abs(moved[0] - moved[1]).max() > 1e-3


def test_tokens_must_divide_by_the_last_stride():
    model = ActionFormer(_small(), rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="30 tokens"):
        model(jnp.zeros((1, 30, 6)), jnp.ones((1, 30), bool))
    with pytest.raises(InputError, match="7 channels, but .*in_width=6"):
        model(jnp.zeros((1, 32, 7)), jnp.ones((1, 32), bool))


@pytest.mark.parametrize("wrong, message", [
    ({"width": 30}, "ActionFormerSpec.width=30 does not divide by .*=4"),
    ({"attention_heads": 0}, "ActionFormerSpec.attention_heads=0"),
    ({"attention_window": 19},
     r"ActionFormerSpec.attention_window=19: give a tuple, as \(19,\)"),
    ({"attention_window": (4,)},
     "must be odd, 1 or more, or -1 for all tokens"),
    ({"attention_window": (0,)}, "must be odd"),
    ({"attention_window": (5, 5)}, "one for each of the 3 levels"),
    ({"dropout": 1.0}, "ActionFormerSpec.dropout=1.0: .* below 1"),
    ({"drop_path": 1.0}, "ActionFormerSpec.drop_path=1.0"),
    ({"relative_positions": 2}, "ActionFormerSpec.relative_positions=2")])
def test_invalid_specs_raise_an_error_that_names_the_field(wrong, message):
    with pytest.raises(InputError, match=message):
        _small(**wrong)


def test_a_pyramid_without_embedding_and_stem_runs():
    spec = _small(in_width=16, num_embedding_convs=0, num_stem_blocks=0)
    x = jax.random.normal(jax.random.key(0), (1, 8, 16))
    out = ActionFormer(spec, rngs=nnx.Rngs(0))(x, jnp.ones((1, 8), bool))
    assert out.class_logits.shape == (1, 8 + 4 + 2, 3)
