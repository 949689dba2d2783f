"""Losses of pyramid heads: focal for classes, distance-IoU for boundaries."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from losa_jax.detection.targets import Targets

EPSILON = 1e-8
# The slope of x^0.2 is infinite at 0.
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

    Targets are in [0, 1]. `alpha` weighs the positive term, 1 - alpha the
    negative one. `gamma` is at least 1.
    """
    # Unlike log(p) and 1 - p, these are exact for logits of any size.
    cross_entropy = -(targets * jax.nn.log_sigmoid(logits)
                      + (1 - targets) * jax.nn.log_sigmoid(-logits))
    miss = (targets * jax.nn.sigmoid(-logits)
            + (1 - targets) * jax.nn.sigmoid(logits))
    side = alpha * targets + (1 - alpha) * (1 - targets)
    return side * miss**gamma * cross_entropy


def distance_iou_loss(predicted: Float[Array, "*#s 2"],
                      target: Float[Array, "*#s 2"]) -> Float[Array, "*s"]:
    """Returns the one-dimensional distance-IoU loss (Zheng et al., 2020).

    This is 1 - IoU + (distance of centers / enclosing length)^2 of segments
    given by their distances, not negative, from a common point to start and
    end. The loss and its gradient are finite everywhere.
    """
    predicted_left, predicted_right = predicted[..., 0], predicted[..., 1]
    target_left, target_right = target[..., 0], target[..., 1]
    enclosing = (jnp.maximum(predicted_left, target_left)
                 + jnp.maximum(predicted_right, target_right))
    center_distance = 0.5 * ((predicted_right - predicted_left)
                             - (target_right - target_left))
    return 1 - _offsets_iou(predicted, target) + (
        center_distance / jnp.maximum(enclosing, EPSILON))**2


def _offsets_iou(predicted: Float[Array, "*#s 2"],
                 target: Float[Array, "*#s 2"]) -> Float[Array, "*s"]:
    intersection = jnp.minimum(predicted, target).sum(-1)
    union = (predicted + target).sum(-1) - intersection
    return intersection / jnp.maximum(union, EPSILON)


def detection_loss(class_logits: Float[Array, "b p k"],
                   offsets: Float[Array, "b p 2"] | Float[Array, "b p k 2"],
                   targets: Targets, valid: Bool[Array, "b p"],
                   normalizer: Float[Array, ""], *,
                   label_smoothing: float = 0.0,
                   regression_weight: float = 1.0, momentum: float = 0.9,
                   iou_power: float = 0.0
                   ) -> tuple[Float[Array, ""], DetectionLosses]:
    """Returns the loss of a global batch, and its parts.

    This is ActionFormer's loss, and TriDet's if every class has its own
    offsets. Both parts are sums over points, divided by the running number of
    positive points, which is first updated with this batch. That number is of
    the global batch, unlike OpenTAD's, so the result does not depend on the
    number of devices. `targets.weights` multiply the focal loss.

    Args:
      class_logits: before the sigmoid.
      offsets: distances to start and end, in strides. Of those of each class
        only a point's own classes count.
      label_smoothing: e; classes y become y (1 - e) + e / (k + 1).
      regression_weight: below 0, the regression part is scaled to the value
        of the classification part, without a gradient through the scale.
      momentum: of the normalizer.
      iou_power: the focal loss of a point's own classes is multiplied by
        IoU^iou_power, with a gradient, if every class has its own offsets.
    """
    smooth = (targets.classes * (1 - label_smoothing)
              + label_smoothing / (class_logits.shape[-1] + 1))
    focal = sigmoid_focal_loss(class_logits.astype(jnp.float32), smooth)
    positive = targets.positive & valid
    offsets = offsets.astype(jnp.float32)
    wanted, counted = targets.offsets, positive
    if offsets.ndim == 4:
        wanted = wanted[:, :, None, :]
        counted = positive[..., None] & (targets.classes > 0)
        iou = jnp.maximum(_offsets_iou(offsets, wanted), MIN_IOU)
        focal = jnp.where(counted, focal * iou ** iou_power, focal)
    if targets.weights is not None:
        focal = focal * targets.weights
    # The mask may follow the loss, whose gradient is finite at all points.
    distance = jnp.where(counted, distance_iou_loss(offsets, wanted), 0.0)

    num_positive = jnp.sum(positive, dtype=jnp.float32)
    normalizer = (momentum * normalizer
                  + (1 - momentum) * jnp.maximum(num_positive, 1.0))
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
