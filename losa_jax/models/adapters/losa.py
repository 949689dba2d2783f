"""LoSA: long- and short-range adapters beside a frozen backbone.

After Gupta et al., WACV 2025 (arXiv 2404.01282), whose code is not public.
docs/method.md has the equations and the differences from the paper.

Sizes: b windows, n clips, u temporal tokens a clip, h w tap grid, c backbone
width, d adapter width, t = n u tokens of the window.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax import errors
from losa_jax.models.adapters.attention_pool import AttentionPool
from losa_jax.models.adapters.base import StackedAdapter
from losa_jax.models.ops import conv, layers, remat, resample
from losa_jax.models.ops.attention import attention
from losa_jax.models.ops.time_attention import TimeAttention

NORM_EPSILON = 1e-6
# Initial values large into the GELU, small out of the MLP.
MLP_INITS = (layers.scaled_normal(2.0), layers.scaled_normal(0.25))


@dataclasses.dataclass(frozen=True)
class LosaSpec:
    """Sizes and options of LoSA's adapters.

    Attributes:
      in_width, num_taps, clip_tokens, tap_grid: sizes c, k, u and (h, w) of
        the backbone's features.
      width: channels d of the adapters, a multiple of `attention_heads`; 0
        is `in_width` / 6, in multiples of 32 (of 8 for `in_width` below 384).
      tap_pool: what both ranges read: "grid", the tap's cells, or
        "attention", `pool_queries` learned weighted means of them.
      pool_queries: number k of these means for each temporal token.
      short_kernel: 3 filters the cells that the short range reads by a
        depthwise 3 x 3 convolution, for "grid"; 1 does not.
      short_grid: side s of the short-range feature map of "grid"; at most the
        tap's.
      long_grid: side of the map that the long range reads, cells averaged; 0
        is every cell.
      ranges: adapters to use, "short", "long" or "both".
      gates: "none" (per-channel factors that start at one), "sigmoid"
        (start at half), both with up-projections that start at zero; or
        "tanh" (start at zero, with ordinary up-projections).
      long_kernel: length of the long-range convolution in tokens; odd.
      long_mixer: "conv", depthwise along the window, or "attention" over it.
      long_key_pool: neighboring tokens averaged into a key of "attention".
      attention_heads: of both attentions; that over the window needs an even
        number of channels a head.
      mlp_ratio: hidden channels of the MLPs as a multiple of `width`; above 0.
      tap_residual: add the tap's own token to the cross-attention's output.
      cross_attention: False leaves the tap's own token alone.

    Raises:
      InputError: names the field and what it allows.
    """

    in_width: int
    num_taps: int
    clip_tokens: int
    tap_grid: tuple[int, int]
    width: int = 0
    tap_pool: str = "grid"
    pool_queries: int = 4
    short_kernel: int = 3
    short_grid: int = 2
    long_grid: int = 0
    ranges: str = "both"
    gates: str = "none"
    long_kernel: int = 3
    long_mixer: str = "conv"
    long_key_pool: int = 1
    attention_heads: int = 4
    mlp_ratio: float = 2.0
    tap_residual: bool = True
    cross_attention: bool = True

    def __post_init__(self) -> None:
        errors.check_flags(self)
        errors.check_choice(self, "tap_pool", ("grid", "attention"))
        errors.check_choice(self, "ranges", ("short", "long", "both"))
        errors.check_choice(self, "gates", ("none", "tanh", "sigmoid"))
        errors.check_choice(self, "long_mixer", ("conv", "attention"))
        errors.check_whole(self, 1, "in_width", "num_taps", "clip_tokens",
                           "pool_queries", "short_grid", "long_key_pool",
                           "attention_heads")
        errors.check_whole(self, 0, "width", "long_grid")
        errors.check_choice(self, "short_kernel", (1, 3))
        errors.check_odd(self, "long_kernel")
        errors.check_between(self, 0, math.inf, "mlp_ratio", without=(0,))
        errors.check_grid(self, "tap_grid")
        self._check_pool()
        if not (self.tap_residual or self.cross_attention):
            raise errors.InputError(
                f"LosaSpec.tap_residual={self.tap_residual} and LosaSpec."
                f"cross_attention={self.cross_attention} leave nothing of a "
                "clip: set one of them to True")
        if not self.width:
            # Up to 32 devices can then shard a large backbone's adapters.
            unit = 32 if self.in_width >= 384 else 8
            object.__setattr__(self, "width", max(
                8, round(self.in_width / 6 / unit) * unit))
        errors.check_heads(self, "attention_heads")
        if int(self.width * self.mlp_ratio) < 1:
            raise errors.InputError(
                f"LosaSpec.mlp_ratio={self.mlp_ratio} x LosaSpec.width="
                f"{self.width} is below 1: increase one of them")
        if self.long_mixer == "attention" and (
                self.width % (2 * self.attention_heads)):
            raise errors.InputError(
                "LosaSpec.long_mixer=attention: LosaSpec.width="
                f"{self.width} must be a multiple of 2 x LosaSpec."
                f"attention_heads={self.attention_heads} (rotary pairs)")

    def _check_pool(self) -> None:
        is_grid = self.tap_pool == "grid"
        for unused in (("pool_queries",) if is_grid
                       else ("short_kernel", "short_grid")):
            if getattr(self, unused) != getattr(LosaSpec, unused):
                raise errors.InputError(
                    f"LosaSpec.{unused}={getattr(self, unused)} has no effect "
                    f"with LosaSpec.tap_pool={self.tap_pool}: remove it, or "
                    "set LosaSpec.tap_pool="
                    f"{'attention' if is_grid else 'grid'}")
        if not is_grid and self.tap_grid == (1, 1):
            raise errors.InputError(
                "LosaSpec.tap_pool=attention has nothing to pool in taps of "
                f"one cell, LosaSpec.tap_grid={self.tap_grid}: give more "
                "cells, or set LosaSpec.tap_pool=grid")

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of what the adapters read."""
        return (self.tap_grid if self.tap_pool == "grid"
                else (self.pool_queries, 1))


class SpatialConv(nnx.Module):
    """Depthwise 3 x 3 over patches, pointwise c to d, pooled to s x s.

    Cells that attention pooled have no neighbors: pointwise alone.
    """

    def __init__(self, spec: LosaSpec, rngs: nnx.Rngs):
        is_grid = spec.tap_pool == "grid"
        # Starts as the identity.
        kernel = jnp.zeros((3, 3, spec.in_width)).at[1, 1].set(1.0)
        has_kernel = is_grid and spec.short_kernel == 3
        self.kernel = nnx.Param(kernel) if has_kernel else None
        rows, columns = spec.cells
        self.grid = ((min(spec.short_grid, rows),
                      min(spec.short_grid, columns))
                     if is_grid else spec.cells)
        self.down = layers.Linear(spec.in_width, spec.width, rngs=rngs)

    def __call__(self, tap: Float[Array, "m u h w c"]
                 ) -> Float[Array, "m u s1 s2 d"]:
        if self.kernel is not None:
            tap = conv.filter_grid(tap, self.kernel[...].astype(tap.dtype))
        return resample.pool_grid(layers.gelu(self.down(tap)), self.grid)


class ShortRangeAdapter(nnx.Module):
    """The adapter that sees one clip of a tap at a time."""

    def __init__(self, spec: LosaSpec, rngs: nnx.Rngs):
        d = spec.width
        self.spatial = SpatialConv(spec, rngs)
        cells = math.prod(self.spatial.grid)
        self.pool = layers.Linear(cells * d, d, rngs=rngs)
        self.cross_attention = spec.cross_attention
        self.tap_residual = spec.tap_residual
        if spec.cross_attention:
            self._add_attention(spec, cells, rngs)
        self.mlp_norm = layers.LayerNorm(d, NORM_EPSILON)
        self.mlp = layers.Mlp(d, int(d * spec.mlp_ratio), rngs, MLP_INITS)

    def _add_attention(self, spec: LosaSpec, cells: int, rngs: nnx.Rngs
                       ) -> None:
        d, u = spec.width, spec.clip_tokens
        # Attention alone does not know when in the clip a token is.
        init = nnx.initializers.normal(0.02)
        self.key_positions = nnx.Param(init(rngs.params(), (u, cells, d)))
        self.query_positions = nnx.Param(init(rngs.params(), (u, d)))
        self.query_norm = layers.LayerNorm(d, NORM_EPSILON)
        self.key_norm = layers.LayerNorm(d, NORM_EPSILON)
        self.from_last = layers.Linear(spec.in_width, d, rngs=rngs)
        self.query = layers.Linear(d, d, rngs=rngs)
        self.key_value = layers.Linear(d, 2 * d, rngs=rngs)
        self.out = layers.zero_linear(d, d, rngs=rngs)
        self.heads = spec.attention_heads

    def __call__(self, tap: Float[Array, "b n u h w c"],
                 last: Float[Array, "b n u c"], valid: Bool[Array, "b n u"]
                 ) -> Float[Array, "b t d"]:
        b, n, u = valid.shape
        x = self.spatial(rearrange(tap, "b n u h w c -> (b n) u h w c"))
        x = rearrange(x, "m u h w d -> m u (h w) d")
        y = own = self.pool(rearrange(x, "m u s d -> m u (s d)"))
        if self.cross_attention:
            y = self._attended(x, own, last, valid)
            y = y + own if self.tap_residual else y
        y = y + self.mlp(self.mlp_norm(y))
        return rearrange(y, "(b n) u d -> b (n u) d", b=b)

    def _attended(self, x: Float[Array, "m u s d"], own: Float[Array, "m u d"],
                  last: Float[Array, "b n u c"], valid: Bool[Array, "b n u"]
                  ) -> Float[Array, "m u d"]:
        """Returns what each step reads from all cells of its clip."""
        m, u, cells, _ = x.shape
        steps = rearrange(last, "b n u c -> (b n) u c").astype(x.dtype)
        query = self.query_norm(own + self.from_last(steps))
        query = self.query(query + self.query_positions[...].astype(x.dtype))
        tokens = self.key_norm(x) + self.key_positions[...].astype(x.dtype)
        key, value = jnp.split(self.key_value(tokens), 2, axis=-1)
        mask = jnp.repeat(valid.reshape(m, u), cells, axis=1)
        attended = attention(
            rearrange(query, "m u (e d) -> m u e d", e=self.heads),
            rearrange(key, "m u s (e d) -> m (u s) e d", e=self.heads),
            rearrange(value, "m u s (e d) -> m (u s) e d", e=self.heads),
            mask=mask[:, None, None, :])
        return self.out(rearrange(attended, "m u e d -> m u (e d)"))


class LongRangeAdapter(nnx.Module):
    """The adapter that sees a tap of the whole window."""

    def __init__(self, spec: LosaSpec, rngs: nnx.Rngs):
        d = spec.width
        rows, columns = spec.cells
        self.grid = (min(spec.long_grid or rows, rows),
                     min(spec.long_grid or columns, columns))
        self.down = layers.Linear(spec.in_width, d, rngs=rngs)
        self.attention = (TimeAttention(
            d, spec.attention_heads, spec.long_key_pool, rngs=rngs)
            if spec.long_mixer == "attention" else None)
        if self.attention is None:
            self.mixer = conv.DepthwiseConv(d, spec.long_kernel, rngs=rngs)
            self.pointwise = layers.Linear(d, d, rngs=rngs)
        self.mlp_norm = layers.LayerNorm(d, NORM_EPSILON)
        self.mlp = layers.Mlp(d, int(d * spec.mlp_ratio), rngs, MLP_INITS)

    def __call__(self, tap: Float[Array, "b n u h w c"],
                 valid: Bool[Array, "b n u"]) -> Float[Array, "b t d"]:
        x = rearrange(tap, "b n u h w c -> b (n u) h w c")
        if self.grid != x.shape[2:4]:
            x = resample.pool_grid(x, self.grid)
        x = rearrange(x, "b t h w c -> b t (h w) c")
        keep = rearrange(valid, "b n u -> b (n u) 1 1").astype(x.dtype)
        x = layers.gelu(self.down(x)) * keep
        if self.attention is None:
            x = x + self.pointwise(self.mixer(x))
        else:
            x = x + self.attention(x, rearrange(valid, "b n u -> b (n u)"))
        # Linear maps after the mean over cells: the same for less work.
        hidden = layers.gelu(self.mlp.fc1(self.mlp_norm(x))).mean(axis=2)
        return x.mean(axis=2) + self.mlp.fc2(hidden)


class TapAdapters(nnx.Module):
    """The adapters of one tap, whose sum is added to the last features."""

    def __init__(self, spec: LosaSpec, rngs: nnx.Rngs):
        self.pool = (AttentionPool(
            spec.in_width, math.prod(spec.tap_grid), spec.pool_queries, rngs)
            if spec.tap_pool == "attention" else None)
        self.short = (ShortRangeAdapter(spec, rngs)
                      if spec.ranges != "long" else None)
        self.long = (LongRangeAdapter(spec, rngs)
                     if spec.ranges != "short" else None)
        if self.short is not None:
            self.short_gate = GatedUp(spec, rngs)
        if self.long is not None:
            self.long_gate = GatedUp(spec, rngs)

    def __call__(self, tap: Float[Array, "b n u h w c"],
                 last: Float[Array, "b n u c"], valid: Bool[Array, "b n u"]
                 ) -> Float[Array, "b t c"]:
        if self.pool is not None:
            tap = self.pool(tap)
        parts = []
        if self.short is not None:
            parts.append(self.short_gate(self.short(tap, last, valid)))
        if self.long is not None:
            parts.append(self.long_gate(self.long(tap, valid)))
        return sum(parts[1:], start=parts[0])


class GatedUp(nnx.Module):
    """gate * up(x), exactly zero at step 0."""

    def __init__(self, spec: LosaSpec, rngs: nnx.Rngs):
        # A tanh gate starts at zero; the others need a zero map.
        start = layers.Linear if spec.gates == "tanh" else layers.zero_linear
        self.up = start(spec.width, spec.in_width, rngs=rngs)
        value = 1.0 if spec.gates == "none" else 0.0
        self.gate = nnx.Param(jnp.full(spec.in_width, value))
        self.form = spec.gates

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t c"]:
        gate = self.gate[...]
        if self.form == "tanh":
            gate = jnp.tanh(gate)
        elif self.form == "sigmoid":
            gate = jax.nn.sigmoid(gate)
        return self.up(x) * gate.astype(x.dtype)


class LosaAdapter(StackedAdapter):
    """All taps' adapters beside the frozen backbone, and their gated fusion.

    It reads taps whose tokens are standardized over their channels, as a
    backbone's `features` returns them.

    Args:
      spec: a `LosaSpec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    _scan = staticmethod(remat.short_scan)

    def __init__(self, spec: LosaSpec, *, rngs: nnx.Rngs):
        super().__init__(spec, lambda rngs: TapAdapters(spec, rngs), rngs)
