"""Heads with outputs at every point of a temporal pyramid.

ActionFormer and TriDet differ in their blocks and distances.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from losa_jax import errors
from losa_jax.detection import decode as decoding
from losa_jax.detection.losses import detection_loss
from losa_jax.detection.segments import Segments
from losa_jax.detection.targets import Targets, assign_targets
from losa_jax.models.heads import base, layers, pyramid_spec


class HeadOutput(NamedTuple):
    """Outputs of a pyramid head at the p points of all levels.

    The finest level comes first: t points at a distance of one token, then
    t / 2 at a distance of two and so on; p = t (2 - 1 / 2^(num_levels - 1)).

    Attributes:
      class_logits: float32, before the sigmoid.
      offsets: float32 distances to start and end, 0 or more, in strides of the
        point's level; one pair a class from TriDet with `trident`.
      valid: False on padding.
    """

    class_logits: Float[Array, "b p k"]
    offsets: Float[Array, "b p 2"] | Float[Array, "b p k 2"]
    valid: Bool[Array, "b p"]


class PyramidHead(nnx.Module):
    """The parts, targets, loss and decoding that pyramid heads share."""

    iou_power = 0.0  # of `detection_loss`

    def __init__(self, spec: pyramid_spec.PyramidSpec,
                 make_block: Callable[[int, int], nnx.Module],
                 num_offsets: int, rngs: nnx.Rngs):
        """`num_offsets`: outputs of a point for start and end together."""
        self.spec = spec
        self.pyramid = layers.Pyramid(spec, make_block, rngs)
        self.neck = layers.Neck(spec, rngs)
        self.cls = layers.OutputHead(spec, spec.num_classes, rngs,
                                     prior=spec.prior_probability)
        self.reg = layers.OutputHead(spec, num_offsets, rngs)
        self.reg_scale = nnx.Param(jnp.ones(spec.num_levels))

    def __call__(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                 key: Array | None = None) -> HeadOutput:
        """Returns class logits and distances at the points of all levels.

        Features x must be zero where not valid; the outputs at real tokens do
        not depend on padding. Key None means evaluation.

        Raises:
          InputError: t is no multiple of 2^(num_levels - 1), or c is wrong.
        """
        levels, logits, offsets = self.raw_outputs(x, valid, key)
        distances = self._distances(levels, offsets)
        valid = jnp.concatenate([valid for _, valid in levels], 1)
        return HeadOutput(_joined(logits), _joined(distances), valid)

    def raw_outputs(self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"],
                    key: Array | None = None
                    ) -> tuple[list[layers.Level], layers.LevelOutputs,
                               layers.LevelOutputs]:
        """Returns each level's tokens, class logits and offsets (>= 0)."""
        levels = self.neck(self.pyramid(x, valid, key))
        logits, offsets = (layers.run_block(output, self.spec, levels)
                           for output in (self.cls, self.reg))
        return levels, logits, [jax.nn.relu(scale * offset) for scale, offset
                                in zip(self.reg_scale[...], offsets,
                                       strict=True)]

    def _distances(self, levels: list[layers.Level],
                   offsets: layers.LevelOutputs) -> list[Array]:
        """Returns the distances to start and end of each level."""
        return offsets

    def targets(self, outputs: HeadOutput, segments: Float[Array, "b n 2"],
                labels: Int[Array, "b n"], action_valid: Bool[Array, "b n"],
                loss_weights: Float[Array, "b t k"] | None = None) -> Targets:
        """Returns the targets of the outputs, by ActionFormer's assignment.

        Segments are in tokens of the finest level, n is 1 or more, and
        `action_valid` is False on rows without an action. `loss_weights` are
        of the class loss at each token of the finest level: 0 where it is
        unknown whether the class is there.
        """
        points = self.spec.points(outputs.class_logits.shape[1])
        targets = jax.vmap(lambda segments, labels, valid: assign_targets(
            points, segments, labels, valid, num_classes=self.spec.num_classes,
            center_radius=self.spec.center_radius,
            every_class=self.spec.every_class))(
                segments, labels, action_valid)
        if loss_weights is None:
            return targets
        return targets._replace(weights=jnp.concatenate(
            [loss_weights[:, ::stride] for stride in self.spec.strides], 1))

    def loss(self, outputs: HeadOutput, targets: Targets,
             normalizer: Float[Array, ""]) -> base.HeadLoss:
        """Returns the focal and distance-IoU loss over the global batch.

        The normalizer is the running number of positive points after the last
        batch (a run starts at config.loss.initial_normalizer). It is updated
        with this batch, by `normalizer_momentum`, and then divides both sums.
        """
        spec = self.spec
        total, parts = detection_loss(
            outputs.class_logits, outputs.offsets, targets, outputs.valid,
            normalizer, label_smoothing=spec.label_smoothing,
            regression_weight=spec.regression_weight,
            momentum=spec.normalizer_momentum, iou_power=self.iou_power)
        return base.HeadLoss(total, parts.normalizer, {
            "classification_loss": parts.classification,
            "regression_loss": parts.regression,
            "positive_points": parts.num_positive})

    def decode(self, outputs: HeadOutput, settings: decoding.DecodeSettings
               = decoding.DEFAULT_DECODING) -> Segments:
        """Returns the best segments of each window, before NMS.

        They are in tokens of the finest level and may lie outside the window.
        By default these are up to 2000 segments of a window whose score is
        above 0.001 and that are longer than 0.05 tokens.
        """
        points = self.spec.points(outputs.class_logits.shape[1])
        return jax.vmap(lambda logits, offsets, valid: decoding.decode(
            logits, offsets, points, valid, settings))(*outputs)

    def decode_pairs(self, outputs: HeadOutput, others: HeadOutput,
                     settings: decoding.DecodeSettings) -> Segments:
        """Returns segments for pairs of a class of this head and one of
        another, whose outputs are `others`; see `decoding.decode_pairs`.

        Raises:
          InputError: the heads have other points, or distances of each class.
        """
        points = self.spec.points(outputs.class_logits.shape[1])
        if outputs.offsets.shape != others.offsets.shape or (
                outputs.offsets.ndim != 3):
            raise errors.InputError(
                "two heads are paired only at the same points of equal "
                "windows, and only ActionFormer's: TriDet has distances of "
                "each class")
        return jax.vmap(lambda first, second, valid: decoding.decode_pairs(
            (first.class_logits, second.class_logits),
            (first.offsets, second.offsets), points, valid, settings))(
                outputs, others, outputs.valid)


def _joined(levels: Sequence[Array]) -> Array:
    """Returns the outputs of all levels as one array, float32 or wider."""
    joined = jnp.concatenate(levels, 1)
    return joined.astype(jnp.promote_types(joined.dtype, jnp.float32))
