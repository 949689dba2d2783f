"""FLOPs by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from losa_jax.models.backbones.sizes import SIZES
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.params import Template
from losa_jax.planning.cost import largest_arrays, matmul_flops


def traced_flops(function, *arguments):
    return matmul_flops(jax.make_jaxpr(function)(*arguments))


def test_products_by_hand():
    def f(x, w):
        return jnp.einsum("bij,bjk->bik", x, w).sum()

    x, w = jnp.ones((2, 3, 4)), jnp.ones((2, 4, 5))
    assert traced_flops(f, x, w) == 2 * 2 * 3 * 4 * 5
    # The gradient has two products more, of the same size.
    assert traced_flops(jax.value_and_grad(f, argnums=(0, 1)), x, w) == (
        3 * 2 * 2 * 3 * 4 * 5)


def test_loops_are_multiplied_out():
    def body(x, w):
        return jax.checkpoint(lambda x: jnp.tanh(x @ w))(x), None

    def f(x, weights):
        return jax.lax.scan(body, x, weights)[0].sum()

    x, weights = jnp.ones((8, 16)), jnp.ones((12, 16, 16))
    once = 2 * 8 * 16 * 16
    assert traced_flops(f, x, weights) == 12 * once
    # Again in the backward pass, and two gradients.
    assert traced_flops(jax.grad(f), x, weights) in (
        12 * 3 * once, 12 * 4 * once)
    assert traced_flops(lambda x: jax.lax.map(lambda r: r @ weights[0],
                                              x), x) == once


def test_convolutions_and_branches():
    x, k = jnp.ones((1, 10, 4)), jnp.ones((3, 4, 6))

    def conv(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))

    assert traced_flops(conv, x, k) == 2 * 10 * 6 * 3 * 4
    branch = jax.make_jaxpr(lambda x: jax.lax.cond(
        x.sum() > 0, lambda x: x @ x.T, lambda x: x @ x[:1].T * jnp.ones(8),
        x))(jnp.ones((8, 5)))
    assert matmul_flops(branch) == 2 * 8 * 8 * 5


def test_what_a_loop_stacks_up_is_the_largest():
    def f(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.sin(x @ w), None), x,
                            weights)[0].sum()

    traced = jax.make_jaxpr(jax.grad(f, 1))(jnp.ones((8, 16)),
                                            jnp.ones((12, 16, 16)))
    (size, name), (second, _) = largest_arrays(traced, 2)
    assert size == 12 * 16 * 16 * 4 and name.startswith("float32[12,16,16]")
    assert second == 12 * 8 * 16 * 4


def test_a_transformer_against_a_hand_count():
    spec = VideoMaeSpec(**SIZES["vit_s"], image_size=(160, 160))
    template = Template(lambda: VideoMae(spec, rngs=nnx.Rngs(0)))
    clips = jax.ShapeDtypeStruct((3, 16, 160, 160, 3), np.uint8)
    found = traced_flops(
        lambda tree, clips: template.bind(tree).features(clips).last,
        template.shapes, clips)
    tokens, c, mlp = 8 * 10 * 10, 384, 1536
    block = 2 * tokens * c * (3 * c + c + 2 * mlp) + 4 * tokens ** 2 * c
    embed = 2 * tokens * c * (2 * 16 * 16 * 3)
    want = 3 * (12 * block + embed)
    assert abs(found - want) < 0.03 * want
