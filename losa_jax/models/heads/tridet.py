"""TriDet: scalable-granularity blocks and boundaries as distributions.

Source: Shi et al., CVPR 2023, and its public code (MIT). Differences: those of
`layers`; and mean and group norm are taken over real tokens only.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax import errors
from losa_jax.models.heads import layers, pyramid, pyramid_spec
from losa_jax.models.ops import conv
from losa_jax.models.ops.layers import LayerNorm, gelu

NUM_GROUPS = 16


@dataclasses.dataclass(frozen=True)
class TriDetSpec(pyramid_spec.PyramidSpec):
    """Sizes and options of TriDet.

    Attributes:
      sgp_window: length w of a block's window-level convolution in tokens of
        its level: a tuple of one odd number for all levels, or one a level.
      sgp_k: the wide convolution has about (w + 1) k tokens.
      sgp_mlp_width: hidden channels of a block's MLP.
      sgp_init_deviation: standard deviation of the initial values of a
        block's convolutions. At 0, the published THUMOS recipe, their
        gradients stay zero: only norm and MLP of a block are trained.
      downsample: between levels, "max" or "avg".
      trident: whether boundaries are distributions over `num_bins` steps, for
        each class; if not, each point has one distance to start and end.
      num_bins: largest distance from a point to its start or end, in strides.
      boundary_kernel: length of the boundaries' convolutions in tokens; odd.
      iou_power: the class loss of a positive point is multiplied by its IoU
        to this power (`trident` only).

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
        errors.check_choice(self, "downsample", ("max", "avg"))
        self.check_per_level("sgp_window")
        errors.check_whole(self, 1, "sgp_mlp_width", "num_bins")
        errors.check_odd(self, "boundary_kernel")
        errors.check_between(self, 0, math.inf, "sgp_k", without=(0,))
        errors.check_between(self, 0, math.inf, "sgp_init_deviation",
                             "iou_power")
        if self.width % NUM_GROUPS:
            raise errors.InputError(
                f"TriDetSpec.width={self.width} must be a multiple of the "
                f"{NUM_GROUPS} groups of TriDet's group norm")


class GroupNorm(nnx.Module):
    """Group norm with statistics over all valid tokens of a window."""

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
        scale = jax.lax.rsqrt(variance + layers.NORM_EPSILON)
        y = centered * scale[:, None, :, None]
        y = y.reshape(b, t, c) * self.scale[...] + self.bias[...]
        return y.astype(x.dtype)


class SgpBlock(nnx.Module):
    """Scalable-granularity block: two convolution branches, then an MLP."""

    def __init__(self, spec: TriDetSpec, window: int, stride: int,
                 rngs: nnx.Rngs):
        c = spec.width
        wide = round((window + 1) * spec.sgp_k)  # half to even
        wide += 1 - wide % 2

        def depthwise(size: int) -> conv.DepthwiseConv:
            layer = conv.DepthwiseConv(c, size, bias=True, rngs=rngs)
            layer.kernel[...] = spec.sgp_init_deviation * jax.random.normal(
                rngs.params(), (size, c))
            return layer

        self.norm = LayerNorm(c, layers.NORM_EPSILON)
        self.psi, self.convw = depthwise(window), depthwise(window)
        self.convkw = depthwise(wide)
        self.fc, self.global_fc = depthwise(1), depthwise(1)
        self.group_norm = GroupNorm(c)
        self.fc1 = layers.Pointwise(c, spec.sgp_mlp_width, rngs=rngs)
        self.fc2 = layers.Pointwise(spec.sgp_mlp_width, c, rngs=rngs)
        # Stem blocks have neither drop path nor its scale.
        self.out_scale = layers.residual_scale(spec) if stride == 2 else None
        self.mlp_scale = layers.residual_scale(spec) if stride == 2 else None
        self.down = (layers.Pointwise(c, c, rngs=rngs)
                     if stride == 2 and spec.downsample == "avg" else None)
        self.stride = stride
        self.spec = spec

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None) -> layers.Level:
        keys = (None, None) if key is None else jax.random.split(key)
        if self.down is not None:
            x = self.down(_average_pairs(x, self._weight(x, valid)))
        elif self.stride == 2:
            x = conv.max_pool_half(x)
        valid = valid[:, ::self.stride]
        keep = valid[..., None].astype(x.dtype)
        weight = self._weight(x, valid)

        y = layers.masked(self.norm(x), valid, self.spec)
        total = jnp.maximum(weight.sum(1), 1)[:, None, None]
        mean = (y * weight[..., None]).sum(1, keepdims=True) / total
        phi = jax.nn.relu(self.global_fc(mean))
        out = (self.fc(y) * phi
               + (self.convw(y) + self.convkw(y)) * self.psi(y) + y)
        out = layers.scaled_branch(layers.masked(out, valid, self.spec),
                                   self.out_scale, self.spec, keys[0])
        x = x * keep + out
        hidden = gelu(self.fc1(self.group_norm(x, weight)))
        m = layers.masked(self.fc2(hidden), valid, self.spec)
        m = layers.scaled_branch(m, self.mlp_scale, self.spec, keys[1])
        return x + m, valid

    def _weight(self, x: Array, valid: Array) -> Float[Array, "b t"]:
        """Returns the tokens' weights in means; the reference has padding."""
        return (jnp.ones_like(valid) if self.spec.reference_masking
                else valid).astype(x.dtype)


def _average_pairs(x: Float[Array, "b t c"], weight: Float[Array, "b t"]
                   ) -> Float[Array, "b s c"]:
    """Returns the weighted mean of each pair of tokens."""
    b, t, c = x.shape
    weight = weight[..., None]
    pairs = (x * weight).reshape(b, t // 2, 2, c).sum(2)
    count = weight.reshape(b, t // 2, 2, 1).sum(2)
    return pairs / jnp.maximum(count, 1)


class TriDet(pyramid.PyramidHead):
    """TriDet: features of a window to classes and distances.

    Args:
      spec: a `TriDetSpec`.
      rngs: `nnx.Rngs` with the stream `params`, for the initial values.
    """

    spec: TriDetSpec

    def __init__(self, spec: TriDetSpec, *, rngs: nnx.Rngs):
        super().__init__(spec, lambda level, stride: SgpBlock(
            spec, spec.of_level(spec.sgp_window, level) if level else 1,
            stride, rngs), 2 * (spec.num_bins + 1) if spec.trident else 2, rngs)
        self.iou_power = spec.iou_power
        if spec.trident:
            prior = 0.5 if spec.opentad else spec.prior_probability
            self.start, self.end = (
                layers.OutputHead(spec, spec.num_classes, rngs, prior=prior,
                                  kernel_size=spec.boundary_kernel)
                for _ in range(2))

    def _distances(self, levels: list[layers.Level],
                   offsets: layers.LevelOutputs) -> list[Array]:
        if not self.spec.trident:
            return offsets
        return list(map(decode_bins, offsets, *self.boundary_logits(levels)))

    def boundary_logits(self, levels: list[layers.Level]
                        ) -> tuple[layers.LevelOutputs, layers.LevelOutputs]:
        """Returns the logits of starts and ends on each level."""
        fixed = [(jax.lax.stop_gradient(tokens), level_valid)
                 for tokens, level_valid in levels]
        return tuple(layers.run_block(output, self.spec, fixed)
                     for output in (self.start, self.end))


def decode_bins(offsets: Float[Array, "b t bins"],
                start_logits: Float[Array, "b t k"],
                end_logits: Float[Array, "b t k"]) -> Float[Array, "b t k 2"]:
    """Returns the expected distances to start and end, in strides.

    The start is a distribution over the point and the `num_bins` points before
    it: the softmax of the start logits there plus the point's own offsets. The
    first half of the offsets is for the start, the second for the end.
    """
    bins = offsets.shape[-1] // 2 - 1
    offsets = offsets.astype(jnp.float32)
    steps = np.arange(bins + 1)

    def expected(logits: Array, pads: tuple[int, int], own: Array,
                 distances: np.ndarray) -> Array:
        t = logits.shape[1]
        padded = jnp.pad(logits.astype(jnp.float32), ((0, 0), pads, (0, 0)))
        around = jnp.stack([jax.lax.slice_in_dim(padded, i, i + t, axis=1)
                            for i in range(bins + 1)], axis=-1)
        weights = jax.nn.softmax(around + own[:, :, None, :], axis=-1)
        return weights @ jnp.asarray(distances, jnp.float32)

    left = expected(start_logits, (bins, 0), offsets[..., :bins + 1],
                    bins - steps)
    right = expected(end_logits, (0, bins), offsets[..., bins + 1:], steps)
    return jnp.stack([left, right], axis=-1)
