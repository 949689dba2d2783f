"""Losses of pyramid heads: focal for classes, distance-IoU for boundaries."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from losa_jax.detection.targets import Targets

EPSILON = 1e-8
MIN_IOU = 1e-6
# Lower bound of the regression loss for the automatic weight (ActionFormer).
MIN_AUTOMATIC_REGRESSION = 0.01


class DetectionLosses(NamedTuple):
    """The parts of the loss, float32, before `regression_weight`."""

    classification: Float[Array, ""]  # sum divided by the normalizer
    regression: Float[Array, ""]  # likewise
    num_positive: Float[Array, ""]  # valid points with an action
    normalizer: Float[Array, ""]  # running value after this batch


def sigmoid_focal_loss(logits: Float[Array, "*s"],
                       targets: Float[Array, "*s"], *, alpha: float = 0.25,
                       gamma: float = 2.0) -> Float[Array, "*s"]:
    """Returns the focal loss of every element (Lin et al., 2017).

    Args:
      logits: before the sigmoid.
      targets: in [0, 1]; smoothed targets weigh both terms.
      alpha: weight of the positive term; that of the negative is 1 - alpha.
      gamma: exponent of the weight of easy elements; at least 1.
    """
    # log_sigmoid(x) and sigmoid(-x) are exact for logits of any size, unlike
    # log(p) and 1 - p.
    cross_entropy = -(targets * jax.nn.log_sigmoid(logits)
                      + (1 - targets) * jax.nn.log_sigmoid(-logits))
    miss = (targets * jax.nn.sigmoid(-logits)
            + (1 - targets) * jax.nn.sigmoid(logits))
    side = alpha * targets + (1 - alpha) * (1 - targets)
    return side * miss**gamma * cross_entropy


def distance_iou_loss(predicted: Float[Array, "*s 2"],
                      target: Float[Array, "*s 2"]) -> Float[Array, "*s"]:
    """Returns the one-dimensional distance-IoU loss (Zheng et al., 2020).

    This is 1 - IoU + (distance of centers / enclosing length)^2. It and its
    gradient are finite everywhere.

    Args:
      predicted, target: distances from a common point to start and end, not
        negative.
    """
    predicted_left, predicted_right = predicted[..., 0], predicted[..., 1]
    target_left, target_right = target[..., 0], target[..., 1]
    enclosing = (jnp.maximum(predicted_left, target_left)
                 + jnp.maximum(predicted_right, target_right))
    center_distance = 0.5 * ((predicted_right - predicted_left)
                             - (target_right - target_left))
    return 1 - offsets_iou(predicted, target) + (
        center_distance / jnp.maximum(enclosing, EPSILON))**2


def offsets_iou(predicted: Float[Array, "*s 2"],
                target: Float[Array, "*s 2"]) -> Float[Array, "*s"]:
    """Returns the IoU of segments as in `distance_iou_loss`."""
    intersection = jnp.minimum(predicted, target).sum(-1)
    union = (predicted + target).sum(-1) - intersection
    return intersection / jnp.maximum(union, EPSILON)


def update_normalizer(normalizer: Float[Array, ""],
                      num_positive: Float[Array, ""],
                      momentum: float = 0.9) -> Float[Array, ""]:
    """Returns the running number of positive points, the losses' divisor."""
    return (momentum * normalizer
            + (1 - momentum) * jnp.maximum(num_positive, 1.0))


def detection_loss(class_logits: Float[Array, "b p k"],
                   offsets: Float[Array, "b p 2"], targets: Targets,
                   valid: Bool[Array, "b p"], normalizer: Float[Array, ""],
                   *, label_smoothing: float = 0.0,
                   regression_weight: float = 1.0, momentum: float = 0.9
                   ) -> tuple[Float[Array, ""], DetectionLosses]:
    """Returns ActionFormer's loss of a global batch, and its parts.

    Both parts are sums over points, divided by the running normalizer, which
    is first updated with this batch.
    Differs from OpenTAD: `num_positive` is that of the global batch, so the
    result does not depend on the number of devices.

    Args:
      class_logits: before the sigmoid.
      offsets: distances to start and end, in strides.
      targets: of `assign_targets`, with a batch axis.
      valid: False on padding.
      normalizer: after the last batch.
      label_smoothing: e; classes become y (1 - e) + e / (k + 1).
      regression_weight: below 0, the regression part is scaled to the value
        of the classification part, without a gradient through the scale.
      momentum: of the normalizer.
    """
    focal = _smoothed_focal_loss(class_logits, targets, label_smoothing)
    positive = targets.positive & valid
    # The mask may follow the loss, whose gradient is finite at all points.
    distance = jnp.where(positive, distance_iou_loss(
        offsets.astype(jnp.float32), targets.offsets), 0.0)
    return _weighted_sum(focal, distance, positive, valid, normalizer,
                         regression_weight, momentum)


def per_class_detection_loss(
    class_logits: Float[Array, "b p k"], offsets: Float[Array, "b p k 2"],
    targets: Targets, valid: Bool[Array, "b p"],
    normalizer: Float[Array, ""], *, label_smoothing: float = 0.0,
    regression_weight: float = 1.0, momentum: float = 0.9,
    iou_power: float = 0.0
) -> tuple[Float[Array, ""], DetectionLosses]:
    """Returns TriDet's loss, for heads with separate offsets of each class.

    It counts the offsets of a positive point's own classes and multiplies the
    focal loss of these classes by IoU^iou_power, with a gradient.
    Differs from TriDet: IoU is at least `MIN_IOU`, because the slope of x^0.2
    is infinite at 0. Other arguments and the result: see `detection_loss`.
    """
    focal = _smoothed_focal_loss(class_logits, targets, label_smoothing)
    positive = targets.positive & valid
    own = positive[..., None] & (targets.classes > 0)
    offsets = offsets.astype(jnp.float32)
    wanted = targets.offsets[:, :, None, :]
    iou = jnp.maximum(offsets_iou(offsets, wanted), MIN_IOU)
    focal = jnp.where(own, focal * iou ** iou_power, focal)
    distance = jnp.where(own, distance_iou_loss(offsets, wanted), 0.0)
    return _weighted_sum(focal, distance, positive, valid, normalizer,
                         regression_weight, momentum)


def _smoothed_focal_loss(class_logits: Float[Array, "b p k"],
                         targets: Targets, label_smoothing: float
                         ) -> Float[Array, "b p k"]:
    smooth = (targets.classes * (1 - label_smoothing)
              + label_smoothing / (class_logits.shape[-1] + 1))
    return sigmoid_focal_loss(class_logits.astype(jnp.float32), smooth)


def _weighted_sum(focal: Float[Array, "b p k"], distance: Array,
                  positive: Bool[Array, "b p"], valid: Bool[Array, "b p"],
                  normalizer: Float[Array, ""], regression_weight: float,
                  momentum: float
                  ) -> tuple[Float[Array, ""], DetectionLosses]:
    num_positive = jnp.sum(positive, dtype=jnp.float32)
    normalizer = update_normalizer(normalizer, num_positive, momentum)
    classification = jnp.sum(
        jnp.where(valid[..., None], focal, 0.0)) / normalizer
    regression = jnp.sum(distance) / normalizer

    weight: jax.Array | float = regression_weight
    if regression_weight < 0:
        weight = jax.lax.stop_gradient(
            classification
            / jnp.maximum(regression, MIN_AUTOMATIC_REGRESSION))
    return (classification + weight * regression,
            DetectionLosses(classification, regression, num_positive,
                            normalizer))
