"""Recomputed blocks: the same numbers, less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.models.heads.actionformer import ActionFormer, ActionFormerSpec
from losa_jax.models.heads.tridet import TriDet, TriDetSpec
from losa_jax.models.ops.params import Template, parameters
from losa_jax.models.ops.remat import recomputed


class Tower(nnx.Module):
    """A block that keeps much and gives little."""

    def __init__(self, rngs: nnx.Rngs):
        self.kernel = nnx.Param(
            0.15 * jax.random.normal(rngs.params(), (32, 32)))

    def __call__(self, x, valid, key):
        noise = 0.0 if key is None else jax.random.normal(key, x.shape)
        for _ in range(8):
            x = jnp.tanh(x @ self.kernel[...]) + noise
        return x * valid[..., None], valid


def _tower_gradient(run, key=None, blocks=6):
    """The compiled gradient, its value."""
    tower = Template(lambda: Tower(nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(1), (512, 32))
    valid = jnp.arange(512) < 400

    def loss(trained, x):
        block = tower.bind(trained)
        for _ in range(blocks):
            x, seen = run(block, x, valid, key)
        return jnp.square(x).sum() + seen.sum()

    program = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(
        parameters(Tower(nnx.Rngs(0))), x).compile()
    return program, program(parameters(Tower(nnx.Rngs(0))), x)


@pytest.mark.parametrize("seed", [None, 3])
def test_gradient_is_that_of_the_block(seed):
    """In float64: these are sums of hundreds that cancel to hundredths."""
    with jax.enable_x64(True):
        key = None if seed is None else jax.random.key(seed)
        _, want = _tower_gradient(lambda block, *inputs: block(*inputs), key)
        _, got = _tower_gradient(recomputed, key)
    for one, other in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_memory_is_that_of_one_block():
    def temporary(run):
        return _tower_gradient(run)[0].memory_analysis().temp_size_in_bytes

    kept = temporary(lambda block, *inputs: block(*inputs))
    # Each of 6 blocks would keep 8 arrays; 6 inputs and one block are left.
    assert temporary(recomputed) < 0.5 * kept


@pytest.mark.parametrize("head, spec_type, changes", [
    (ActionFormer, ActionFormerSpec, {"attention_window": (5,)}),
    (TriDet, TriDetSpec, {"sgp_mlp_width": 24})])
def test_heads_with_rematerialized_blocks(head, spec_type, changes):
    outputs = []
    for remat in (False, True):
        spec = spec_type(8, 3, width=32, num_levels=2, num_stem_blocks=1,
                         num_embedding_convs=1, remat=remat, **changes)
        template = Template(lambda spec=spec: head(spec, rngs=nnx.Rngs(0)))
        trained = parameters(head(spec, rngs=nnx.Rngs(0)))
        x = jax.random.normal(jax.random.key(1), (2, 16, 8))
        valid = jnp.arange(16) < jnp.array([[16], [9]])

        def loss(trained, x, template=template, valid=valid):
            logits, offsets, _ = template.bind(trained)(
                x, valid, jax.random.key(2))
            return jnp.sin(logits).sum() + jnp.sin(offsets).sum()

        outputs.append(jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
            trained, x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5,
                                                         atol=1e-6), *outputs)
