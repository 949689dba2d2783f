"""The VideoMAE / VideoMAEv2 video transformer.

Source: the model definition of VideoMAEv2 (github.com/OpenGVLab/VideoMAEv2,
MIT): pre-norm blocks, biases on query and value only, exact GELU.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from losa_jax import errors
from losa_jax.models.backbones import base
from losa_jax.models.backbones.scan_blocks import scan_blocks
from losa_jax.models.ops import layers, params, positions, resample
from losa_jax.models.ops.attention import attention

# VideoMAEv2's cosine attention: exp(4.6052) = 100.
MAX_LOGIT_SCALE = 4.6052
# Description of `VideoMae.mean_features` by the checkpoint's final norm.
POOLING = {"norm": "final norm of every token, then their mean",
           "fc_norm": "mean of all tokens, then the final norm",
           "none": "mean of all tokens; the weights have no final norm"}
# VideoMAE's and VideoMAEv2's model definitions; ViT-g's hidden layers are
# 48 / 11 of its width.
SIZES = {
    "vit_s": dict(width=384, depth=12, heads=6, mlp_width=1536, patch=16),
    "vit_b": dict(width=768, depth=12, heads=12, mlp_width=3072, patch=16),
    "vit_l": dict(width=1024, depth=24, heads=16, mlp_width=4096, patch=16),
    "vit_h": dict(width=1280, depth=32, heads=16, mlp_width=5120, patch=16),
    "vit_g": dict(width=1408, depth=40, heads=16, mlp_width=6144, patch=14),
}


@dataclasses.dataclass(frozen=True)
class VideoMaeSpec(base.BackboneSpec):
    """Sizes and variants of a checkpoint of VideoMAE or VideoMAEv2.

    Attributes:
      width: channels c of every token, a multiple of `heads`.
      depth, heads, mlp_width: blocks; their attention heads; hidden channels of
        their MLPs.
      patch: side of a patch in pixels.
      tubelet: frames of one temporal token.
      clip_frames: frames of a clip, a multiple of `tubelet`.
      image_size: height and width in pixels of the position table, which is
        resampled for other sizes.
      positions: "sincos" (computed, in no checkpoint) or "learned".
      layer_scale: whether each branch of a block has a learned scale.
      cosine_attention: whether queries and keys have unit length and their
        product a learned factor (VideoMAEv2's ViT-g).
      final_norm: "norm" (all tokens), "fc_norm" (after their mean) or "none".
      num_classes: outputs of the checkpoint's classifier; 0 without one.
      norm_epsilon: of the blocks' norms, and of the standardization of taps.
      final_norm_epsilon: 1e-6 for VideoMAEv2, 1e-5 for Hugging Face fc_norm.

    Raises:
      InputError: names the field and what it allows.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: int = 16
    tubelet: int = 2
    clip_frames: int = 16
    image_size: tuple[int, int] = (224, 224)
    positions: str = "sincos"
    layer_scale: bool = False
    cosine_attention: bool = False
    final_norm: str = "fc_norm"
    num_classes: int = 0
    norm_epsilon: float = 1e-6
    final_norm_epsilon: float = 1e-6

    has_fixed_frames: ClassVar[bool] = True
    pixel_mean: ClassVar[tuple[float, float, float]] = base.IMAGENET_MEAN
    pixel_std: ClassVar[tuple[float, float, float]] = base.IMAGENET_STD
    last_pooling: ClassVar[str] = (
        "mean of the patches of each token, no final norm")

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.check_whole(self, 1, "heads", "mlp_width")
        errors.check_flags(self)
        errors.check_choice(self, "positions", ("sincos", "learned"))
        errors.check_choice(self, "final_norm", POOLING)
        errors.check_whole(self, 0, "num_classes")
        errors.check_between(self, 0, math.inf, "norm_epsilon",
                             "final_norm_epsilon", without=(0,))
        errors.check_heads(self, "heads")

    @property
    def clip_pooling(self) -> str:
        """Description of `VideoMae.mean_features`."""
        return POOLING[self.final_norm]


class Attention(nnx.Module):
    """Multi-head self-attention; the key has no bias."""

    def __init__(self, spec: VideoMaeSpec, rngs: nnx.Rngs):
        c = spec.width
        self.qkv = layers.Linear(c, 3 * c, bias=False, rngs=rngs)
        self.q_bias = nnx.Param(jnp.zeros(c))
        self.v_bias = nnx.Param(jnp.zeros(c))
        scale = jnp.full(spec.heads, np.log(10.0))
        self.logit_scale = nnx.Param(scale) if spec.cosine_attention else None
        self.proj = layers.Linear(c, c, rngs=rngs)
        self.heads = spec.heads

    def __call__(self, x: Float[Array, "n t c"],
                 place: NamedSharding | None = None) -> Float[Array, "n t c"]:
        q_bias, v_bias = self.q_bias[...], self.v_bias[...]
        bias = jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias])
        qkv = self.qkv(x) + bias.astype(x.dtype)
        query, key, value = rearrange(
            qkv, "n t (three heads d) -> three n t heads d", three=3,
            heads=self.heads)
        scale = None
        if self.logit_scale is not None:
            factor = jnp.exp(jnp.minimum(self.logit_scale[...],
                                         MAX_LOGIT_SCALE))
            query = _unit_length(query) * factor[:, None].astype(x.dtype)
            key = _unit_length(key)
            scale = 1.0
        out = attention(query, key, value, scale=scale, place=place)
        return self.proj(rearrange(out, "n t heads d -> n t (heads d)"))


def _unit_length(x: Float[Array, "*s d"]) -> Float[Array, "*s d"]:
    norm = jnp.linalg.norm(x.astype(jnp.float32), axis=-1, keepdims=True)
    return x / jnp.maximum(norm, 1e-12).astype(x.dtype)


class Block(nnx.Module):
    """Pre-norm transformer block, optionally with LayerScale."""

    def __init__(self, spec: VideoMaeSpec, rngs: nnx.Rngs):
        self.norm1 = layers.LayerNorm(spec.width, spec.norm_epsilon)
        self.attn = Attention(spec, rngs)
        self.norm2 = layers.LayerNorm(spec.width, spec.norm_epsilon)
        self.mlp = layers.Mlp(spec.width, spec.mlp_width, rngs)
        scale = jnp.full(spec.width, 0.1)
        self.gamma_1 = nnx.Param(scale) if spec.layer_scale else None
        self.gamma_2 = nnx.Param(scale) if spec.layer_scale else None

    def __call__(self, x: Float[Array, "n t c"],
                 drop_rate: float | Float[Array, ""] = 0.0,
                 key: Array | None = None, place: NamedSharding | None = None
                 ) -> Float[Array, "n t c"]:
        """Returns the block's output; key None drops no branch."""
        keys = (None, None) if key is None else jax.random.split(key)
        a = self.attn(self.norm1(x), place)
        if self.gamma_1 is not None:
            a = a * self.gamma_1[...].astype(a.dtype)
        x = x + layers.drop_path(a, drop_rate, keys[0])
        m = self.mlp(self.norm2(x))
        if self.gamma_2 is not None:
            m = m * self.gamma_2[...].astype(m.dtype)
        return x + layers.drop_path(m, drop_rate, keys[1])


class PatchEmbed(nnx.Module):
    """Tubelets of pixels to tokens: a convolution that does not overlap."""

    def __init__(self, spec: VideoMaeSpec, rngs: nnx.Rngs):
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


class VideoMae(nnx.Module):
    """The frozen video transformer, which sees each clip alone.

    Blocks run in a scan, so that compile time does not grow with depth.

    Args:
      spec: a `VideoMaeSpec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    def __init__(self, spec: VideoMaeSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.patch_embed = PatchEmbed(spec, rngs)
        if spec.positions == "learned":
            init = nnx.initializers.normal(0.02)
            shape = (spec.clip_tokens, *spec.grid, spec.width)
            self.pos_embed = nnx.Param(init(rngs.params(), shape))
        self.blocks = params.stacked(lambda rngs: Block(spec, rngs),
                                     spec.depth, rngs)
        if spec.final_norm == "norm":
            self.norm = layers.LayerNorm(spec.width, spec.final_norm_epsilon)
        elif spec.final_norm == "fc_norm":
            self.fc_norm = layers.LayerNorm(spec.width, spec.final_norm_epsilon)
        if spec.num_classes:
            self.classifier = layers.Linear(spec.width, spec.num_classes,
                                            rngs=rngs)

    def embed(self, clips: ArrayLike, dtype: DTypeLike = jnp.float32
              ) -> Float[Array, "n u h w c"]:
        """Returns clips as tokens, with positions added."""
        spec = self.spec
        pixels = base.normalized_pixels(clips, spec)
        tokens = self.patch_embed(pixels.astype(dtype))
        if spec.positions == "learned":
            table = self.pos_embed[...]
        else:
            table = jnp.asarray(positions.sincos_table(
                spec.clip_tokens, *spec.grid, spec.width))
        _, _, rows, columns, _ = tokens.shape
        table = positions.resize_grid(table, (rows, columns))
        return tokens + table.astype(dtype)

    def features(self, clips: ArrayLike, *, taps: tuple[int, ...] = (),
                 tap_grid: tuple[int, int] | None = None,
                 tap_norm: bool = True, dtype: DTypeLike = jnp.float32,
                 place: NamedSharding | None = None) -> base.ClipFeatures:
        """Returns the spatial mean of the last block, and the taps.

        `last` has float32 features of the u = f / tubelet temporal tokens, not
        standardized and without final norm. Taps have the `dtype`; without any
        their shape is [0, n, u, 0, 0, c].

        Args:
          clips: uint8 or float [n, f, H, W, 3], RGB 0..255, of
            `spec.clip_frames` frames. H and W may differ from
            `spec.image_size`; pixels that no whole patch covers are left out.
          taps: ascending numbers of the tapped blocks, 0 .. depth - 1.
          tap_grid: rows and columns to which each tap is average-pooled; None
            keeps every patch.
          tap_norm: whether each tapped token is standardized over its channels
            first (False for `LadderAdapter`).
          dtype: of the blocks' computation and of the taps.
          place: how the clips are sharded over devices.

        Raises:
          InputError: another number of frames, frames smaller than a patch,
            or taps that do not ascend or are not blocks.
        """
        base.check_taps(taps, self.spec)
        tokens = self.embed(clips, dtype)
        n, u, h, w, c = tokens.shape

        def tap(x: Array) -> Array:
            return resample.shape_tap(x.reshape(n, u, h, w, c), tap_grid,
                                      tap_norm, self.spec.norm_epsilon)

        x, tapped = self.run_blocks(tokens.reshape(n, u * h * w, c), taps,
                                    tap, place)
        pooled = x.reshape(n, u, h * w, c).astype(jnp.float32).mean(axis=2)
        if tapped is None:
            tapped = jnp.zeros((0, n, u, 0, 0, c), dtype)
        return base.ClipFeatures(pooled, tapped)

    def run_blocks(self, x: Float[Array, "n t c"],
                   tap_layers: tuple[int, ...] = (),
                   tap: Callable[[Array], Array] = lambda x: x,
                   place: NamedSharding | None = None
                   ) -> tuple[Float[Array, "n t c"], Array | None]:
        """Returns the last block's output, and taps [k, ...] or None.

        `tap` maps the output of each of the ascending `tap_layers` to its tap.
        """
        return scan_blocks(self.blocks, x, place,
                           numbers=range(self.spec.depth),
                           tap_layers=tap_layers, tap=tap)

    def mean_features(self, clips: ArrayLike, dtype: DTypeLike = jnp.float32
                      ) -> Float[Array, "n c"]:
        """Returns one vector a clip, which `spec.clip_pooling` describes."""
        x = self.embed(clips, dtype)
        tokens, _ = self.run_blocks(x.reshape(x.shape[0], -1, x.shape[-1]))
        tokens = tokens.astype(jnp.float32)
        if self.spec.final_norm == "norm":
            return self.norm(tokens).mean(axis=1)
        mean = tokens.mean(axis=1)
        return self.fc_norm(mean) if self.spec.final_norm == "fc_norm" else mean
