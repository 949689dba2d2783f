"""Linear maps, norms, activations and dropout."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

# With scale s, independent inputs of variance 1 give outputs of variance s.
scaled_normal = functools.partial(
    nnx.initializers.variance_scaling, mode="fan_in",
    distribution="truncated_normal")
unit_normal = scaled_normal(1.0)
# PyTorch's default for linear and convolution weights, which the published
# recipes use: uniform within 1 / sqrt(fan_in).
torch_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the exact GELU by the error function, as PyTorch does.

    On CPU, jax.nn.gelu takes 1.6 x the time (`benchmarks.losa_speed`).
    """
    if x.dtype != jnp.float32:  # 1 + erf is too inexact in 16 bits
        return jax.nn.gelu(x, approximate=False)
    return 0.5 * x * (1 + jax.lax.erf(math.sqrt(0.5) * x))


def standardize(x: Float[Array, "*s c"], epsilon: float
                ) -> Float[Array, "*s c"]:
    """Returns x with zero mean and unit variance over channels, float32."""
    x = x.astype(jnp.float32)
    mean = x.mean(axis=-1, keepdims=True)
    centered = x - mean
    variance = jnp.square(centered).mean(axis=-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + epsilon)


class Linear(nnx.Module):
    """y = x @ kernel + bias; kernel [in, out]."""

    def __init__(self, in_width: int, out_width: int, *, bias: bool = True,
                 init: nnx.Initializer = unit_normal, rngs: nnx.Rngs):
        self.kernel = nnx.Param(init(rngs.params(), (in_width, out_width)))
        self.bias = nnx.Param(jnp.zeros(out_width)) if bias else None

    def __call__(self, x: Float[Array, "*s c"]) -> Float[Array, "*s d"]:
        # With a single axis of rows, XLA's CPU compiler sums the gradients
        # in half the time (`benchmarks.losa_speed`).
        kernel = self.kernel[...].astype(x.dtype)
        y = x.reshape(-1, x.shape[-1]) @ kernel
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        return y.reshape(*x.shape[:-1], kernel.shape[-1])


zero_linear = functools.partial(Linear, init=nnx.initializers.zeros)


class LayerNorm(nnx.Module):
    """Layer norm over channels with float32 statistics."""

    def __init__(self, width: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
        # A single axis of rows, as in `Linear`.
        y = standardize(x.reshape(-1, x.shape[-1]), self.epsilon)
        y = y * self.scale[...] + self.bias[...]
        return y.astype(x.dtype).reshape(x.shape)


class Mlp(nnx.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs,
                 inits: tuple[nnx.Initializer, nnx.Initializer]
                 = (unit_normal, unit_normal)):
        self.fc1 = Linear(width, hidden, init=inits[0], rngs=rngs)
        self.fc2 = Linear(hidden, width, init=inits[1], rngs=rngs)

    def __call__(self, x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
        return self.fc2(gelu(self.fc1(x)))


def dropout(x: Float[Array, "*s"], rate: float | Float[Array, ""],
            key: Array | None, shared_axes: tuple[int, ...] = ()
            ) -> Float[Array, "*s"]:
    """Returns x with elements dropped and the others scaled to keep the mean.

    Elements along `shared_axes` are dropped together. Key None means
    evaluation: x is returned unchanged.
    """
    if key is None or (isinstance(rate, float) and rate == 0.0):
        return x
    shape = tuple(1 if axis in shared_axes else size
                  for axis, size in enumerate(x.shape))
    keep = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(keep, x / (1 - rate), 0.0).astype(x.dtype)


def drop_path(x: Float[Array, "*s"], rate: float | Float[Array, ""],
              key: Array | None) -> Float[Array, "*s"]:
    """Drops a branch x in random batch rows (stochastic depth)."""
    return dropout(x, rate, key, tuple(range(1, x.ndim)))
