"""Memory and FLOPs of a program, and a compiler that runs out of memory."""

import types

import jax
import jax.numpy as jnp
import pytest

from losa_jax.planning.estimate import estimate, peak_bytes
from losa_jax.planning.topology import Chip

CHIP = Chip(memory_bytes=2**20, flops=1e12)
# A message of libtpu.
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
    need = estimate(_traced(256), CHIP, 2)
    assert need.fits and need.total_flops == 2 * 256 ** 3
    assert need.chip_flops == 256 ** 3 and need.attention_flops == 0
    assert need.best_seconds == pytest.approx(256 ** 3 / 1e12)
    assert need.peak_bytes >= 3 * 4 * 256 ** 2


def test_more_memory_than_the_chip_has_does_not_fit():
    need = estimate(_traced(512), CHIP, 1)
    assert not need.fits and need.peak_bytes > CHIP.memory_bytes


def test_the_compilers_refusal_is_a_result():
    def refuse(**_):
        raise jax.errors.JaxRuntimeError(OUT_OF_MEMORY)

    traced = types.SimpleNamespace(
        jaxpr=_traced(8).jaxpr,
        lower=lambda: types.SimpleNamespace(compile=refuse))
    need = estimate(traced, CHIP, 1)
    assert not need.fits and need.peak_bytes is None
    assert "Exceeded hbm capacity by 8.63G" in need.message.replace("\n", " ")
    for part in ("Size: 9.19G", "f32[48,16,1568,1568]", "dot_general",
                 "Size: 512.0M"):
        assert part in need.message
    assert "\n\n" not in need.message


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
    memory.temp_size_in_bytes = 113
    assert peak_bytes(memory) == 223
