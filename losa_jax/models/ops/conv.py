"""Convolutions and pooling.

Along time, the output at a valid token does not depend on the padding.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax.models.ops.layers import torch_uniform

# Pairs of cells are more work the more cells there are: of 16 cells a third of
# the time of nine sums.
MAX_PAIRED_CELLS = 16


class MaskedConv(nnx.Module):
    """Zero-padded convolution along time, zero at invalid tokens.

    Source: ActionFormer's masked convolution (MIT).
    """

    def __init__(self, in_width: int, out_width: int, kernel_size: int, *,
                 bias: bool = True, bias_value: float = 0.0, rngs: nnx.Rngs):
        shape = (kernel_size, in_width, out_width)
        self.kernel = nnx.Param(torch_uniform(rngs.params(), shape))
        self.bias = (nnx.Param(jnp.full(out_width, bias_value))
                     if bias else None)

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"]
                 ) -> Float[Array, "b t d"]:
        """Returns the masked convolution; x must be zero at invalid tokens."""
        y = convolve(x, self.kernel[...].astype(x.dtype))
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        return y * valid[..., None].astype(x.dtype)


@jax.custom_vjp
def convolve(x: Float[Array, "b t c"], kernel: Float[Array, "k c d"]
             ) -> Float[Array, "b t d"]:
    """Returns a zero-padded convolution, as one product of joined neighbors.

    Unlike XLA's convolution on CPU, the result at a token does not depend on
    the number of tokens; the time is the same (`benchmarks.head_speed`). The
    custom gradient stores only x, not its k joined neighbors.
    """
    k, c, d = kernel.shape
    joined = jnp.concatenate(neighbors(x, k), axis=-1)
    return joined @ kernel.reshape(k * c, d)


def _convolve_backward(stored, gradient):
    # Without transposing axes of the kernel: XLA would make the copies at the
    # start of the program and hold them until here.
    x, kernel = stored
    k, c, d = kernel.shape

    def reversed_neighbors(y: Array) -> list[Array]:
        return neighbors(y, k, before=(k - 1) // 2)[::-1]

    spread = gradient @ kernel.reshape(k * c, d).T
    to_x = functools.reduce(operator.add, (
        reversed_neighbors(part)[i]
        for i, part in enumerate(jnp.split(spread, k, axis=-1))))
    rows = x.reshape(-1, c).T
    return to_x, jnp.stack([rows @ part.reshape(-1, d)
                            for part in reversed_neighbors(gradient)])


convolve.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)),
                _convolve_backward)


class DepthwiseConv(nnx.Module):
    """One filter a channel along the time axis (axis 1), zero padded."""

    def __init__(self, width: int, kernel_size: int, *, stride: int = 1,
                 bias: bool = False, rngs: nnx.Rngs):
        bound = 1 / math.sqrt(kernel_size)  # PyTorch: fan_in of one channel
        self.kernel = nnx.Param(jax.random.uniform(
            rngs.params(), (kernel_size, width), minval=-bound, maxval=bound))
        self.bias = nnx.Param(jnp.zeros(width)) if bias else None
        self.stride = stride

    def __call__(self, x: Float[Array, "b t *space c"]
                 ) -> Float[Array, "b s *space c"]:
        """Returns unmasked outputs; x must be zero at invalid tokens."""
        kernel = self.kernel[...].astype(x.dtype)
        y = functools.reduce(operator.add, (
            part * kernel[i] for i, part in enumerate(
                neighbors(x, kernel.shape[0], self.stride))))
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


def neighbors(x: Float[Array, "b t *c"], kernel_size: int, stride: int = 1,
              before: int | None = None, padding: float = 0
              ) -> list[Float[Array, "b s *c"]]:
    """Returns the shifts of x along axis 1 for each kernel position.

    x is padded with the value `padding` at both ends. `before` is the number
    of kernel positions before a token's own; None is half of them.
    """
    left = kernel_size // 2 if before is None else before
    pads = [(0, 0)] * x.ndim
    pads[1] = (left, kernel_size - 1 - left)
    padded = jnp.pad(x, pads, constant_values=padding)
    length = x.shape[1]
    return [jax.lax.slice_in_dim(padded, i, i + length, stride, axis=1)
            for i in range(kernel_size)]


def max_pool_half(x: Float[Array, "b t c"]) -> Float[Array, "b s c"]:
    """Returns the maximum over three tokens at every second; s = t / 2."""
    return functools.reduce(jnp.maximum, neighbors(x, 3, 2, padding=-jnp.inf))


@jax.custom_vjp
def filter_grid(x: Float[Array, "m u h w c"], kernel: Float[Array, "3 3 c"]
                ) -> Float[Array, "m u h w c"]:
    """Returns x filtered by one 3 x 3 filter a channel, zero padded.

    The custom gradient stores only x, not its nine shifted copies. Of a small
    grid it multiplies all pairs of cells, which takes less time on a CPU than
    nine sums over them; else it sums the filter's gradient in two stages, since
    XLA's CPU compiler would store all nine products first
    (`benchmarks.losa_speed`).
    """
    return functools.reduce(operator.add, (
        part * kernel[i, j] for (i, j), part in _grid_neighbors(x)))


def _grid_neighbors(x: Array) -> Iterator[tuple[tuple[int, int], Array]]:
    h, w = x.shape[2:4]
    padded = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    for i, j in itertools.product(range(3), range(3)):
        yield (i, j), padded[:, :, i:i + h, j:j + w]


def _filter_grid_backward(stored, gradient):
    x, kernel = stored
    if x.shape[2] * x.shape[3] <= MAX_PAIRED_CELLS:
        return filter_grid(gradient, kernel[::-1, ::-1]), _sum_pairs(
            x, gradient).astype(kernel.dtype)
    # The gradient is shifted in the opposite direction instead of x: each
    # shifted x would have two uses, and XLA would store it.
    exact = jnp.promote_types(x.dtype, jnp.float32)
    steps = jnp.stack([(x * part).sum((2, 3), dtype=exact)
                       for _, part in _grid_neighbors(gradient)])
    steps = steps.reshape(9, -1, x.shape[-1])[::-1]
    to_kernel = jnp.einsum("knc,n->kc", steps, jnp.ones(steps.shape[1], exact),
                           precision=jax.lax.Precision.HIGHEST)
    return (filter_grid(gradient, kernel[::-1, ::-1]),
            to_kernel.reshape(kernel.shape).astype(kernel.dtype))


def _sum_pairs(x: Float[Array, "m u h w c"],
               gradient: Float[Array, "m u h w c"]) -> Float[Array, "3 3 c"]:
    """Returns the filter's gradient by products of all pairs of cells."""
    h, w, c = x.shape[2:]
    exact = jnp.promote_types(x.dtype, jnp.float32)
    pairs = jnp.einsum(
        "npc,nqc->cpq", x.reshape(-1, h * w, c), gradient.reshape(-1, h * w, c),
        precision=jax.lax.Precision.HIGHEST, preferred_element_type=exact)
    # Whether row p is the neighbor of row q at kernel position i.
    rows, columns = (np.stack([np.eye(size, k=k) for k in (1, 0, -1)])
                     for size in (h, w))
    neighbor = np.einsum("ipq,jrs->ijprqs", rows, columns)
    return jnp.einsum("cpq,ijpq->ijc", pairs, jnp.asarray(
        neighbor.reshape(3, 3, h * w, h * w), exact),
        precision=jax.lax.Precision.HIGHEST)


filter_grid.defvjp(lambda x, kernel: (filter_grid(x, kernel), (x, kernel)),
                   _filter_grid_backward)
