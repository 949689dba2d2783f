"""FLOPs of a function, told from its traced program.

XLA's own cost analysis counts the body of a scan once; here bodies are
multiplied out, so numbers are those of a whole run of the function.
"""

import math
from typing import Any


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


def largest_arrays(jaxpr: Any, count: int) -> list[tuple[int, str]]:
    """(bytes, what it is) of the largest results of a traced program.

    Whole arrays, before they are spread over devices and before the compiler
    fuses: what a loop stacks up for its gradient stands out here.
    """
    found: dict[str, int] = {}

    def visit(jaxpr):
        for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
            inner = _inner(equation)
            for variable in equation.outvars:
                shape = getattr(variable.aval, "shape", None)
                dtype = getattr(variable.aval, "dtype", None)
                if shape is not None and dtype is not None and hasattr(
                        dtype, "itemsize"):
                    sides = ",".join(map(str, shape))
                    name = f"{dtype.name}[{sides}]"
                    found.setdefault(
                        name + f" {equation.primitive.name}",
                        math.prod(shape) * dtype.itemsize)
            for one in inner:
                visit(one)

    visit(jaxpr)
    by_shape: dict[str, tuple[int, str]] = {}
    for name, size in found.items():
        by_shape.setdefault(name.split()[0], (size, name))
    return sorted(by_shape.values(), reverse=True)[:count]


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
