"""Linear maps, norms, activations and dropout of adapters and backbones."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

# torch's default for linear and convolution weights: uniform within
# 1 / sqrt(fan_in). The published recipes were tuned with it.
torch_uniform = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def flat_product(x: Float[Array, "*n c"], kernel: Float[Array, "c d"],
                 bias: Float[Array, "d"] | nnx.Param | None = None
                 ) -> Float[Array, "*n d"]:
    """x @ kernel + bias with one axis of rows.

    On CPU the gradient of two such layers took 6 to 7 ms instead of 12
    (2048 rows of 96 channels, 384 between): XLA sums over several leading
    axes, as the kernel's and the bias's gradients need, slower than over
    one.
    """
    y = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    if bias is not None:
        y = y + bias[...].astype(x.dtype)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def gelu(x: Array) -> Array:
    """The exact GELU, by the error function as torch has it.

    jax.nn.gelu takes erfc, an exponential and a choice of polynomials more:
    with its gradient 1.6 times as long on CPU (4608 x 2048 numbers).
    """
    if x.dtype != jnp.float32:  # 1 + erf would lose its few digits
        return jax.nn.gelu(x, approximate=False)
    return 0.5 * x * (1 + jax.lax.erf(math.sqrt(0.5) * x))


def standardize(x: Array, epsilon: float) -> Array:
    """Zero mean and unit variance over channels, in float32."""
    x = x.astype(jnp.float32)
    mean = x.mean(axis=-1, keepdims=True)
    centered = x - mean
    variance = jnp.square(centered).mean(axis=-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + epsilon)


class Linear(nnx.Module):
    """y = x @ kernel + bias; kernel [in, out].

    Starts with outputs of variance one for inputs of variance one.
    """

    def __init__(self, in_width: int, out_width: int, *, bias: bool = True,
                 rngs: nnx.Rngs):
        init = nnx.initializers.variance_scaling(
            1.0, "fan_in", "truncated_normal")
        self.kernel = nnx.Param(init(rngs.params(), (in_width, out_width)))
        self.bias = nnx.Param(jnp.zeros(out_width)) if bias else None

    def __call__(self, x: Array) -> Array:
        return flat_product(x, self.kernel[...], self.bias)


class LayerNorm(nnx.Module):
    """Layer norm over channels with float32 statistics."""

    def __init__(self, width: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.epsilon = epsilon

    def __call__(self, x: Array) -> Array:
        # One axis of rows: see `flat_product`.
        y = standardize(x.reshape(-1, x.shape[-1]), self.epsilon)
        y = y * self.scale[...] + self.bias[...]
        return y.astype(x.dtype).reshape(x.shape)


class Mlp(nnx.Module):
    """Two layers with exact GELU between."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.fc1 = Linear(width, hidden, rngs=rngs)
        self.fc2 = Linear(hidden, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.fc2(gelu(self.fc1(x)))


def zero_linear(in_width: int, out_width: int, rngs: nnx.Rngs) -> Linear:
    """A linear map that starts as the zero map."""
    linear = Linear(in_width, out_width, rngs=rngs)
    linear.kernel[...] = jnp.zeros((in_width, out_width))
    return linear


def drop_path(x: Float[Array, "b ..."], rate: float | Array,
              key: Array | None) -> Array:
    """Stochastic depth: zero a branch for a whole sample.

    Args:
      x: the branch; scaled by 1 / (1 - rate) where it stays.
      rate: probability to drop it.
      key: None means evaluation: x as it is.
    """
    if key is None or (isinstance(rate, float) and rate == 0.0):
        return x
    keep = jax.random.bernoulli(key, 1 - rate, (x.shape[0],))
    keep = keep.reshape((-1,) + (1,) * (x.ndim - 1))
    return jnp.where(keep, x / (1 - rate), 0.0).astype(x.dtype)


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Element-wise dropout; key None means evaluation."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0.0).astype(x.dtype)
