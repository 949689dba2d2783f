"""Parts of video transformers with tubelets that families share."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding
from jaxtyping import Array, Float

from losa_jax.models.backbones import base
from losa_jax.models.backbones.scan_blocks import scan_blocks
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


def encode(blocks: Any, tokens: Float[Array, "n u h w c"],
           spec: base.BackboneSpec, *, taps: tuple[int, ...],
           tap_grid: tuple[int, int] | None, tap_norm: bool,
           place: NamedSharding | None = None,
           norm: Callable[[Array], Array] = lambda x: x,
           **settings: Any) -> base.ClipFeatures:
    """Returns the spatial mean of the last block, and the taps.

    Args:
      blocks, settings: see `scan_blocks`.
      tokens: the input of the first block.
      taps, tap_grid, tap_norm, place: see `VideoMae.features`.
      norm: maps the last block's output, float32, before the mean.
    """
    n, u, h, w, c = tokens.shape

    def tap(x: Array) -> Array:
        return resample.shape_tap(x.reshape(n, u, h, w, c), tap_grid, tap_norm,
                                  spec.norm_epsilon)

    x, tapped = scan_blocks(
        blocks, tokens.reshape(n, u * h * w, c), place,
        numbers=range(spec.depth), tap_layers=taps, tap=tap, **settings)
    x = norm(x.astype(jnp.float32))
    if tapped is None:
        tapped = jnp.zeros((0, n, u, 0, 0, c), tokens.dtype)
    return base.ClipFeatures(x.reshape(n, u, h * w, c).mean(axis=2), tapped)
