"""Losses of pyramid heads: focal for classes, distance-IoU for boundaries.

`detection_loss` is ActionFormer's, `per_class_detection_loss` TriDet's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from losa_jax.detection.targets import Targets

EPSILON = 1e-8
MIN_IOU = 1e-6
# Floor of the regression loss when it sets its own weight (ActionFormer).
MIN_AUTOMATIC_REGRESSION = 0.01


class DetectionLosses(NamedTuple):
    """The parts of the loss, float32 scalars.

    Attributes:
      classification, regression: sums divided by the normalizer, before
        `regression_weight`.
      num_positive: valid points with an action in this batch.
      normalizer: the running one after this batch; pass it to the next.
    """

    classification: Float[Array, ""]
    regression: Float[Array, ""]
    num_positive: Float[Array, ""]
    normalizer: Float[Array, ""]


def sigmoid_focal_loss(logits: Float[Array, "*s"],
                       targets: Float[Array, "*s"], *, alpha: float = 0.25,
                       gamma: float = 2.0) -> Float[Array, "*s"]:
    """Focal loss of every element (Lin et al., 2017), no reduction.

    Args:
      logits: before the sigmoid.
      targets: in [0, 1]; smoothed targets weigh both terms.
      alpha: weight of the positive side, 1 - alpha of the negative.
      gamma: how strongly easy elements fade; at least 1, for the gradient.
    """
    # log(sigmoid(x)) and 1 - sigmoid(x) = sigmoid(-x) stay exact for logits
    # of any size, where log(p) and 1 - p do not.
    cross_entropy = -(targets * jax.nn.log_sigmoid(logits)
                      + (1 - targets) * jax.nn.log_sigmoid(-logits))
    miss = (targets * jax.nn.sigmoid(-logits)
            + (1 - targets) * jax.nn.sigmoid(logits))
    side = alpha * targets + (1 - alpha) * (1 - targets)
    return side * miss**gamma * cross_entropy


def distance_iou_loss(predicted: Float[Array, "*s 2"],
                      target: Float[Array, "*s 2"]) -> Float[Array, "*s"]:
    """1 - IoU + squared distance of centers over the enclosing length.

    The one-dimensional distance-IoU loss (Zheng et al., 2020) of segments
    given by their distances from a common point inside both.

    Finite everywhere, and so is the gradient.

    Args:
      predicted, target: distance to start and to end, not negative.
    """
    predicted_left, predicted_right = predicted[..., 0], predicted[..., 1]
    target_left, target_right = target[..., 0], target[..., 1]
    enclosing = (jnp.maximum(predicted_left, target_left)
                 + jnp.maximum(predicted_right, target_right))
    center_distance = 0.5 * ((predicted_right - predicted_left)
                             - (target_right - target_left))
    return 1 - offsets_iou(predicted, target) + (center_distance
                      / jnp.maximum(enclosing, EPSILON))**2


def offsets_iou(predicted: Float[Array, "*s 2"],
                target: Float[Array, "*s 2"]) -> Float[Array, "*s"]:
    """IoU of segments given by distances from a common point inside both."""
    intersection = jnp.minimum(predicted, target).sum(-1)
    union = (predicted + target).sum(-1) - intersection
    return intersection / jnp.maximum(union, EPSILON)


def update_normalizer(normalizer: Float[Array, ""],
                      num_positive: Float[Array, ""],
                      momentum: float = 0.9) -> Float[Array, ""]:
    """The running number of positive points that the losses divide by."""
    return (momentum * normalizer
            + (1 - momentum) * jnp.maximum(num_positive, 1.0))


def detection_loss(class_logits: Float[Array, "b p k"],
                   offsets: Float[Array, "b p 2"], targets: Targets,
                   valid: Bool[Array, "b p"], normalizer: Float[Array, ""],
                   *, label_smoothing: float = 0.0,
                   regression_weight: float = 1.0, momentum: float = 0.9
                   ) -> tuple[Float[Array, ""], DetectionLosses]:
    """ActionFormer's training loss over a (global) batch.

    Both parts are sums over points, not means: the running normalizer,
    updated with this batch before it is used, divides them.
    Differs from OpenTAD: `num_positive` counts the global batch, not one
    device's share, so the result does not depend on the number of devices.

    Args:
      class_logits: before the sigmoid.
      offsets: distances to start and end, in strides.
      targets: of `assign_targets`, with the batch axis in front.
      valid: False on padding.
      normalizer: after the last batch.
      label_smoothing: e; classes become y (1 - e) + e / (k + 1).
      regression_weight: below 0 the regression part is scaled to the size
        of the classification part, with no gradient through the scale.
      momentum: of the normalizer.

    Returns:
      The scalar to minimize, and its parts.
    """
    focal = _smoothed_focal_loss(class_logits, targets, label_smoothing)
    positive = targets.positive & valid
    # The loss of all points, then a mask: at points that do not count it is
    # finite, and so is its gradient, which the mask turns into 0.
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
    """TriDet's training loss, where every class has offsets of its own.

    Those of a positive point's own classes count, and the focal loss of these
    classes is multiplied by IoU^iou_power, through which the gradient flows.
    Differs from TriDet: IoU is at least `MIN_IOU`, because the slope of
    x^0.2 at 0 has no end.

    Args:
      offsets: of every class, in strides.
      iou_power: see above.

    Others and the result as `detection_loss`.
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
    """Both parts over the running number of positive points."""
    num_positive = jnp.sum(positive, dtype=jnp.float32)
    normalizer = update_normalizer(normalizer, num_positive, momentum)
    classification = jnp.sum(
        jnp.where(valid[..., None], focal, 0.0)) / normalizer
    regression = jnp.sum(distance) / normalizer

    weight: jax.Array | float
    if regression_weight < 0:
        weight = jax.lax.stop_gradient(
            classification
            / jnp.maximum(regression, MIN_AUTOMATIC_REGRESSION))
    else:
        weight = regression_weight
    return (classification + weight * regression,
            DetectionLosses(classification, regression, num_positive,
                            normalizer))
