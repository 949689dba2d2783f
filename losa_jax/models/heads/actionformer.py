"""ActionFormer: a transformer pyramid that classifies every moment.

Source: Zhang et al., ECCV 2022, and its public code (MIT), but see `layers`.
"""

import dataclasses

import jax
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax import errors
from losa_jax.models.heads import layers, pyramid, pyramid_spec
from losa_jax.models.ops import attention, band_attention, conv
from losa_jax.models.ops.layers import LayerNorm, dropout, gelu


@dataclasses.dataclass(frozen=True)
class ActionFormerSpec(pyramid_spec.PyramidSpec):
    """Sizes and options of ActionFormer.

    Attributes:
      attention_heads: of each block; must divide `width`.
      attention_window: tokens of its level that a token attends to, with
        itself in the middle: a tuple of one odd number for all levels, or one
        a level; -1 and 1 are all tokens.
      relative_positions: add a learned number for each attention head and
        distance to the attention scores.
      dropout: share of attention and MLP outputs that are zeroed in training.

    Raises:
      InputError: names the field and what it allows.
    """

    attention_heads: int = 4
    attention_window: tuple[int, ...] = (19,)
    relative_positions: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        errors.check_whole(self, 1, "attention_heads")
        self.check_per_level("attention_window", other=-1)
        errors.check_between(self, 0, 1, "dropout", without=(1,))
        errors.check_heads(self, "attention_heads")


class LocalAttention(nnx.Module):
    """Attention to near tokens, after depthwise convolutions and norms."""

    def __init__(self, spec: ActionFormerSpec, window: int, stride: int,
                 rngs: nnx.Rngs):
        width, heads = spec.width, spec.attention_heads
        self.heads, self.window, self.stride = heads, window, stride
        for name in ("query", "key", "value"):
            setattr(self, f"{name}_conv", conv.DepthwiseConv(
                width, 3, stride=stride, rngs=rngs))
            setattr(self, f"{name}_norm", LayerNorm(width, layers.NORM_EPSILON))
            setattr(self, name, layers.Pointwise(width, width, rngs=rngs))
        self.proj = layers.Pointwise(width, width, rngs=rngs)
        init = nnx.initializers.truncated_normal((2 / width) ** 0.5)
        shape = (heads, 2 * (window // 2) + 1)
        self.relative = (nnx.Param(init(rngs.params(), shape))
                         if spec.relative_positions and window > 1 else None)

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 dropout_rate: float, drop_key: Array | None
                 ) -> Float[Array, "b s c"]:
        out_valid = valid[:, ::self.stride]
        keep = out_valid[..., None].astype(x.dtype)

        def project(name: str) -> Array:
            y = getattr(self, f"{name}_conv")(x) * keep
            y = getattr(self, name)(getattr(self, f"{name}_norm")(y))
            return rearrange(y, "b t (heads d) -> b t heads d",
                             heads=self.heads)

        query, key, value = map(project, ("query", "key", "value"))
        if self.window > 1:
            bias = None if self.relative is None else self.relative[...]
            out = band_attention.band_attention(
                query, key, value, out_valid, self.window // 2, bias)
        else:
            out = attention.attention(query, key, value,
                                      mask=out_valid[:, None, None, :])
        out = self.proj(rearrange(out, "b t heads d -> b t (heads d)"))
        return dropout(out, dropout_rate, drop_key) * keep


class TransformerBlock(nnx.Module):
    """Pre-norm block; with stride 2 it halves the time axis."""

    def __init__(self, spec: ActionFormerSpec, window: int, stride: int,
                 rngs: nnx.Rngs):
        c = spec.width
        self.stride, self.spec = stride, spec
        self.norm1 = LayerNorm(c, layers.NORM_EPSILON)
        self.attn = LocalAttention(spec, window, stride, rngs)
        self.norm2 = LayerNorm(c, layers.NORM_EPSILON)
        self.fc1 = layers.Pointwise(c, 4 * c, rngs=rngs)
        self.fc2 = layers.Pointwise(4 * c, c, rngs=rngs)
        # The learned scales exist only with drop path, as in the public code.
        self.attn_scale = layers.residual_scale(spec)
        self.mlp_scale = layers.residual_scale(spec)

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None) -> layers.Level:
        keys = [None] * 5 if key is None else jax.random.split(key, 5)
        normed = layers.masked(self.norm1(x), valid, self.spec)
        a = self.attn(normed, valid, self.spec.dropout, keys[0])
        skip = conv.max_pool_half(x) if self.stride == 2 else x
        valid = valid[:, ::self.stride]
        keep = valid[..., None].astype(x.dtype)
        a = layers.scaled_branch(a, self.attn_scale, self.spec, keys[1])
        x = skip * keep + a
        hidden = gelu(self.fc1(self.norm2(x)))
        hidden = dropout(hidden, self.spec.dropout, keys[2])
        m = dropout(self.fc2(hidden), self.spec.dropout, keys[3]) * keep
        m = layers.scaled_branch(m, self.mlp_scale, self.spec, keys[4])
        return x + m, valid


class ActionFormer(pyramid.PyramidHead):
    """ActionFormer: features of a window to classes and distances.

    Args:
      spec: an `ActionFormerSpec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    def __init__(self, spec: ActionFormerSpec, *, rngs: nnx.Rngs):
        super().__init__(spec, lambda level, stride: TransformerBlock(
            spec, spec.of_level(spec.attention_window, level), stride, rngs),
            2, rngs)
