"""ActionFormer: a transformer pyramid that classifies every moment.

Source: Zhang et al., ECCV 2022, and its public code (MIT). What differs is
said in `layers`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax.detection.losses import detection_loss
from losa_jax.detection.targets import Targets
from losa_jax.errors import (
    InputError,
    check_between,
    check_choice,
    check_whole,
)
from losa_jax.models.heads.base import (
    HeadLoss,
    HeadOutput,
    PyramidSpec,
    check_per_level,
    head_loss,
    joined_outputs,
    pyramid_decode,
    pyramid_targets,
)
from losa_jax.models.heads.layers import (
    NORM_EPSILON,
    RESIDUAL_SCALE,
    Neck,
    OutputHead,
    Pointwise,
    Pyramid,
    masked,
    of_level,
    run_block,
)
from losa_jax.models.ops.attention import attention
from losa_jax.models.ops.band_attention import band_attention
from losa_jax.models.ops.conv import DepthwiseConv, max_pool_half
from losa_jax.models.ops.layers import LayerNorm, drop_path, dropout, gelu


@dataclasses.dataclass(frozen=True)
class ActionFormerSpec(PyramidSpec):
    """Sizes and options of ActionFormer.

    Attributes:
      attention_heads: of each block; must divide `width`.
      attention_window: tokens of its level that a token sees, itself in the
        middle: a tuple of one odd number for all levels, or one a level; -1
        and 1 are everything.
      relative_positions: a learned number a head and distance is added to
        the attention scores.
      dropout: share of attention and MLP outputs that are zeroed while
        training, below 1.

    Raises:
      InputError: names the field and what it allows.
    """

    attention_heads: int = 4
    attention_window: tuple[int, ...] = (19,)
    relative_positions: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, 1, "attention_heads")
        check_per_level(self, "attention_window", other=-1)
        check_choice(self, "relative_positions", (True, False))
        check_between(self, 0, 1, "dropout", without=(1,))
        if self.width % self.attention_heads:
            raise InputError(
                f"ActionFormerSpec.width={self.width} does not divide by "
                f"ActionFormerSpec.attention_heads={self.attention_heads}")


class LocalAttention(nnx.Module):
    """Multi-head attention of each token to a band around it.

    Query, key and value pass a depthwise convolution and a norm first.
    """

    def __init__(self, spec: ActionFormerSpec, window: int, stride: int,
                 rngs: nnx.Rngs):
        width, heads = spec.width, spec.attention_heads
        self.heads, self.window, self.stride = heads, window, stride
        for name in ("query", "key", "value"):
            setattr(self, f"{name}_conv", DepthwiseConv(
                width, 3, stride=stride, rngs=rngs))
            setattr(self, f"{name}_norm", LayerNorm(width, NORM_EPSILON))
            setattr(self, name, Pointwise(width, width, rngs))
        self.proj = Pointwise(width, width, rngs)
        # One number a head and distance, added to the scores.
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
            out = band_attention(query, key, value, out_valid,
                                 self.window // 2, bias)
        else:
            out = attention(query, key, value,
                            mask=out_valid[:, None, None, :])
        out = self.proj(rearrange(out, "b t heads d -> b t (heads d)"))
        return dropout(out, dropout_rate, drop_key) * keep


class TransformerBlock(nnx.Module):
    """Pre-norm block; with stride 2 it halves the time axis."""

    def __init__(self, spec: ActionFormerSpec, window: int, stride: int,
                 rngs: nnx.Rngs):
        c = spec.width
        self.norm1 = LayerNorm(c, NORM_EPSILON)
        self.attn = LocalAttention(spec, window, stride, rngs)
        self.norm2 = LayerNorm(c, NORM_EPSILON)
        self.fc1 = Pointwise(c, 4 * c, rngs)
        self.fc2 = Pointwise(4 * c, c, rngs)
        # The learned scales exist only together with drop path (public code).
        scaled = spec.drop_path > 0
        scale = jnp.full(c, RESIDUAL_SCALE)
        self.attn_scale = nnx.Param(scale) if scaled else None
        self.mlp_scale = nnx.Param(scale) if scaled else None
        self.stride = stride
        self.spec = spec

    def __call__(self, x: Array, valid: Array, key: Array | None
                 ) -> tuple[Array, Array]:
        keys = [None] * 5 if key is None else jax.random.split(key, 5)
        normed = masked(self.norm1(x), valid, self.spec)
        a = self.attn(normed, valid, self.spec.dropout, keys[0])
        skip = max_pool_half(x) if self.stride == 2 else x
        valid = valid[:, ::self.stride]
        keep = valid[..., None].astype(x.dtype)
        x = skip * keep + self._branch(a, self.attn_scale, keys[1])
        hidden = gelu(self.fc1(self.norm2(x)))
        hidden = dropout(hidden, self.spec.dropout, keys[2])
        m = dropout(self.fc2(hidden), self.spec.dropout, keys[3]) * keep
        return x + self._branch(m, self.mlp_scale, keys[4]), valid

    def _branch(self, branch: Array, scale: nnx.Param | None,
                key: Array | None) -> Array:
        if scale is not None:
            branch = branch * scale[...].astype(branch.dtype)
        return drop_path(branch, self.spec.drop_path, key)


class ActionFormer(nnx.Module):
    """ActionFormer: features of a window to classes and distances.

    Args:
      spec: sizes and options, an `ActionFormerSpec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    def __init__(self, spec: ActionFormerSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.pyramid = Pyramid(
            spec, lambda level, stride: TransformerBlock(
                spec, of_level(spec.attention_window, level), stride, rngs),
            rngs)
        self.neck = Neck(spec, rngs)
        self.cls = OutputHead(spec, spec.num_classes, rngs,
                              prior=spec.prior_probability)
        self.reg = OutputHead(spec, 2, rngs)
        self.reg_scale = nnx.Param(jnp.ones(spec.num_levels))

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None = None) -> HeadOutput:
        """Class logits and distances at the points of all levels.

        Args:
          x: float [b, t, c], features of b windows at t tokens, zero where
            not valid; t is a multiple of 2^(num_levels - 1).
          valid: bool [b, t], real tokens; outputs there do not depend on the
            others.
          key: for drop path, dropout and noise in training; None is evaluation.

        Returns:
          (class_logits, offsets, valid) at p = t (2 - 1 / 2^(num_levels - 1))
          points, the finest level first: float32 [b, p, k] before the
          sigmoid; float32 [b, p, 2], distances to start and end in
          strides of the point's level; bool [b, p].

        Raises:
          InputError: t is no such multiple.
        """
        levels = self.neck(self.pyramid(x, valid, key))
        scales = self.reg_scale[...]
        offsets = [jax.nn.relu(scales[level] * offset) for level, offset
                   in enumerate(run_block(self.reg, self.spec, levels))]
        return joined_outputs(run_block(self.cls, self.spec, levels), offsets,
                              [valid for _, valid in levels])

    targets = pyramid_targets
    decode = pyramid_decode

    def loss(self, outputs: HeadOutput, targets: Targets,
             normalizer: Float[Array, ""]) -> HeadLoss:
        """Focal and distance-IoU loss over the global batch.

        Args:
          outputs: of the head.
          targets: of its method `targets`.
          normalizer: float32 scalar, the running number of positive points
            after the last batch (a run starts at config.loss.
            initial_normalizer, 100). It is updated with this batch, by
            `normalizer_momentum`, and then divides both sums.

        Returns:
          (total, normalizer, metrics): the float32 scalar to minimize; the
          normalizer for the next batch; and, to log, "classification_loss",
          "regression_loss" and "positive_points".
        """
        spec = self.spec
        return head_loss(*detection_loss(
            outputs.class_logits, outputs.offsets, targets, outputs.valid,
            normalizer, label_smoothing=spec.label_smoothing,
            regression_weight=spec.regression_weight,
            momentum=spec.normalizer_momentum))
