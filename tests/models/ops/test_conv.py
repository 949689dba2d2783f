"""Convolutions and pooling over masked time against plain numpy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.models.ops.conv import (
    DepthwiseConv,
    MaskedConv,
    convolve,
    max_pool_half,
)


def test_masked_conv_is_a_zero_padded_convolution_times_mask():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 3)).astype(np.float32)
    valid = np.arange(8)[None] < np.array([[8], [5]])
    x = x * valid[..., None]
    conv = MaskedConv(3, 4, 3, rngs=nnx.Rngs(0))
    conv.bias[...] = jnp.arange(4.0)
    kernel = np.asarray(conv.kernel[...])
    want = np.zeros((2, 8, 4))
    for b in range(2):
        for t in range(8):
            want[b, t] = np.arange(4)
            for k in range(3):
                if 0 <= t + k - 1 < 8:
                    want[b, t] += x[b, t + k - 1] @ kernel[k]
    want = want * valid[..., None]
    got = conv(jnp.asarray(x), jnp.asarray(valid))
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
def test_gradient_of_a_convolution_by_finite_differences(kernel_size):
    rng = np.random.default_rng(kernel_size)
    with jax.enable_x64(True):
        x, kernel, weights = (jnp.asarray(rng.normal(size=shape)) for shape in
                              [(2, 7, 3), (kernel_size, 3, 4), (2, 7, 4)])
        loss = lambda x, kernel: (  # noqa: E731
            convolve(x, kernel) * weights).sum()
        gradients = jax.grad(loss, argnums=(0, 1))(x, kernel)
        # The loss is linear in each: any step is exact.
        for argument, gradient in enumerate(gradients):
            for place in np.ndindex(gradient.shape):
                inputs = [x, kernel]
                inputs[argument] = inputs[argument].at[place].add(1.0)
                difference = loss(*inputs) - loss(x, kernel)
                assert gradient[place] == pytest.approx(float(difference),
                                                        abs=1e-10)


def test_depthwise_convolution_acts_only_along_time():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 6, 2, 3)).astype(np.float32)
    conv = DepthwiseConv(3, 5, rngs=nnx.Rngs(0))
    kernel = np.asarray(conv.kernel[...])
    padded = np.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)))
    want = sum(padded[:, k:k + 6] * kernel[k] for k in range(5))
    np.testing.assert_allclose(conv(jnp.asarray(x)), want, atol=1e-6)


def test_max_pool_takes_three_every_second_token():
    x = jnp.asarray([[[1.0], [5.0], [2.0], [-3.0], [-4.0], [-9.0]]])
    got = max_pool_half(x)
    np.testing.assert_array_equal(got[0, :, 0], [5.0, 5.0, -3.0])
    # What is before the first token is no candidate.
    np.testing.assert_array_equal(max_pool_half(x - 9)[0, :, 0],
                                  [-4.0, -4.0, -12.0])
