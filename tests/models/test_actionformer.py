"""Against the public implementation's numbers, and our own promises."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.models.actionformer import ActionFormer, HeadSpec
from losa_jax.models.tree import Template, flatten, nest, parameters

# Public name to ours; a layout word says what happens to the array.
RULES = (
    (r"backbone\.embd\.(\d+)\.conv\.weight", r"embedding/\1/conv/kernel",
     "conv"),
    (r"backbone\.embd_norm\.(\d+)\.(weight|bias)", r"embedding/\1/norm/\2",
     "flat"),
    (r"backbone\.(stem|branch)\.(\d+)\.ln(\d)\.(weight|bias)",
     r"\1/\2/norm\3/\4", "flat"),
    (r"backbone\.(stem|branch)\.(\d+)\.attn\.(query|key|value)_conv\.conv"
     r"\.weight", r"\1/\2/attn/\3_conv/kernel", "depthwise"),
    (r"backbone\.(stem|branch)\.(\d+)\.attn\.(query|key|value)_norm"
     r"\.(weight|bias)", r"\1/\2/attn/\3_norm/\4", "flat"),
    (r"backbone\.(stem|branch)\.(\d+)\.attn\.(query|key|value|proj)\.weight",
     r"\1/\2/attn/\3/kernel", "pointwise"),
    (r"backbone\.(stem|branch)\.(\d+)\.attn\.(query|key|value|proj)\.bias",
     r"\1/\2/attn/\3/bias", "flat"),
    (r"backbone\.(stem|branch)\.(\d+)\.mlp\.0\.weight",
     r"\1/\2/fc1/kernel", "pointwise"),
    (r"backbone\.(stem|branch)\.(\d+)\.mlp\.0\.bias", r"\1/\2/fc1/bias",
     "flat"),
    (r"backbone\.(stem|branch)\.(\d+)\.mlp\.3\.weight",
     r"\1/\2/fc2/kernel", "pointwise"),
    (r"backbone\.(stem|branch)\.(\d+)\.mlp\.3\.bias", r"\1/\2/fc2/bias",
     "flat"),
    (r"backbone\.(stem|branch)\.(\d+)\.drop_path_(attn|mlp)\.scale",
     r"\1/\2/\3_scale", "flat"),
    (r"neck\.fpn_norms\.(\d+)\.(weight|bias)", r"neck/\1/\2", "flat"),
    (r"(cls|reg)_head\.head\.(\d+)\.conv\.weight",
     r"\1/convs/\2/conv/kernel", "conv"),
    (r"(cls|reg)_head\.norm\.(\d+)\.(weight|bias)", r"\1/convs/\2/norm/\3",
     "flat"),
    (r"(cls|reg)_head\.(?:cls_head|offset_head)\.conv\.weight",
     r"\1/out/kernel", "conv"),
    (r"(cls|reg)_head\.(?:cls_head|offset_head)\.conv\.bias",
     r"\1/out/bias", "flat"),
)


def _from_public(arrays):
    flat, scales = {}, {}
    for name, array in arrays.items():
        level = re.fullmatch(r"reg_head\.scale\.(\d+)\.scale", name)
        if level:
            scales[int(level[1])] = float(array)
            continue
        for pattern, ours, layout in RULES:
            if re.fullmatch(pattern, name):
                key = re.sub(pattern, ours, name)
                key = re.sub("weight$", "scale", key)
                if layout == "conv":
                    array = array.transpose(2, 1, 0)
                elif layout == "depthwise":
                    array = array[:, 0].T
                elif layout == "pointwise":
                    array = array[:, :, 0].T
                else:
                    array = array.reshape(-1)
                flat[key] = jnp.asarray(array)
                break
        else:
            raise AssertionError(f"no rule for {name}")
    flat["reg_scale"] = jnp.asarray([scales[i] for i in sorted(scales)])
    return nest(flat)


@pytest.mark.shared
def test_full_length_video_matches_the_public_implementation(shared_dir):
    """The fixture's second video fills the window, so that masking again,
    our departure from the reference, changes nothing."""
    data = np.load(shared_dir / "data/parity/actionformer_tiny.npz")
    arrays = {key.removeprefix("param/"): data[key] for key in data
              if key.startswith("param/")}
    spec = HeadSpec(in_width=16, num_classes=5, width=32, num_levels=4,
                    attention_window=(5,), max_tokens=192)
    template = Template(lambda: ActionFormer(spec, rngs=nnx.Rngs(0)))
    tree = _from_public(arrays)
    assert ({k: v.shape for k, v in flatten(tree).items()}
            == {k: v.shape for k, v in flatten(template.shapes).items()})
    logits, offsets, valid = jax.jit(
        lambda tree, x, valid: template.bind(tree)(x, valid))(
        tree, data["in/1/feats"].T[None], jnp.ones((1, 192), bool))
    want_logits = np.concatenate(
        [data[f"train/out_cls_logits/{i}"][1] for i in range(4)])
    want_offsets = np.concatenate(
        [data[f"train/out_offsets/{i}"][1] for i in range(4)])
    assert valid.all()
    np.testing.assert_allclose(logits[0], want_logits,
                               atol=2e-5 * np.abs(want_logits).max())
    np.testing.assert_allclose(offsets[0], want_offsets,
                               atol=2e-5 * np.abs(want_offsets).max())


@pytest.mark.parametrize("spec, count", [
    (HeadSpec(2048, 20), 29_251_612),
    (HeadSpec(1408, 20), 28_268_572),
    (HeadSpec(512, 1, width=256, absolute_positions=True, max_tokens=192,
              attention_window=(7, 7, 7, 7, 7, -1)), 6_943_497),
])
def test_parameter_counts_of_the_published_recipes(spec, count):
    template = Template(lambda: ActionFormer(spec, rngs=nnx.Rngs(0)))
    assert sum(int(np.prod(leaf.shape))
               for leaf in flatten(template.shapes).values()) == count


def _small(**changes):
    values = dict(in_width=6, num_classes=3, width=16, num_levels=3,
                  attention_window=(5,), max_tokens=64)
    return HeadSpec(**{**values, **changes})


def _perturbed(spec):
    """Random parameters everywhere: zeros would hide a leak."""
    module = ActionFormer(spec, rngs=nnx.Rngs(0))
    flat = flatten(parameters(module))
    rng = np.random.default_rng(0)
    return nest({name: leaf + 0.2 * rng.normal(size=leaf.shape).astype(
        np.float32) for name, leaf in flat.items()})


@pytest.mark.parametrize("changes", [
    {}, {"attention_window": (-1,)}, {"absolute_positions": True}])
def test_padding_never_leaks(changes):
    spec = _small(**changes)
    tree = _perturbed(spec)
    template = Template(lambda: ActionFormer(spec, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 32, 6)).astype(np.float32)
    outputs = []
    for length in (24, 32, 64):
        padded = np.full((1, length, 6), 7.0, np.float32)
        padded[:, :21] = x[:, :21]
        valid = np.arange(length)[None] < 21
        logits, offsets, mask = template.bind(tree)(
            jnp.asarray(padded), jnp.asarray(valid))
        outputs.append((np.asarray(logits[mask]), np.asarray(offsets[mask])))
        assert mask.sum() == 21 + 11 + 6
        np.testing.assert_array_equal(np.asarray(logits)[~mask], 0.0)
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

    gradient = jax.grad(logit)(jnp.ones((1, 64, 6)))[0]
    reached = np.flatnonzero(np.abs(gradient).sum(-1))
    # head conv 1 + attention 2 + its convs 1 + embedding 1, on each side
    assert reached.min() == 25 and reached.max() == 35


def test_drop_path_acts_only_in_training():
    spec = _small(drop_path=0.5)
    template = Template(lambda: ActionFormer(spec, rngs=nnx.Rngs(0)))
    tree = _perturbed(spec)
    x, valid = jnp.ones((4, 32, 6)), jnp.ones((4, 32), bool)
    model = template.bind(tree)
    still = model(x, valid)[0]
    np.testing.assert_array_equal(still[0], still[1])
    moved = model(x, valid, jax.random.key(0))[0]
    assert float(jnp.abs(moved[0] - moved[1]).max()) > 1e-3


def test_tokens_must_divide_by_the_last_stride():
    model = ActionFormer(_small(), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="30 tokens"):
        model(jnp.zeros((1, 30, 6)), jnp.ones((1, 30), bool))
