"""TriDet: scalable-granularity blocks and boundaries as distributions.

Source: Shi et al., CVPR 2023, and its public code (MIT). What differs from
it: see `layers`, and here the mean and the group norm run over real tokens
alone, so that outputs do not depend on the padding.

The published THUMOS recipe starts every convolution of the block at zero
(`sgp_init_deviation` 0), where all their gradients are products with zero
and stay zero: what it trains is norm, residual and MLP.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax.detection.losses import (
    detection_loss,
    per_class_detection_loss,
)
from losa_jax.detection.targets import Targets
from losa_jax.errors import (
    InputError,
    check_between,
    check_choice,
    check_odd,
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
from losa_jax.models.ops.conv import DepthwiseConv, max_pool_half
from losa_jax.models.ops.layers import LayerNorm, drop_path, gelu

NUM_GROUPS = 16


@dataclasses.dataclass(frozen=True)
class TriDetSpec(PyramidSpec):
    """Sizes and options of TriDet.

    Attributes:
      sgp_window: length w of a block's window-level convolution in tokens of
        its level: a tuple of one odd number for all levels, or one a level.
      sgp_k: the wide convolution has about (w + 1) k tokens; above 0.
      sgp_mlp_width: hidden channels of a block's MLP.
      sgp_init_deviation: standard deviation of the initial values of a
        block's convolutions. At 0, the published THUMOS recipe, their
        gradients are zero and stay so: the rest of a block learns alone.
      downsample: between levels, "max" or "avg".
      trident: boundaries as distributions over `num_bins` steps, of every
        class; without, one distance to either end a point.
      num_bins: strides before (behind) a point that its start (end) may lie
        at most.
      boundary_kernel: length of the convolutions that find boundaries, in
        tokens of their level; odd.
      iou_power: the class loss of a positive point is multiplied by its IoU
        to this power, 0 or more (`trident` only).

    Raises:
      InputError: names the field and what it allows.
    """

    sgp_window: tuple[int, ...] = (1,)
    sgp_k: float = 5.0
    sgp_mlp_width: int = 768
    sgp_init_deviation: float = 0.0
    downsample: str = "max"
    trident: bool = True
    num_bins: int = 16
    boundary_kernel: int = 3
    iou_power: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "downsample", ("max", "avg"))
        check_choice(self, "trident", (True, False))
        check_per_level(self, "sgp_window")
        check_whole(self, 1, "sgp_mlp_width", "num_bins")
        check_odd(self, "boundary_kernel")
        check_between(self, 0, math.inf, "sgp_k", without=(0,))
        check_between(self, 0, math.inf, "sgp_init_deviation", "iou_power")
        if self.width % NUM_GROUPS:
            raise InputError(
                f"TriDetSpec.width={self.width} does not divide into the "
                f"{NUM_GROUPS} groups of TriDet's norm")


class GroupNorm(nnx.Module):
    """Statistics over all valid tokens and the channels of a group."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "b t c"], weight: Float[Array, "b t"]
                 ) -> Float[Array, "b t c"]:
        b, t, c = x.shape
        grouped = x.astype(jnp.float32).reshape(b, t, NUM_GROUPS, -1)
        per_group = c // NUM_GROUPS
        count = jnp.maximum(weight.sum(1), 1) * per_group
        weight = weight[:, :, None, None]
        mean = (grouped * weight).sum((1, 3)) / count[:, None]
        centered = grouped - mean[:, None, :, None]
        variance = (jnp.square(centered) * weight).sum((1, 3)) / count[:, None]
        y = centered * jax.lax.rsqrt(variance + NORM_EPSILON)[:, None, :, None]
        y = y.reshape(b, t, c) * self.scale[...] + self.bias[...]
        return y.astype(x.dtype)


class SgpBlock(nnx.Module):
    """Instant-level and window-level branches instead of attention."""

    def __init__(self, spec: TriDetSpec, window: int, stride: int,
                 rngs: nnx.Rngs):
        c = spec.width
        wide = round((window + 1) * spec.sgp_k)  # half to even
        wide += 1 - wide % 2

        def depthwise(size: int) -> DepthwiseConv:
            conv = DepthwiseConv(c, size, bias=True, rngs=rngs)
            conv.kernel[...] = spec.sgp_init_deviation * jax.random.normal(
                rngs.params(), (size, c))
            return conv

        self.norm = LayerNorm(c, NORM_EPSILON)
        self.psi, self.convw = depthwise(window), depthwise(window)
        self.convkw = depthwise(wide)
        self.fc, self.global_fc = depthwise(1), depthwise(1)
        self.group_norm = GroupNorm(c)
        self.fc1 = Pointwise(c, spec.sgp_mlp_width, rngs)
        self.fc2 = Pointwise(spec.sgp_mlp_width, c, rngs)
        # Stem blocks have neither drop path nor its scale.
        scaled = stride == 2 and spec.drop_path > 0
        scale = jnp.full(c, RESIDUAL_SCALE)
        self.out_scale = nnx.Param(scale) if scaled else None
        self.mlp_scale = nnx.Param(scale) if scaled else None
        self.down = (Pointwise(c, c, rngs)
                     if stride == 2 and spec.downsample == "avg" else None)
        self.stride = stride
        self.spec = spec

    def __call__(self, x: Array, valid: Array, key: Array | None
                 ) -> tuple[Array, Array]:
        keys = (None, None) if key is None else jax.random.split(key)
        if self.down is not None:
            # Averages real tokens alone, as a mask of the second of a pair.
            x = self.down(self._average_pairs(x, valid))
        elif self.stride == 2:
            x = max_pool_half(x)
        valid = valid[:, ::self.stride]
        keep = valid[..., None].astype(x.dtype)
        # What statistics count: the reference counts padding too.
        weight = (jnp.ones_like(keep[..., 0])
                  if self.spec.reference_masking else keep[..., 0])

        y = masked(self.norm(x), valid, self.spec)
        total = jnp.maximum(weight.sum(1), 1)[:, None, None]
        mean = (y * weight[..., None]).sum(1, keepdims=True) / total
        phi = jax.nn.relu(self.global_fc(mean))
        out = (self.fc(y) * phi
               + (self.convw(y) + self.convkw(y)) * self.psi(y) + y)
        x = x * keep + self._branch(masked(out, valid, self.spec),
                                    self.out_scale, keys[0])
        hidden = gelu(self.fc1(self.group_norm(x, weight)))
        m = masked(self.fc2(hidden), valid, self.spec)
        return x + self._branch(m, self.mlp_scale, keys[1]), valid

    def _average_pairs(self, x: Array, valid: Array) -> Array:
        weight = (jnp.ones_like(valid) if self.spec.reference_masking
                  else valid).astype(x.dtype)[..., None]
        b, t, c = x.shape
        pairs = (x * weight).reshape(b, t // 2, 2, c).sum(2)
        count = weight.reshape(b, t // 2, 2, 1).sum(2)
        return pairs / jnp.maximum(count, 1)

    def _branch(self, branch: Array, scale: nnx.Param | None,
                key: Array | None) -> Array:
        if scale is None:
            return branch
        return drop_path(branch * scale[...].astype(branch.dtype),
                         self.spec.drop_path, key)


class TridentLevel(NamedTuple):
    """Raw outputs of one level.

    Attributes:
      class_logits: [b, t, k].
      offsets: [b, t, 2 (bins + 1)], first half for the start; [b, t, 2]
        without the trident.
      start_logits, end_logits: [b, t, k]; None without the trident.
      valid: [b, t].
    """

    class_logits: Array
    offsets: Array
    start_logits: Array | None
    end_logits: Array | None
    valid: Array


class TriDet(nnx.Module):
    """TriDet: features of a window to classes and distances.

    Args:
      spec: sizes and options, a `TriDetSpec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    def __init__(self, spec: TriDetSpec, *, rngs: nnx.Rngs):
        self.spec = spec
        self.pyramid = Pyramid(
            spec, lambda level, stride: SgpBlock(
                spec, of_level(spec.sgp_window, level) if level else 1,
                stride, rngs), rngs)
        self.neck = Neck(spec, rngs)
        prior = spec.prior_probability
        self.cls = OutputHead(spec, spec.num_classes, rngs, prior=prior)
        outputs = 2 * (spec.num_bins + 1) if spec.trident else 2
        self.reg = OutputHead(spec, outputs, rngs)
        self.reg_scale = nnx.Param(jnp.ones(spec.num_levels))
        if spec.trident:
            boundary = 0.5 if spec.opentad else prior
            self.start, self.end = (
                OutputHead(spec, spec.num_classes, rngs, prior=boundary,
                           kernel_size=spec.boundary_kernel)
                for _ in range(2))

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None = None) -> HeadOutput:
        """Class logits and distances at the points of all levels.

        Args:
          x: float [b, t, c], features of b windows at t tokens, zero where
            not valid; t is a multiple of 2^(num_levels - 1).
          valid: bool [b, t], real tokens; outputs there do not depend on the
            others.
          key: for drop path and noise in training; None is evaluation.

        Returns:
          (class_logits, offsets, valid) at p = t (2 - 1 / 2^(num_levels - 1))
          points, the finest level first: float32 [b, p, k] before the
          sigmoid; float32 [b, p, k, 2], for every class, or
          [b, p, 2] without `trident`, distances to start and end in
          strides of the point's level; bool [b, p].

        Raises:
          InputError: t is no such multiple.
        """
        levels = self.levels(x, valid, key)
        offsets = [decode_bins(level) if self.spec.trident else level.offsets
                   for level in levels]
        return joined_outputs([level.class_logits for level in levels],
                              offsets, [level.valid for level in levels])

    targets = pyramid_targets
    decode = pyramid_decode

    def loss(self, outputs: HeadOutput, targets: Targets,
             normalizer: Float[Array, ""]) -> HeadLoss:
        """Focal and distance-IoU loss over the global batch.

        With `trident`, the offsets of a positive point's own classes count,
        and their focal loss is multiplied by IoU^`iou_power`.

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
        loss = (functools.partial(per_class_detection_loss,
                                  iou_power=spec.iou_power)
                if spec.trident else detection_loss)
        return head_loss(*loss(
            outputs.class_logits, outputs.offsets, targets, outputs.valid,
            normalizer, label_smoothing=spec.label_smoothing,
            regression_weight=spec.regression_weight,
            momentum=spec.normalizer_momentum))

    def levels(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
               key: Array | None = None) -> list[TridentLevel]:
        """Returns what the output heads say, before bins become distances.

        Arguments as those of a call; one `TridentLevel` a level, the finest
        first.
        """
        levels = self.neck(self.pyramid(x, valid, key))
        logits, offsets = (run_block(output, self.spec, levels)
                           for output in (self.cls, self.reg))
        starts: Sequence[Array | None] = [None] * len(levels)
        ends = starts
        if self.spec.trident:
            fixed = [(jax.lax.stop_gradient(tokens), level_valid)
                     for tokens, level_valid in levels]
            starts, ends = (run_block(output, self.spec, fixed)
                            for output in (self.start, self.end))
        scales = self.reg_scale[...]
        return [TridentLevel(
            logits[level], jax.nn.relu(scales[level] * offsets[level]),
            starts[level], ends[level], level_valid)
            for level, (_, level_valid) in enumerate(levels)]


def decode_bins(level: TridentLevel) -> Float[Array, "b t k 2"]:
    """Expected distances to start and end, in strides.

    The start is a distribution over the point and the `bins` points before
    it: the boundary logits there plus the point's own offsets, softmax.
    """
    bins = level.offsets.shape[-1] // 2 - 1
    offsets = level.offsets.astype(jnp.float32)
    steps = np.arange(bins + 1)

    def expected(logits: Array, pads: tuple[int, int], own: Array,
                 distances: np.ndarray) -> Array:
        t = logits.shape[1]
        padded = jnp.pad(logits.astype(jnp.float32),
                         ((0, 0), pads, (0, 0)))
        around = jnp.stack([jax.lax.slice_in_dim(padded, i, i + t, axis=1)
                            for i in range(bins + 1)], axis=-1)
        weights = jax.nn.softmax(around + own[:, :, None, :], axis=-1)
        return weights @ jnp.asarray(distances, jnp.float32)

    if level.start_logits is None or level.end_logits is None:
        raise ValueError("a head without boundary heads has no bins")
    left = expected(level.start_logits, (bins, 0), offsets[..., :bins + 1],
                    bins - steps)
    right = expected(level.end_logits, (0, bins), offsets[..., bins + 1:],
                     steps)
    return jnp.stack([left, right], axis=-1)
