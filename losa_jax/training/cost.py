"""What a function costs, told from its program: FLOPs and collectives.

XLA's own cost analysis counts the body of a scan once; here bodies are
multiplied out, so numbers are those of a whole run of the function.
"""

import math
import re
from collections import Counter
from typing import Any, NamedTuple

import jax
import numpy as np

# Bytes of an element by XLA's names.
_ELEMENT_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2,
                  "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8,
                  "f64": 8}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all",
               "collective-permute")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """Collectives of one kind in a compiled program, loops counted once.

    Attributes:
      count: instructions.
      output_bytes: of their results on one device, all together.
      largest_bytes: of the largest result.
    """

    count: int
    output_bytes: int
    largest_bytes: int


def matmul_flops(jaxpr: Any) -> int:
    """FLOPs of all matrix products and convolutions, 2 a multiply-add.

    Element-wise work is not counted: in transformers it is some percent.

    Args:
      jaxpr: `jax.make_jaxpr(f)(...)`, or one of its inner ones. Branches of
        a `cond` count with the dearest; `while` loops of unknown length with
        one round.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            total += _dot_flops(equation)
        elif name == "conv_general_dilated":
            total += _conv_flops(equation)
        elif name == "cond":
            total += max(map(matmul_flops, equation.params["branches"]))
        else:
            rounds = (equation.params["length"] if name == "scan" else 1)
            total += rounds * sum(map(matmul_flops, _inner(equation)))
    return total


def _inner(equation: Any) -> list[Any]:
    found = []
    for value in equation.params.values():
        values = value if isinstance(value, (tuple, list)) else (value,)
        found += [one for one in values
                  if hasattr(one, "eqns") or hasattr(one, "jaxpr")]
    return found


def _dot_flops(equation: Any) -> int:
    left, _ = (variable.aval for variable in equation.invars)
    (contracted, _), _ = equation.params["dimension_numbers"]
    depth = math.prod(left.shape[axis] for axis in contracted)
    return 2 * math.prod(equation.outvars[0].aval.shape) * depth


def _conv_flops(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    numbers = equation.params["dimension_numbers"]
    outputs = kernel[numbers.rhs_spec[0]]
    return (2 * math.prod(equation.outvars[0].aval.shape)
            * math.prod(kernel) // outputs)


def collectives(program: str) -> dict[str, Collective]:
    """Collectives of a compiled program, by kind.

    Args:
      program: `compiled.as_text()`.
    """
    counts: Counter[str] = Counter()
    sizes: dict[str, list[int]] = {}
    for line in program.splitlines():
        found = re.search(r"= (.+?) (" + "|".join(COLLECTIVES)
                          + r")(?:-start)?\(", line)
        if found is None:
            continue
        counts[found[2]] += 1
        # An asynchronous one gives (operand, result): the result counts.
        shapes = [_bytes(kind, shape) for kind, shape
                  in _SHAPE.findall(found[1]) if kind in _ELEMENT_BYTES]
        sizes.setdefault(found[2], []).append(max(shapes, default=0))
    return {kind: Collective(count, sum(sizes[kind]), max(sizes[kind]))
            for kind, count in counts.items()}


def _bytes(kind: str, shape: str) -> int:
    sides = [int(side) for side in shape.split(",") if side]
    return _ELEMENT_BYTES[kind] * int(np.prod(sides, dtype=np.int64))


def traced_flops(function: Any, *arguments: Any) -> int:
    """`matmul_flops` of a function of described or real arrays."""
    return matmul_flops(jax.make_jaxpr(function)(*arguments))
