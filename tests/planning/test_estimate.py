"""Needs of a program, and a compiler that runs out of memory."""

import types

import jax
import jax.numpy as jnp
import pytest

from losa_jax.planning.estimate import estimate, peak_bytes
from losa_jax.planning.topology import Chip

CHIP = Chip(memory_bytes=2**20, flops=1e12, memory_bandwidth=1e9,
            link_bytes=1e9)
# As libtpu says it.
OUT_OF_MEMORY = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran \
out of memory in memory space hbm. Used 24.38G of 15.75G hbm. Exceeded hbm \
capacity by 8.63G.

Total hbm usage >= 24.63G:

Program hbm requirement 24.38G:

  Largest program allocations in hbm:

  1. Size: 9.19G
     Operator: op_name="jit(step)/while/body/dot_general"
     Shape: f32[48,16,1568,1568]{3,2,1,0:T(8,128)}
     Unpadded size: 9.00G

  2. Size: 512.0M
     Shape: bf16[40,1408,6144]{2,1,0:T(8,128)(2,1)}
"""


def _traced(side):
    x = jax.ShapeDtypeStruct((side, side), jnp.float32)
    return jax.jit(lambda a, b: a @ b).trace(x, x)


def test_a_product_by_hand():
    need = estimate(_traced(256), CHIP, 1)
    assert need.fits and need.flops == 2 * 256 ** 3
    assert need.compute_seconds == pytest.approx(2 * 256 ** 3 / 1e12)
    assert need.memory_seconds == pytest.approx(3 * 4 * 256 ** 2 / 1e9)
    assert need.best_seconds == need.memory_seconds
    assert need.cautious_seconds == pytest.approx(
        need.compute_seconds / 0.4 + need.memory_seconds)
    assert need.peak_bytes >= 3 * 4 * 256 ** 2


def test_too_large_says_what_is_large():
    need = estimate(_traced(512), CHIP, 1)
    assert not need.fits and need.peak_bytes > CHIP.memory_bytes
    assert need.largest[0].startswith("1 MiB  f32[512,512]")


def test_the_compilers_own_refusal():
    def refuse(**_):
        raise jax.errors.JaxRuntimeError(OUT_OF_MEMORY)

    traced = types.SimpleNamespace(
        jaxpr=_traced(8).jaxpr,
        lower=lambda: types.SimpleNamespace(compile=refuse))
    need = estimate(traced, CHIP, 1)
    assert not need.fits and need.peak_bytes is None
    assert "Exceeded hbm capacity by 8.63G" in need.why_not
    assert [one.split()[0] for one in need.largest] == ["9.19G", "512.0M"]
    assert "f32[48,16,1568,1568]" in need.largest[0]
    assert "dot_general" in need.largest[0]


def test_a_refusal_that_names_no_buffers():
    def refuse(**_):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM")

    traced = types.SimpleNamespace(
        jaxpr=_traced(1024).jaxpr,
        lower=lambda: types.SimpleNamespace(compile=refuse))
    need = estimate(traced, CHIP, 2)
    assert need.largest == ("2 MiB  float32[1024,1024] dot_general / 2",)


def test_other_failures_are_not_hidden():
    def fail(**_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    traced = types.SimpleNamespace(
        jaxpr=_traced(8).jaxpr,
        lower=lambda: types.SimpleNamespace(compile=fail))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        estimate(traced, CHIP, 1)


def test_peak_where_the_backend_leaves_temporaries_out():
    memory = types.SimpleNamespace(
        argument_size_in_bytes=100, output_size_in_bytes=60,
        alias_size_in_bytes=50, temp_size_in_bytes=7,
        peak_memory_in_bytes=100)
    assert peak_bytes(memory) == 117
    memory.peak_memory_in_bytes = 112
    assert peak_bytes(memory) == 112
