"""Compiled programs read from their text: loops, exchanges, memory."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from losa_jax.planning.program import Program

# As libtpu writes it: no trip counts, fast memory marked S(1).
TPU_TEXT = """HloModule jit_f, is_scheduled=true

%fused (param_0: f32[6,8,128], param_1: s32[]) -> f32[8,128] {
  %param_0 = f32[6,8,128]{2,1,0:T(8,128)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %cut = f32[1,8,128]{2,1,0:T(8,128)} dynamic-slice(%param_0, %param_1, \
%zero, %zero), dynamic_slice_sizes={1,8,128}
  ROOT %flat = f32[8,128]{1,0:T(8,128)} bitcast(%cut)
}

%body (state: (s32[], f32[6,8,128], s32[])) -> (s32[], f32[6,8,128], s32[]) {
  %state = (s32[]{:T(128)}, f32[6,8,128]{2,1,0:T(8,128)}, s32[]) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %rows = f32[6,8,128]{2,1,0:T(8,128)} get-tuple-element(%state), index=1
  %n = s32[] get-tuple-element(%state), index=2
  %slice = f32[8,128]{1,0:T(8,128)S(1)} fusion(%rows, %i), kind=kLoop, \
calls=%fused, metadata={op_name="jit(f)/while/body/slice" id=5}
  %both = (f32[8,128]{1,0:T(8,128)}, f32[16,128]{1,0:T(8,128)}) \
all-gather-start(%slice), channel_id=1, dimensions={0}
  %all = f32[16,128]{1,0:T(8,128)} all-gather-done(%both)
  ROOT %next = (s32[]{:T(128)}, f32[6,8,128], s32[]) tuple(%i, %rows, %n)
}

%condition (state.1: (s32[], f32[6,8,128], s32[])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[6,8,128]{2,1,0:T(8,128)}, s32[]) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %n.1 = s32[] get-tuple-element(%state.1), index=2
  ROOT %less = pred[]{:T(512)} compare(%i.1, %n.1), direction=LT
}

ENTRY %main (x: f32[6,8,128]) -> f32[6,8,128] {
  %x = f32[6,8,128]{2,1,0:T(8,128)} parameter(0)
  %start = s32[]{:T(128)} constant(0)
  %six = s32[] constant(6)
  %packed = (s32[]{:T(128)}, f32[6,8,128], s32[]) tuple(%start, %x, %six)
  %loop = (s32[]{:T(128)}, f32[6,8,128]{2,1,0:T(8,128)}, s32[]) \
while(%packed), condition=%condition, body=%body
  %rows.1 = f32[6,8,128]{2,1,0:T(8,128)} get-tuple-element(%loop), index=1
  ROOT %out = f32[6,8,128]{2,1,0:T(8,128)} negate(%rows.1)
}
"""
ROW = 8 * 128 * 4


def test_a_tpu_program_by_hand():
    program = Program(TPU_TEXT)
    assert program.unknown_loops == 0 and program.runs["body"] == 6
    gathered = program.collectives()["all-gather"]
    assert gathered == (6, 6 * 2 * ROW, 2 * ROW)
    # A round cuts one row into fast memory (the index is four bytes), the
    # exchange starts there and leaves its two results in main memory, the
    # condition compares two numbers to a byte; at the end six rows are read
    # and written.
    assert program.memory_traffic() == (
        6 * (ROW + 4) + 6 * 3 * ROW + 6 * 9 + 2 * 6 * ROW)
    assert program.largest_buffers(1) == [(6 * ROW, "f32[6,8,128] negate")]


def test_a_loop_that_tells_nothing_counts_once():
    odd = TPU_TEXT.replace("direction=LT", "direction=NE")
    assert Program(odd).unknown_loops == 1
    assert Program(odd).runs["body"] == 1


def test_exchanges_of_a_real_program():
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(8), ("x",))

    def f(a, stack):
        return jax.lax.scan(lambda a, b: (a @ b, None), a, stack)[0]

    def described(shape, *spec):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(
            mesh, PartitionSpec(*spec)))

    # The sum of each product is over the devices: five all-reduces.
    compiled = jax.jit(f).lower(described((16, 64), None, "x"),
                                described((5, 64, 64), None, "x")).compile()
    program = Program(compiled.as_text())
    found = program.collectives()
    assert program.unknown_loops == 0
    total = sum(one.num_calls for one in found.values())
    assert total >= 5 and total % 5 == 0
    assert not any(name.startswith("f32[5,")
                   for name in program.exchanged_arrays())
    assert max(one.largest_bytes for one in found.values()) <= 16 * 64 * 4


def test_none_without_sharding():
    x = jnp.ones((8, 8))
    compiled = jax.jit(lambda a, b: a @ b).lower(x, x).compile()
    program = Program(compiled.as_text())
    assert program.collectives() == {}
    # Two operands and a result.
    assert program.memory_traffic() == 3 * 8 * 8 * 4
