"""Both CPU paths against a plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from losa_jax.models.ops import attention as module


def _loop(query, key, value, mask=None, scale=None, soft_cap=None):
    b, q, heads, d = query.shape
    scale = d ** -0.5 if scale is None else scale
    out = np.zeros_like(query)
    for i in range(b):
        for h in range(heads):
            scores = query[i, :, h] @ key[i, :, h].T * scale
            if soft_cap is not None:
                scores = soft_cap * np.tanh(scores / soft_cap)
            if mask is not None:
                scores = np.where(mask[i, 0], scores, -np.inf)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            out[i, :, h] = (scores / scores.sum(-1, keepdims=True)
                            ) @ value[i, :, h]
    return out


@pytest.mark.parametrize("tokens", [10, 300, 901])
def test_short_and_long_sequences_equal_a_loop(tokens):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, 2, tokens, 2, 8)).astype(np.float32)
    got = jax.jit(module.attention)(*inputs)
    np.testing.assert_allclose(got, _loop(*inputs), atol=2e-6)


def test_long_sequences_are_attended_head_by_head():
    assert 10 * 10 <= module.MIN_LOOP_SCORES < 300 * 300


def test_scores_beyond_an_exponential_do_not_overflow():
    rng = np.random.default_rng(2)
    query, key, value = rng.normal(size=(3, 1, 901, 1, 8)).astype(np.float32)
    # Scores of some hundreds: exp of them alone is infinite.
    got = jax.jit(module.attention)(query * 200, key, value)
    np.testing.assert_allclose(got, _loop(query * 200, key, value), atol=1e-3)


# One mask for all queries and heads, as a padded window's, and one for each.
@pytest.mark.parametrize("mask_shape", [None, (2, 1, 1, 901), (2, 1, 901, 901),
                                        (2, 2, 901, 901)])
def test_gradient_equals_that_of_the_plain_formula(mask_shape):
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(3, 2, 901, 2, 8)).astype(np.float32)
    wanted = rng.normal(size=inputs.shape[1:]).astype(np.float32)
    mask = None if mask_shape is None else jnp.asarray(
        rng.random(mask_shape) < 0.5)

    def plain(query, key, value):
        scores = jnp.einsum("bqhd,bthd->bhqt", query, key) * 8 ** -0.5
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf)
        return jnp.einsum("bhqt,bthd->bqhd", jax.nn.softmax(scores), value)

    def gradient(attend):
        return jax.jit(jax.grad(lambda *x: (attend(*x) * wanted).sum(),
                                argnums=(0, 1, 2)))(*inputs)

    def ours(query, key, value):
        return module.attention(query, key, value, mask)

    for got, want in zip(gradient(ours), gradient(plain),
                         strict=True):
        np.testing.assert_allclose(got, want, atol=2e-6)


@pytest.mark.parametrize("tokens", [9, 300, 901])
def test_mask_and_scale(tokens):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(3, 2, tokens, 2, 4)).astype(np.float32)
    mask = rng.random((2, 1, tokens, tokens)) < 0.5
    mask |= np.eye(tokens, dtype=bool)
    got = module.attention(*map(jnp.asarray, inputs),
                           mask=jnp.asarray(mask), scale=0.3)
    np.testing.assert_allclose(got, _loop(*inputs, mask, 0.3), atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("tokens", [9, 300])
def test_scores_are_capped_softly_before_the_mask(tokens, masked):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(3, 2, tokens, 2, 4)).astype(np.float32)
    inputs[0] *= 10  # scores far above the cap
    mask = (rng.random((2, 1, tokens, tokens)) < 0.5) | np.eye(
        tokens, dtype=bool) if masked else None
    got = jax.jit(functools.partial(module.attention, soft_cap=5.0))(
        *inputs, mask=mask)
    np.testing.assert_allclose(got, _loop(*inputs, mask, soft_cap=5.0),
                               atol=5e-6)
    assert np.abs(got - _loop(*inputs, mask)).max() > 0.1


def test_a_soft_cap_takes_the_same_formula_on_every_platform():
    inputs = [jax.ShapeDtypeStruct((2, 600, 2, 64), "bfloat16")] * 3
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    place = NamedSharding(mesh, PartitionSpec("data"))
    for cap, by_platform in ((None, True), (5.0, False)):
        program = jax.jit(functools.partial(
            module.attention, soft_cap=cap, place=place)).trace(*inputs)
        assert ("platform_index" in str(program.jaxpr)) == by_platform


def test_masked_windows_stay_on_their_devices():
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    place = NamedSharding(mesh, PartitionSpec("data"))
    inputs = [jax.ShapeDtypeStruct((4, 901, 2, 8), np.float32, sharding=place)
              ] * 3
    mask = jax.ShapeDtypeStruct((4, 1, 1, 901), bool, sharding=place)

    def loss(query, key, value, mask):
        return module.attention(query, key, value, mask).sum()

    program = jax.jit(jax.grad(loss)).lower(*inputs, mask).compile()
    assert "all-gather" not in program.as_text()


def test_clips_stay_on_their_devices_and_attend_as_on_one():
    """901 tokens are above the size from which heads are looped over."""
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "fsdp"))
    place = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(3, 8, 901, 2, 8)).astype(np.float32)
    placed = [jax.device_put(one, place) for one in inputs]
    program = jax.jit(functools.partial(module.attention, place=place)).lower(
        *placed).compile()
    assert "all-" not in program.as_text()
    got = program(*placed)
    assert got.sharding.is_equivalent_to(place, 4)
    np.testing.assert_array_equal(got, jax.jit(module.attention)(*inputs))
