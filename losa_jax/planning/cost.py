"""FLOPs of a function, counted in its jaxpr.

`jax.experimental.roofline` (jax 0.10) counts the body of a scan once and
skips conditionals and Pallas kernels; a compiled program's `cost_analysis()`
counts the body of a loop once as well. So matrix products are counted here.
"""

import math
from typing import Any


def matmul_flops(jaxpr: Any, scope: str = "") -> int:
    """Returns the FLOPs of matrix products and convolutions of all devices.

    A multiply-add is 2. Element-wise work, some percent of a transformer, is
    not counted. A scan counts `length` times, a Pallas kernel once a grid
    cell, the body of a `shard_map` once a shard. Of a `cond` the most
    expensive branch counts, of a `while` one iteration. With a `scope`, only
    the content of this `jax.named_scope` counts.
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        # An inner jaxpr does not repeat the names of its outer scopes.
        inside = scope in str(equation.source_info.name_stack)
        name = equation.primitive.name
        if name in ("dot_general", "conv_general_dilated"):
            total += inside * _product_flops(equation)
        else:
            counts = [matmul_flops(inner, "" if inside else scope)
                      for inner in _inner_jaxprs(equation)]
            total += _repetitions(equation) * (
                max(counts) if name == "cond" else sum(counts))
    return total


def _product_flops(equation: Any) -> int:
    left, right = (operand.aval.shape for operand in equation.invars[:2])
    numbers = equation.params["dimension_numbers"]
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = numbers
        depth = math.prod(left[axis] for axis in contracted)
    else:
        depth = math.prod(right) // right[numbers.rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * depth


def _inner_jaxprs(equation: Any) -> list[Any]:
    values: list[Any] = []
    for value in equation.params.values():
        values += value if isinstance(value, (tuple, list)) else (value,)
    return [value for value in values
            if hasattr(value, "eqns") or hasattr(value, "jaxpr")]


def _repetitions(equation: Any) -> int:
    """Returns how often the inner jaxpr runs, on all devices together."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return params["length"]
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    if name == "shard_map":
        axes = {axis for spec in params["in_specs"] for part in spec if part
                for axis in ((part,) if isinstance(part, str) else part)}
        return math.prod(params["mesh"].shape[axis] for axis in axes)
    return 1
