"""Parts of video transformers that families share: the patch embedding, and
the scan over blocks with its taps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from losa_jax.models.backbones import base
from losa_jax.models.ops import resample


class PatchEmbed(nnx.Module):
    """Tubelets of pixels to tokens: a convolution that does not overlap."""

    def __init__(self, spec: base.BackboneSpec, rngs: nnx.Rngs):
        shape = (spec.tubelet, spec.patch, spec.patch, 3, spec.width)
        init = nnx.initializers.truncated_normal(0.02)
        self.kernel = nnx.Param(init(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(spec.width))

    def __call__(self, clips: Float[Array, "n f H W 3"]
                 ) -> Float[Array, "n u h w c"]:
        """Returns tokens; pixels that no whole patch covers are left out."""
        kernel, bias = (parameter[...].astype(clips.dtype)
                        for parameter in (self.kernel, self.bias))
        u, p, q, _, c = kernel.shape
        rows, columns = clips.shape[2] // p, clips.shape[3] // q
        # One product: 0.6 to 0.8 x the time of XLA's convolution on CPU, its
        # gradient down to 0.25 x (`benchmarks.backbone_speed`).
        pixels = rearrange(
            clips[:, :, :rows * p, :columns * q],
            "n (t u) (h p) (w q) rgb -> (n t h w) (u p q rgb)", u=u, p=p, q=q)
        tokens = (pixels @ kernel.reshape(-1, c)).reshape(
            clips.shape[0], -1, rows, columns, c)
        return tokens + bias


def block_on_place(block: Any, x: Float[Array, "n t c"],
                   place: NamedSharding | None, **settings: Any
                   ) -> Float[Array, "n t c"]:
    """Returns block(x, **settings), gathering the block's parameters for it.

    The compiler would move the clips' activations instead, which are hundreds
    of times larger.
    """
    if place is not None:
        replicated = NamedSharding(place.mesh, PartitionSpec())
        block = jax.lax.with_sharding_constraint(block, replicated)
        x = jax.lax.with_sharding_constraint(x, place)
    return block(x, place=place, **settings)


def encode(blocks: Any, tokens: Float[Array, "n u h w c"],
           spec: base.BackboneSpec, *, taps: tuple[int, ...],
           tap_grid: tuple[int, int] | None, tap_norm: bool,
           place: NamedSharding | None = None,
           norm: Callable[[Array], Array] = lambda x: x,
           **settings: Any) -> base.ClipFeatures:
    """Returns the spatial mean of the last block, and the taps.

    Args:
      blocks, settings: see `run_blocks`.
      tokens: the input of the first block.
      taps, tap_grid, tap_norm, place: see `VideoMae.features`.
      norm: maps the last block's output, float32, before the mean.
    """
    n, u, h, w, c = tokens.shape

    def tap(x: Array) -> Array:
        return resample.shape_tap(x.reshape(n, u, h, w, c), tap_grid, tap_norm,
                                  spec.norm_epsilon)

    x, tapped = run_blocks(blocks, spec.depth, tokens.reshape(n, u * h * w, c),
                           taps, tap, place, **settings)
    x = norm(x.astype(jnp.float32))
    if tapped is None:
        tapped = jnp.zeros((0, n, u, 0, 0, c), tokens.dtype)
    return base.ClipFeatures(x.reshape(n, u, h * w, c).mean(axis=2), tapped)


def run_blocks(blocks: Any, depth: int, x: Float[Array, "n t c"],
               tap_layers: tuple[int, ...] = (),
               tap: Callable[[Array], Array] = lambda x: x,
               place: NamedSharding | None = None, **settings: Any
               ) -> tuple[Float[Array, "n t c"], Array | None]:
    """Returns the last block's output, and taps [k, ...] or None.

    Args:
      blocks: `depth` blocks, stacked on a first axis.
      tap: maps the output of each of the ascending `tap_layers` to its tap.
      settings: further arguments of every block.
    """
    # Blocks are rematerialized in a backward pass.
    run = jax.checkpoint(
        lambda block, x: block_on_place(block, x, place, **settings),
        prevent_cse=False)
    if not tap_layers:
        return jax.lax.scan(lambda x, block: (run(block, x), None), x, blocks)
    # One scan over all blocks: slices of their stack would copy weights.
    numbers = np.arange(depth)
    slots = np.minimum(np.searchsorted(tap_layers, numbers),
                       len(tap_layers) - 1)
    shape = jax.eval_shape(tap, x)
    taps = jnp.zeros((len(tap_layers), *shape.shape), shape.dtype)

    def step(carry, inputs):
        x, taps = carry
        block, slot, is_tapped = inputs
        x = run(block, x)
        old = jax.lax.dynamic_index_in_dim(taps, slot, 0, False)
        new = jax.lax.cond(is_tapped, tap, lambda x: old, x)
        taps = jax.lax.dynamic_update_index_in_dim(taps, new, slot, 0)
        return (x, taps), None

    return jax.lax.scan(step, (x, taps), (
        blocks, jnp.asarray(slots),
        jnp.asarray(np.isin(numbers, tap_layers))))[0]
