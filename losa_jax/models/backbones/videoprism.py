"""VideoPrism: a factorized video encoder, and the video side of its LvT.

Source: the model definition of VideoPrism
(github.com/google-deepmind/videoprism, Apache-2.0). Spatial blocks attend among
the patches of one frame, temporal blocks among the times of one patch. LvT,
trained with captions, adds auxiliary blocks over all tokens and a pooler that
gives one embedding for a clip or a frame.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.sharding import NamedSharding
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from losa_jax import errors
from losa_jax.models.backbones import base
from losa_jax.models.backbones.scan_blocks import scan_blocks
from losa_jax.models.ops import layers, params, resample
from losa_jax.models.ops.attention import attention

SOFT_CAP = 50.0  # of the attention scores in all blocks
LENGTH_EPSILON = 1e-12  # of the embeddings' squared length
# VideoPrism's configs; an LvT has two auxiliary blocks more.
_BASE = dict(width=768, depth=16, heads=12, mlp_width=3072, patch=18,
             temporal_depth=4, auxiliary_depth=0, position_frames=16)
_LARGE = dict(width=1024, depth=28, heads=16, mlp_width=4096, patch=18,
              temporal_depth=4, auxiliary_depth=0, position_frames=8)
SIZES = {
    "videoprism_b": _BASE,
    "videoprism_l": _LARGE,
    "videoprism_lvt_b": {**_BASE, "depth": 18, "auxiliary_depth": 2},
    "videoprism_lvt_l": {**_LARGE, "depth": 30, "auxiliary_depth": 2},
}


@dataclasses.dataclass(frozen=True)
class VideoPrismSpec(base.BackboneSpec):
    """Sizes of a checkpoint of VideoPrism, or of its LvT's video side.

    Attributes:
      width: channels c of every token, a multiple of `heads`.
      depth: all blocks: spatial, then temporal, then auxiliary.
      heads, mlp_width: attention heads of a block; hidden channels of its MLP.
      patch: side of a patch in pixels.
      tubelet: 1, since every frame has its own tokens.
      clip_frames: frames of a clip.
      image_size: height and width in pixels of the table of spatial positions,
        which is resampled for other sizes.
      temporal_depth: temporal blocks.
      auxiliary_depth: auxiliary blocks of an LvT; 0 is the video encoder.
      position_frames: length of the table of temporal positions, which is
        resampled for other lengths.
      norm_epsilon: of all norms, and of the standardization of taps.

    Raises:
      InputError: names the field and what it allows.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    patch: int = 18
    tubelet: int = 1
    clip_frames: int = 16
    image_size: tuple[int, int] = (288, 288)
    temporal_depth: int = 4
    auxiliary_depth: int = 0
    position_frames: int = 16
    norm_epsilon: float = 1e-6

    has_fixed_frames: ClassVar[bool] = False
    pixel_mean: ClassVar[tuple[float, float, float]] = (0.0, 0.0, 0.0)
    pixel_std: ClassVar[tuple[float, float, float]] = (255.0, 255.0, 255.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.check_whole(self, 1, "heads", "mlp_width", "temporal_depth",
                           "position_frames")
        errors.check_whole(self, 0, "auxiliary_depth")
        errors.check_choice(self, "tubelet", (1,))
        errors.check_between(self, 0, math.inf, "norm_epsilon", without=(0,))
        errors.check_heads(self, "heads")
        if self.spatial_depth < 1:
            raise errors.InputError(
                f"VideoPrismSpec.depth={self.depth} leaves no spatial block "
                f"beside {self.temporal_depth} temporal and "
                f"{self.auxiliary_depth} auxiliary ones: give more")

    @property
    def spatial_depth(self) -> int:
        """Number of spatial blocks."""
        return self.depth - self.temporal_depth - self.auxiliary_depth

    @property
    def last_pooling(self) -> str:  # type: ignore[override]
        """Description of `ClipFeatures.last`."""
        return ("LvT's embedding of each frame, of unit length"
                if self.auxiliary_depth else
                "final norm of every token, then the mean of the patches")

    @property
    def clip_pooling(self) -> str:
        """Description of `VideoPrism.mean_features`."""
        return ("LvT's embedding of the clip, of unit length"
                if self.auxiliary_depth else
                "final norm of every token, then their mean")


class OffsetNorm(nnx.Module):
    """Layer norm whose stored scale is an offset from 1."""

    def __init__(self, width: int, epsilon: float):
        self.scale = nnx.Param(jnp.zeros(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
        y = layers.standardize(x, self.epsilon)
        return (y * (1 + self.scale[...]) + self.bias[...]).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head self-attention with capped scores."""

    def __init__(self, spec: VideoPrismSpec, rngs: nnx.Rngs):
        c = spec.width
        self.query = layers.Linear(c, c, rngs=rngs)
        self.key = layers.Linear(c, c, rngs=rngs)
        self.value = layers.Linear(c, c, rngs=rngs)
        self.post = layers.Linear(c, c, rngs=rngs)
        self.heads = spec.heads

    def __call__(self, x: Float[Array, "n t c"],
                 place: NamedSharding | None = None) -> Float[Array, "n t c"]:
        query, key, value = (
            rearrange(part(x), "n t (heads d) -> n t heads d",
                      heads=self.heads)
            for part in (self.query, self.key, self.value))
        out = attention(query, key, value, place=place, soft_cap=SOFT_CAP)
        return self.post(rearrange(out, "n t heads d -> n t (heads d)"))


class Block(nnx.Module):
    """Pre-norm transformer block."""

    def __init__(self, spec: VideoPrismSpec, rngs: nnx.Rngs):
        self.norm1 = OffsetNorm(spec.width, spec.norm_epsilon)
        self.attn = Attention(spec, rngs)
        self.norm2 = OffsetNorm(spec.width, spec.norm_epsilon)
        self.mlp = layers.Mlp(spec.width, spec.mlp_width, rngs)

    def __call__(self, x: Float[Array, "n t c"],
                 place: NamedSharding | None = None) -> Float[Array, "n t c"]:
        x = x + self.attn(self.norm1(x), place)
        return x + self.mlp(self.norm2(x))


class Pooler(nnx.Module):
    """LvT's attention of one learned query to tokens: one embedding.

    Its heads are four times as wide as a block's.
    """

    def __init__(self, spec: VideoPrismSpec, rngs: nnx.Rngs):
        c, hidden = spec.width, 4 * spec.width
        self.token = nnx.Param(jnp.zeros((1, c)))
        self.query = layers.Linear(c, hidden, rngs=rngs)
        self.key = layers.Linear(c, hidden, rngs=rngs)
        self.value = layers.Linear(c, hidden, rngs=rngs)
        self.dimension_scale = nnx.Param(jnp.zeros(hidden // spec.heads))
        self.post = layers.Linear(hidden, c, rngs=rngs)
        self.norm = OffsetNorm(c, spec.norm_epsilon)
        self.heads = spec.heads

    def __call__(self, x: Float[Array, "n t c"],
                 place: NamedSharding | None = None) -> Float[Array, "n c"]:
        """Returns float32 embeddings, which are not of unit length yet."""
        query, key, value = (
            rearrange(part, "n t (heads d) -> n t heads d", heads=self.heads)
            for part in (self.query(self.token[...][None].astype(x.dtype)),
                         self.key(x), self.value(x)))
        # Where the scale is zero, 1 / ln 2 and the softplus cancel.
        scale = jax.nn.softplus(self.dimension_scale[...]) / math.log(2)
        query = query * scale.astype(x.dtype)
        query = jnp.broadcast_to(query, (len(x), *query.shape[1:]))
        out = attention(query, key, value, place=place)
        out = self.post(rearrange(out, "n 1 heads d -> n (heads d)"))
        return self.norm(out.astype(jnp.float32))


def unit_length(x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
    """Returns vectors divided by their length."""
    square = jnp.square(x).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(square + LENGTH_EPSILON)


class FactorizedEncoder(nnx.Module):
    """Patches of each frame, spatial blocks, temporal blocks, final norm."""

    def __init__(self, spec: VideoPrismSpec, rngs: nnx.Rngs):
        c, (rows, columns) = spec.width, spec.grid
        self.spec = spec
        self.patch_projection = layers.Linear(3 * spec.patch ** 2, c,
                                              rngs=rngs)
        init = nnx.initializers.normal(0.02)
        self.spatial_positions = nnx.Param(
            init(rngs.params(), (rows * columns, c)))
        self.temporal_positions = nnx.Param(
            init(rngs.params(), (spec.position_frames, c)))
        self.spatial_blocks = params.stacked(
            lambda rngs: Block(spec, rngs), spec.spatial_depth, rngs)
        self.spatial_norm = OffsetNorm(c, spec.norm_epsilon)
        self.temporal_blocks = params.stacked(
            lambda rngs: Block(spec, rngs), spec.temporal_depth, rngs)
        self.temporal_norm = OffsetNorm(c, spec.norm_epsilon)

    def embed(self, clips: ArrayLike, dtype: DTypeLike = jnp.float32
              ) -> Float[Array, "n u h w c"]:
        """Returns the patches of clips as tokens, without positions.

        Pixels that no whole patch covers are left out.
        """
        pixels = base.normalized_pixels(clips, self.spec).astype(dtype)
        p = self.spec.patch
        rows, columns = pixels.shape[2] // p, pixels.shape[3] // p
        return self.patch_projection(rearrange(
            pixels[:, :, :rows * p, :columns * p],
            "n u (h p) (w q) rgb -> n u h w (p q rgb)", p=p, q=p))

    def grid_table(self, grid: tuple[int, int]) -> Float[Array, "h w c"]:
        """Returns the spatial positions of a grid, resampled to it."""
        # Linear, and smoothed where the table shrinks, as in the public code.
        table = self.spatial_positions[...]
        return jax.image.resize(
            table.reshape(*self.spec.grid, -1), (*grid, table.shape[-1]),
            "bilinear")

    def time_table(self, length: int) -> Float[Array, "u c"]:
        """Returns the temporal positions of a clip, resampled to its length."""
        table = self.temporal_positions[...]
        return jax.image.resize(table, (length, table.shape[-1]), "bilinear")


class VideoPrism(nnx.Module):
    """The frozen video encoder, or an LvT's video side; sees each clip alone.

    Args:
      spec: a `VideoPrismSpec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    def __init__(self, spec: VideoPrismSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        # Two names, as in the public checkpoints of the two models.
        if spec.auxiliary_depth:
            self.vision_encoder = FactorizedEncoder(spec, rngs)
            self.auxiliary_blocks = params.stacked(
                lambda rngs: Block(spec, rngs), spec.auxiliary_depth, rngs)
            self.pooler = Pooler(spec, rngs)
        else:
            self.encoder = FactorizedEncoder(spec, rngs)

    def features(self, clips: ArrayLike, *, taps: tuple[int, ...] = (),
                 tap_grid: tuple[int, int] | None = None,
                 tap_norm: bool = True, dtype: DTypeLike = jnp.float32,
                 place: NamedSharding | None = None) -> base.ClipFeatures:
        """Returns one vector a frame, and the taps.

        `last` has the mean of a frame's features, which are tokens after the
        final norm, or an LvT's embedding of the frame. Taps of spatial blocks
        see their own frame only. See `VideoMae.features` for the arguments;
        clips may have any number of frames.
        """
        base.check_taps(taps, self.spec)
        tokens, tapped = self.tokens(clips, taps, tap_grid, tap_norm, dtype,
                                     place)
        if self.spec.auxiliary_depth:
            last = unit_length(self.pooled_frames(tokens, place))
        else:
            last = tokens.astype(jnp.float32).mean(axis=(2, 3))
        if tapped is None:
            tapped = jnp.zeros((0, *last.shape[:2], 0, 0, last.shape[-1]),
                               dtype)
        return base.ClipFeatures(last, tapped)

    def mean_features(self, clips: ArrayLike, dtype: DTypeLike = jnp.float32
                      ) -> Float[Array, "n c"]:
        """Returns one vector a clip, which `spec.clip_pooling` describes."""
        tokens, _ = self.tokens(clips, dtype=dtype)
        if self.spec.auxiliary_depth:
            return unit_length(self.pooled_clips(tokens))
        return tokens.astype(jnp.float32).mean(axis=(1, 2, 3))

    def tokens(self, clips: ArrayLike, taps: tuple[int, ...] = (),
               tap_grid: tuple[int, int] | None = None, tap_norm: bool = True,
               dtype: DTypeLike = jnp.float32,
               place: NamedSharding | None = None
               ) -> tuple[Float[Array, "n u h w c"], Array | None]:
        """Returns tokens after the final norm and, in an LvT, the auxiliary
        blocks; and the taps, or None without any."""
        spec = self.spec
        encoder = (self.vision_encoder if spec.auxiliary_depth
                   else self.encoder)
        x = encoder.embed(clips, dtype)
        n, u, h, w, _ = x.shape
        sizes = dict(n=n, u=u, h=h, w=w)
        temporal = spec.spatial_depth
        auxiliary = temporal + spec.temporal_depth

        def run(blocks, first, last, layout, x, tapped):
            """Runs blocks first .. last - 1, in their layout of tokens."""
            def tap(x: Array) -> Array:
                return resample.shape_tap(
                    rearrange(x, f"{layout} c -> n u h w c", **sizes),
                    tap_grid, tap_norm, spec.norm_epsilon)

            x, tapped = scan_blocks(
                blocks, rearrange(x, f"n u h w c -> {layout} c"), place,
                numbers=range(first, last), tap_layers=taps, tap=tap,
                taps=tapped)
            return rearrange(x, f"{layout} c -> n u h w c", **sizes), tapped

        x = x + encoder.grid_table((h, w)).astype(dtype)
        x, tapped = run(encoder.spatial_blocks, 0, temporal, "(n u) (h w)",
                        x, None)
        x = encoder.spatial_norm(x)
        x = x + encoder.time_table(u)[:, None, None].astype(dtype)
        x, tapped = run(encoder.temporal_blocks, temporal, auxiliary,
                        "(n h w) u", x, tapped)
        x = encoder.temporal_norm(x)
        if spec.auxiliary_depth:
            x, tapped = run(self.auxiliary_blocks, auxiliary, spec.depth,
                            "n (u h w)", x, tapped)
        return x, tapped

    def pooled_frames(self, tokens: Float[Array, "n u h w c"],
                      place: NamedSharding | None = None
                      ) -> Float[Array, "n u c"]:
        """Returns an LvT's pooled tokens of each frame, not normalized."""
        n = len(tokens)
        pooled = self.pooler(rearrange(tokens, "n u h w c -> (n u) (h w) c"),
                             place)
        return rearrange(pooled, "(n u) c -> n u c", n=n)

    def pooled_clips(self, tokens: Float[Array, "n u h w c"]
                     ) -> Float[Array, "n c"]:
        """Returns an LvT's pooled tokens of each clip, not normalized."""
        return self.pooler(rearrange(tokens, "n u h w c -> n (u h w) c"))
