"""FLOPs by hand."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from configs import thumos
from losa_jax.distributed import sharding
from losa_jax.models.backbones import SIZES
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.attention import attention
from losa_jax.models.ops.flash_attention import TILE, flash_attention
from losa_jax.models.ops.params import Template
from losa_jax.planning.estimate import matmul_flops, trace_steps
from losa_jax.planning.topology import describe_devices


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


@pytest.mark.parametrize("tokens", [1024, 200])
def test_attention_counts_the_same_as_a_kernel_and_plain(tokens):
    """On TPU a Pallas kernel in a shard_map, elsewhere plain products."""
    b, heads, d = 4, 3, 64
    mesh = Mesh(np.array(jax.devices()[:2]), ("clips",))
    place = NamedSharding(mesh, PartitionSpec("clips"))
    x = jax.ShapeDtypeStruct((b, tokens, heads, d), jnp.bfloat16)

    def kernel(x, w):
        return flash_attention(x @ w, x, x, 0.1, place)

    def twice(f):
        return jax.make_jaxpr(lambda x, w: jax.lax.scan(
            lambda x, w: (f(x, w), None), x, w)[0])(
                x, jax.ShapeDtypeStruct((2, d, d), jnp.bfloat16))

    # The kernel pads to whole tiles, and the padding is work as well.
    padded = -(-tokens // TILE) * TILE
    projection = 2 * b * tokens * heads * d * d
    assert matmul_flops(twice(kernel)) == 2 * (
        projection + 4 * b * heads * padded ** 2 * d)
    plain = twice(lambda x, w: attention(x @ w, x, x))
    assert matmul_flops(plain) == 2 * (
        projection + 4 * b * heads * tokens ** 2 * d)


def test_attention_alone_is_counted_by_its_scope():
    def f(x, w):
        def body(x, w):
            y = x @ w
            return attention(y, y, y), None

        return jax.lax.scan(body, x, w)[0].astype(jnp.float32).sum()

    b, tokens, heads, d = 2, 48, 3, 16
    x, w = jnp.ones((b, tokens, heads, d)), jnp.ones((5, d, d))
    product = 2 * b * heads * tokens ** 2 * d
    projection = 2 * b * tokens * heads * d * d
    forward = jax.make_jaxpr(f)(x, w)
    assert matmul_flops(forward, "attention") == 5 * 2 * product
    assert matmul_flops(forward) == 5 * (2 * product + projection)
    # Each product has two in the backward pass.
    both = jax.make_jaxpr(jax.grad(f, argnums=(0, 1)))(x, w)
    assert matmul_flops(both, "attention") == 5 * 6 * product
    assert matmul_flops(both) == 5 * (6 * product + 3 * projection)


@pytest.mark.parametrize("topology", [
    "cpu:1", pytest.param("v5e:4x4", marks=pytest.mark.libtpu)])
def test_the_published_recipe_needs_975_tflop_a_step(topology):
    """ViT-g, 192 clips of 2048 tokens: plain, and with kernel and mesh."""
    if topology != "cpu:1" and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra `tpu`)")
    _, devices = describe_devices(topology)
    mesh = sharding.make_mesh(sharding.mesh_shape(
        len(devices), 2, 96, data=0, clip=0, fsdp=0), devices)
    jaxpr = trace_steps(thumos.get_config("g1536"), 20, mesh).train.jaxpr
    total = matmul_flops(jaxpr)
    assert total == pytest.approx(975e12, rel=0.03)
    assert total / 16 == pytest.approx(61e12, rel=0.03)  # v5e:4x4
    assert matmul_flops(jaxpr, "attention") == pytest.approx(181e12, rel=0.03)


def test_a_transformer_against_a_hand_count():
    spec = VideoMaeSpec(**SIZES["vit_s"], image_size=(160, 160))
    template = Template(lambda: VideoMae(spec, rngs=nnx.Rngs(0)))
    clips = jax.ShapeDtypeStruct((3, 16, 160, 160, 3), np.uint8)
    got = traced_flops(
        lambda tree, clips: template.bind(tree).features(clips).last,
        template.shapes, clips)
    tokens, c, mlp = 8 * 10 * 10, 384, 1536
    block = 2 * tokens * c * (3 * c + c + 2 * mlp) + 4 * tokens ** 2 * c
    embed = 2 * tokens * c * (2 * 16 * 16 * 3)
    want = 3 * (12 * block + embed)
    assert abs(got - want) < 0.03 * want
