"""TriDet; tests/weights/test_head_folder.py has the public
numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.heads.tridet import TriDet, TriDetSpec, decode_bins
from losa_jax.models.ops.params import Template, flatten, nest, parameters


@pytest.mark.parametrize("spec, count", [
    (TriDetSpec(2048, 20), 15_989_604),
    (TriDetSpec(1408, 20), 15_006_564),
    (TriDetSpec(512, 1, width=256, head_width=512, sgp_k=1.3,
              sgp_window=(15,), sgp_mlp_width=2048, num_bins=12,
              absolute_positions=True, max_tokens=768), 12_811_555),
])
def test_parameter_counts_of_the_published_recipes(spec, count):
    template = Template(lambda: TriDet(spec, rngs=nnx.Rngs(0)))
    assert sum(int(np.prod(leaf.shape))
               for leaf in flatten(template.shapes).values()) == count


def _small(**changes):
    values = dict(in_width=6, num_classes=3, width=16,
                  num_levels=3, sgp_window=(3,), sgp_k=1.5, sgp_mlp_width=24,
                  num_bins=4, sgp_init_deviation=0.2, max_tokens=64)
    return TriDetSpec(**{**values, **changes})


def _model(spec):
    """Random parameters everywhere: zeros would hide a leak."""
    flat = flatten(parameters(TriDet(spec, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    tree = nest({name: leaf + 0.2 * rng.normal(size=leaf.shape).astype(
        np.float32) for name, leaf in flat.items()})
    return Template(lambda: TriDet(spec, rngs=nnx.Rngs(0))).bind(tree)


@pytest.mark.parametrize("changes", [
    {}, {"downsample": "avg"}, {"trident": False}, {"neck": "fpn"}])
def test_padding_never_leaks(changes):
    model = _model(_small(**changes))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1, 32, 6)).astype(np.float32)
    outputs = []
    for length in (24, 32, 64):
        padded = np.full((1, length, 6), 7.0, np.float32)
        padded[:, :21] = x[:, :21]
        valid = np.arange(length)[None] < 21
        logits, offsets, mask = map(np.asarray,
                                    jax.jit(model)(padded, valid))
        assert mask.sum() == 21 + 11 + 6
        outputs.append((logits[mask], offsets[mask]))
    for logits, offsets in outputs[1:]:
        np.testing.assert_allclose(logits, outputs[0][0], atol=1e-5)
        np.testing.assert_allclose(offsets, outputs[0][1], atol=1e-5)


def test_reference_masking_leaks_as_the_public_code():
    model = jax.jit(_model(_small(reference_masking=True)))
    rng = np.random.default_rng(1)
    x = np.zeros((1, 64, 6), np.float32)
    x[:, :21] = rng.normal(size=(1, 21, 6))
    one, two = (np.asarray(model(
        x[:, :length], np.arange(length)[None] < 21)[0])[0, 0]
        for length in (32, 64))
    assert np.abs(one - two).max() > 1e-4


def test_boundaries_by_hand():
    """Two bins, one class: the start is 0, 1 or 2 strides before."""
    start = np.log(np.array([1.0, 2.0, 4.0])).reshape(1, 3, 1)
    end = np.zeros((1, 3, 1))
    own = np.zeros((1, 3, 6))
    own[0, 2, 3:] = [0.0, np.log(2.0), np.log(3.0)]
    got = np.asarray(decode_bins(*map(jnp.asarray, (own, start, end))))
    got = got[0, :, 0]
    # Point 2 sees weights 1, 2, 4 at 2, 1, 0 strides; point 0 sees two
    # zeros (weight 1 each) beyond the edge and itself.
    assert got[2, 0] == pytest.approx((2 * 1 + 1 * 2) / 7)
    assert got[0, 0] == pytest.approx((2 + 1) / 3)
    assert got[0, 1] == pytest.approx(1.0)
    assert got[2, 1] == pytest.approx((1 * 2 + 2 * 3) / 6)


def test_boundary_heads_give_the_pyramid_no_gradient():
    spec = _small()
    template = Template(lambda: TriDet(spec, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(2), (1, 32, 6))
    valid = jnp.ones((1, 32), bool)

    def total(tree):
        head = template.bind(tree)
        starts, ends = head.boundary_logits(head.raw_outputs(x, valid)[0])
        return sum(level.sum() for level in (*starts, *ends))

    gradient = flatten(jax.jit(jax.grad(total))(
        parameters(TriDet(spec, rngs=nnx.Rngs(0)))))
    assert all((np.asarray(leaf) == 0).all() for name, leaf
               in gradient.items() if name.startswith("pyramid"))
    assert np.abs(gradient["start/out/kernel"]).max() > 0


def test_a_block_that_starts_at_zero_never_learns():
    """The published THUMOS recipe trains norm and MLP alone."""
    x = jax.random.normal(jax.random.key(2), (1, 32, 6))
    valid = jnp.ones((1, 32), bool)
    for deviation, learns in ((0.0, False), (0.2, True)):
        spec = _small(sgp_init_deviation=deviation)
        template = Template(lambda spec=spec: TriDet(spec, rngs=nnx.Rngs(0)))
        gradient = flatten(jax.jit(jax.grad(
            lambda tree, template=template: template.bind(tree)(
                x, valid)[0].sum()))(
            parameters(TriDet(spec, rngs=nnx.Rngs(0)))))
        moved = any(np.abs(gradient[f"pyramid/stem/0/{name}/kernel"]).max()
                    > 0 for name in ("psi", "convw", "convkw", "fc"))
        assert moved == learns


@pytest.mark.parametrize("wrong, message", [
    ({"width": 24}, "TriDetSpec.width=24 .* 16 groups"),
    ({"downsample": "mean"}, "TriDetSpec.downsample='mean'"),
    ({"sgp_window": (2,)}, "must be odd, 1 or more$"),
    ({"sgp_window": (-1,)}, "must be odd, 1 or more$"),
    ({"sgp_window": 3}, r"TriDetSpec.sgp_window=3: give a tuple, as \(3,\)"),
    ({"sgp_k": 0.0}, "TriDetSpec.sgp_k=0.0: must be above 0"),
    ({"sgp_mlp_width": 0}, "TriDetSpec.sgp_mlp_width=0"),
    ({"sgp_init_deviation": -0.1}, "TriDetSpec.sgp_init_deviation=-0.1"),
    ({"num_bins": 0}, "TriDetSpec.num_bins=0"),
    ({"boundary_kernel": 2}, "TriDetSpec.boundary_kernel=2"),
    ({"iou_power": float("nan")}, "TriDetSpec.iou_power=nan"),
    ({"trident": "yes"}, "TriDetSpec.trident='yes'")])
def test_invalid_specs_raise_an_error_that_names_the_field(wrong, message):
    with pytest.raises(InputError, match=message):
        _small(**wrong)
