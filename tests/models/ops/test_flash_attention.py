"""TPU's flash kernel, interpreted on processors, against the plain path."""

import importlib.util
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from losa_jax.models.ops.attention import attention
from losa_jax.models.ops.flash_attention import can_flash, flash_attention
from losa_jax.planning.topology import describe_devices


def _place(devices):
    mesh = Mesh(np.array(devices).reshape(-1), ("clips",))
    return NamedSharding(mesh, PartitionSpec("clips"))


def _inputs(tokens, d, dtype):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(2, tokens, 2, d)), dtype)
            for _ in range(3)]


# 200 tokens are padded to 256, which must not be seen. Float32 differs by
# rounding alone; bfloat16 also where the softmax is rounded.
@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 2e-6),
                                              (jnp.bfloat16, 2e-2)])
def test_equals_the_plain_path(dtype, tolerance):
    inputs = _inputs(200, 24, dtype)
    place = _place(jax.devices()[:2])
    with pltpu.force_tpu_interpret_mode():
        got = jax.jit(lambda *x: flash_attention(*x, 0.3, place))(*inputs)
    assert got.dtype == dtype
    want = attention(*(x.astype(jnp.float32) for x in inputs), scale=0.3)
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=tolerance)


def test_the_gradient_equals_that_of_the_plain_path():
    inputs = _inputs(130, 16, jnp.float32)
    place = _place(jax.devices()[:1])

    def loss(function):
        return lambda *x: jnp.square(function(*x)).sum()

    with pltpu.force_tpu_interpret_mode():
        got = jax.jit(jax.grad(loss(
            lambda *x: flash_attention(*x, 0.25, place)), (0, 1, 2)))(*inputs)
    want = jax.grad(loss(lambda *x: attention(*x, scale=0.25)), (0, 1, 2))(
        *inputs)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_the_kernel_is_used_for_long_bfloat16_sequences_on_tpu():
    def place(platform):
        devices = np.array([types.SimpleNamespace(platform=platform)])
        return mock.Mock(spec=NamedSharding,
                         mesh=types.SimpleNamespace(devices=devices))

    def tokens(count, d=88, dtype=jnp.bfloat16):
        return jnp.zeros((2, count, 2, d), dtype)

    long = tokens(1568)
    assert can_flash(long, long, place("tpu"))
    assert not can_flash(long, long, place("cpu"))
    assert not can_flash(long, long, place("cuda"))
    short, exact = tokens(128), tokens(1568, dtype=jnp.float32)
    assert not can_flash(short, short, place("tpu"))
    assert not can_flash(exact, exact, place("tpu"))
    wide = tokens(1568, d=192)
    assert not can_flash(wide, wide, place("tpu"))


@pytest.mark.libtpu
def test_it_compiles_for_a_tpu_and_stores_no_scores():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra `tpu`)")
    place = _place(describe_devices("v5e:2x2")[1])
    # ViT-g's attention for one clip a chip.
    x = jax.ShapeDtypeStruct((4, 1568, 16, 88), jnp.bfloat16, sharding=place)
    compiled = jax.jit(lambda *x: attention(*x, place=place)).lower(
        x, x, x).compile()
    assert "tpu_custom_call" in compiled.as_text()
    scores = 16 * 1568 * 1568 * 2
    assert compiled.memory_analysis().temp_size_in_bytes < scores / 2
