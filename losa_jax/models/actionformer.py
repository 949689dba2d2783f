"""ActionFormer: a transformer pyramid that classifies every moment.

Source: Zhang et al., ECCV 2022, and its public code (MIT); exact numbers in
shared/reference/heads_and_recipes.md, D1.
Differs from ActionFormer: tokens are masked again after each norm and
activation, so a norm's bias in the padding cannot reach the last real steps
through the next convolution (trap E2; OpenTAD masks again too).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax.models.attention import attention
from losa_jax.models.layers import (
    DepthwiseConv,
    MaskedConv,
    drop_path,
    dropout,
    flat_product,
    max_pool_half,
    torch_uniform,
)
from losa_jax.models.positions import sincos_table
from losa_jax.models.vit import LayerNorm

NORM_EPSILON = 1e-5
# ActionFormer: the residual scale that comes with drop path starts here.
RESIDUAL_SCALE = 1e-4


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """Sizes of the head; the keys of the config section `head`.

    Attributes:
      attention_window: tokens that a token sees, itself in the middle; one
        number for all levels, or one a level; -1 is the whole window.
      regression_ranges: of each level, in level-0 tokens, ends included.
    """

    in_width: int
    num_classes: int
    width: int = 512
    num_levels: int = 6
    num_embedding_convs: int = 2
    num_stem_blocks: int = 2
    attention_heads: int = 4
    attention_window: tuple[int, ...] = (19,)
    head_layers: int = 3
    prior_probability: float = 0.01
    absolute_positions: bool = False
    max_tokens: int = 2304
    drop_path: float = 0.1
    dropout: float = 0.0

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(2 ** level for level in range(self.num_levels))

    def window(self, level: int) -> int:
        windows = self.attention_window
        return windows[level] if len(windows) > 1 else windows[0]


class ConvNormRelu(nnx.Module):
    """Masked convolution without bias, layer norm, ReLU, masked again."""

    def __init__(self, in_width: int, out_width: int, rngs: nnx.Rngs):
        self.conv = MaskedConv(in_width, out_width, 3, bias=False, rngs=rngs)
        self.norm = LayerNorm(out_width, NORM_EPSILON)

    def __call__(self, x: Array, valid: Array) -> Array:
        y = jax.nn.relu(self.norm(self.conv(x, valid)))
        return y * valid[..., None].astype(y.dtype)


class Pointwise(nnx.Module):
    """A linear map with torch's default start and a zero bias."""

    def __init__(self, in_width: int, out_width: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(
            torch_uniform(rngs.params(), (in_width, out_width)))
        self.bias = nnx.Param(jnp.zeros(out_width))

    def __call__(self, x: Array) -> Array:
        y = flat_product(x, self.kernel[...])
        return y + self.bias[...].astype(x.dtype)


class LocalAttention(nnx.Module):
    """Multi-head attention of each token to a band around it.

    Query, key and value pass a depthwise convolution and a norm first. A
    dense band mask equals ActionFormer's chunked form (measured: 1.2e-7).
    """

    def __init__(self, width: int, heads: int, window: int, stride: int,
                 rngs: nnx.Rngs):
        self.heads, self.window, self.stride = heads, window, stride
        for name in ("query", "key", "value"):
            setattr(self, f"{name}_conv", DepthwiseConv(
                width, 3, stride=stride, rngs=rngs))
            setattr(self, f"{name}_norm", LayerNorm(width, NORM_EPSILON))
            setattr(self, name, Pointwise(width, width, rngs))
        self.proj = Pointwise(width, width, rngs)

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 dropout_rate: float, key: Array | None
                 ) -> Float[Array, "b s c"]:
        out_valid = valid[:, ::self.stride]
        keep = out_valid[..., None].astype(x.dtype)

        def project(name: str) -> Array:
            y = getattr(self, f"{name}_conv")(x) * keep
            y = getattr(self, name)(getattr(self, f"{name}_norm")(y))
            return rearrange(y, "b t (heads d) -> b t heads d",
                             heads=self.heads)

        tokens = out_valid.shape[1]
        mask = out_valid[:, None, None, :]
        if self.window > 0:
            index = jnp.arange(tokens)
            band = jnp.abs(index[:, None] - index) <= self.window // 2
            mask = mask & band[None, None]
        out = attention(project("query"), project("key"), project("value"),
                        mask=mask)
        out = self.proj(rearrange(out, "b t heads d -> b t (heads d)"))
        return dropout(out, dropout_rate, key) * keep


class TransformerBlock(nnx.Module):
    """Pre-norm block; with stride 2 it halves the time axis."""

    def __init__(self, spec: HeadSpec, window: int, stride: int,
                 rngs: nnx.Rngs):
        c = spec.width
        self.norm1 = LayerNorm(c, NORM_EPSILON)
        self.attn = LocalAttention(c, spec.attention_heads, window, stride,
                                   rngs)
        self.norm2 = LayerNorm(c, NORM_EPSILON)
        self.fc1 = Pointwise(c, 4 * c, rngs)
        self.fc2 = Pointwise(4 * c, c, rngs)
        # The learned scales exist only together with drop path (D1).
        scaled = spec.drop_path > 0
        scale = jnp.full(c, RESIDUAL_SCALE)
        self.attn_scale = nnx.Param(scale) if scaled else None
        self.mlp_scale = nnx.Param(scale) if scaled else None
        self.stride = stride
        self.spec = spec

    def __call__(self, x: Array, valid: Array, key: Array | None
                 ) -> tuple[Array, Array]:
        keys = [None] * 5 if key is None else jax.random.split(key, 5)
        masked = self.norm1(x) * valid[..., None].astype(x.dtype)
        a = self.attn(masked, valid, self.spec.dropout, keys[0])
        skip = max_pool_half(x) if self.stride == 2 else x
        valid = valid[:, ::self.stride]
        keep = valid[..., None].astype(x.dtype)
        x = skip * keep + self._branch(a, self.attn_scale, keys[1])
        hidden = jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False)
        hidden = dropout(hidden, self.spec.dropout, keys[2])
        m = dropout(self.fc2(hidden), self.spec.dropout, keys[3]) * keep
        return x + self._branch(m, self.mlp_scale, keys[4]), valid

    def _branch(self, branch: Array, scale: nnx.Param | None,
                key: Array | None) -> Array:
        if scale is not None:
            branch = branch * scale[...].astype(branch.dtype)
        return drop_path(branch, self.spec.drop_path, key)


class OutputHead(nnx.Module):
    """Convolutions shared by all levels, then the prediction."""

    def __init__(self, spec: HeadSpec, outputs: int, bias_value: float,
                 rngs: nnx.Rngs):
        self.convs = nnx.List([
            ConvNormRelu(spec.width, spec.width, rngs)
            for _ in range(spec.head_layers - 1)])
        self.out = MaskedConv(spec.width, outputs, 3, bias_value=bias_value,
                              rngs=rngs)

    def __call__(self, x: Array, valid: Array) -> Array:
        for conv in self.convs:
            x = conv(x, valid)
        return self.out(x, valid)


class ActionFormer(nnx.Module):
    """Features of a window to class logits and offsets at every point."""

    def __init__(self, spec: HeadSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.embedding = nnx.List([
            ConvNormRelu(spec.in_width if i == 0 else spec.width, spec.width,
                         rngs)
            for i in range(spec.num_embedding_convs)])
        self.stem = nnx.List([
            TransformerBlock(spec, spec.window(0), 1, rngs)
            for _ in range(spec.num_stem_blocks)])
        self.branch = nnx.List([
            TransformerBlock(spec, spec.window(level), 2, rngs)
            for level in range(1, spec.num_levels)])
        self.neck = nnx.List([LayerNorm(spec.width, NORM_EPSILON)
                              for _ in range(spec.num_levels)])
        # ActionFormer: prior 0.01 gives the bias -4.595.
        prior = spec.prior_probability
        bias = -math.log((1 - prior) / prior)
        self.cls = OutputHead(spec, spec.num_classes, bias, rngs)
        self.reg = OutputHead(spec, 2, 0.0, rngs)
        self.reg_scale = nnx.Param(jnp.ones(spec.num_levels))

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None = None
                 ) -> tuple[Float[Array, "b p k"], Float[Array, "b p 2"],
                            Bool[Array, "b p"]]:
        """Logits, offsets (in strides) and validity at all points.

        Args:
          x: features on the level-0 grid; t divides by the last stride.
          valid: real tokens.
          key: for drop path and dropout; None means evaluation.

        Returns:
          class logits, non-negative (start, end) distances, and the mask of
          the points of all levels joined, level 0 first.
        """
        spec = self.spec
        if x.shape[1] % spec.strides[-1]:
            raise ValueError(f"{x.shape[1]} tokens do not divide by the last "
                             f"level's stride {spec.strides[-1]}")
        x = x * valid[..., None].astype(x.dtype)
        for conv in self.embedding:
            x = conv(x, valid)
        if spec.absolute_positions:
            table = sincos_table(spec.max_tokens, 1, 1, spec.width)
            table = table[:x.shape[1], 0, 0] / math.sqrt(spec.width)
            x = x + table * valid[..., None].astype(x.dtype)
        num_blocks = len(self.stem) + len(self.branch)
        keys = ([None] * num_blocks if key is None
                else list(jax.random.split(key, num_blocks)))
        for block in self.stem:
            x, valid = block(x, valid, keys.pop())
        levels = [(x, valid)]
        for block in self.branch:
            x, valid = block(x, valid, keys.pop())
            levels.append((x, valid))
        outputs = [self._predict(level, *levels[level])
                   for level in range(spec.num_levels)]
        logits, offsets, masks = zip(*outputs, strict=True)
        return (jnp.concatenate(logits, 1), jnp.concatenate(offsets, 1),
                jnp.concatenate(masks, 1))

    def _predict(self, level: int, x: Array, valid: Array
                 ) -> tuple[Array, Array, Array]:
        x = self.neck[level](x) * valid[..., None].astype(x.dtype)
        scale = self.reg_scale[...][level]
        offsets = jax.nn.relu(scale * self.reg(x, valid))
        return self.cls(x, valid), offsets, valid
