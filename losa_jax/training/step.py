"""One update, and one prediction: the two jitted functions of a run.

Gradients, optimizer state and moving average exist for the trained tree
alone; the frozen backbone is another argument. Where nothing of the backbone
is trained, windows are encoded before the gradient is taken, so no
activation of it is stored.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from losa_jax.detection.decode import decode_with_points
from losa_jax.detection.losses import detection_loss
from losa_jax.detection.targets import Points, assign_targets
from losa_jax.models.detector import DetectorOutput
from losa_jax.models.ops.params import Template, Tree
from losa_jax.training.encoder import Encode, encoder_inputs
from losa_jax.training.state import TrainState

# Of the backbone's random numbers among a step's; the head's come first.
_BACKBONE = 1


class LossSettings(NamedTuple):
    """The config section `loss`, resolved."""

    num_classes: int
    center_radius: float
    label_smoothing: float
    regression_weight: float
    normalizer_momentum: float
    iou_power: float = 0.0


class EmaSettings(NamedTuple):
    """decay 0.999 as ActionFormer; `warmup` starts it lower, because a run
    of a few hundred steps would otherwise evaluate its random start."""

    decay: float
    warmup: bool


def make_train_step(encode: Encode, detector: Template,
                    optimizer: optax.GradientTransformation, points: Points,
                    loss: LossSettings, ema: EmaSettings
                    ) -> Callable[..., tuple[TrainState, dict]]:
    """The update: (state, frozen, batch, key) to (state, metrics).

    Args:
      encode: windows to their features.
      detector: template of the trained module.
      optimizer: for the trained tree.
      points: of the head's pyramid.
      loss, ema: settings.

    The batch holds frames uint8 [b, f, H, W, 3] (or cached `last` and
    `taps`), valid_samples int32 [b],
    segments float32 [b, n, 2] in tokens, labels int32 [b, n] and
    action_valid bool [b, n]. `key` seeds the run; each step folds its number
    in, so a resumed run draws what an unbroken one would.
    """
    def train_step(state: TrainState, frozen: Tree,
                   batch: dict[str, jax.Array], key: jax.Array
                   ) -> tuple[TrainState, dict[str, jax.Array]]:
        step_key = jax.random.fold_in(key, state.step)

        def encoded(trained):
            return encode(frozen, trained, encoder_inputs(batch),
                          batch["valid_samples"],
                          jax.random.fold_in(step_key, _BACKBONE))

        tunes_backbone = "backbone" in state.trained
        fixed = None if tunes_backbone else encoded(state.trained)

        def loss_function(trained):
            features = encoded(trained) if tunes_backbone else fixed
            output = detector.bind(trained)(
                features, state.statistics, batch["valid_samples"], step_key)
            targets = jax.vmap(
                lambda segments, labels, valid: assign_targets(
                    points, segments, labels, valid,
                    num_classes=loss.num_classes,
                    center_radius=loss.center_radius)
            )(batch["segments"], batch["labels"], batch["action_valid"])
            return detection_loss(
                output.class_logits, output.offsets, targets, output.valid,
                state.normalizer, label_smoothing=loss.label_smoothing,
                regression_weight=loss.regression_weight,
                momentum=loss.normalizer_momentum,
                iou_power=loss.iou_power)

        (total, parts), gradients = jax.value_and_grad(
            loss_function, has_aux=True)(state.trained)
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        new_state = dataclasses.replace(
            state, step=state.step + 1, trained=trained,
            optimizer=optimizer_state,
            ema=_moving_average(state.ema, trained, state.step, ema),
            normalizer=parts.normalizer)
        metrics = {
            "loss": total,
            "classification_loss": parts.classification,
            "regression_loss": parts.regression,
            "positive_points": parts.num_positive,
            "gradient_norm": optax.tree.norm(gradients),
        }
        return new_state, metrics

    return train_step


def _moving_average(ema: Tree, trained: Tree, step: jax.Array,
                    settings: EmaSettings) -> Tree:
    decay = jnp.float32(settings.decay)
    if settings.warmup:
        decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new,
                        ema, trained)


def make_predict_step(encode: Encode, detector: Template
                      ) -> Callable[..., DetectorOutput]:
    """(parameters, statistics, frozen, batch) to outputs."""
    def predict_step(parameters, statistics, frozen, batch):
        valid_samples = batch["valid_samples"]
        features = encode(frozen, parameters, encoder_inputs(batch),
                          valid_samples, None)
        return detector.bind(parameters)(features, statistics, valid_samples)

    return predict_step


def make_candidates_step(encode: Encode, detector: Template,
                         points_of: Callable[[int], Points], tubelet: int,
                         settings: Any) -> Callable[..., Any]:
    """(parameters, statistics, frozen, batch) to the best candidates.

    Args:
      encode, detector: as `make_predict_step`.
      points_of: samples of a window to the points of the head's pyramid.
      tubelet: samples that one of the encoder's tokens stands for.
      settings: the config section `evaluate`.

    Returns:
      traceable; gives `Candidates` [b, m] in tokens of their window, and the
      scores of all classes, [b, m, k], or None without
      settings.keep_all_scores.
    """
    predict = make_predict_step(encode, detector)

    def num_samples(batch):
        if "frames" in batch:
            return batch["frames"].shape[1]
        _, clips, steps, _ = batch["last"].shape
        return clips * steps * tubelet

    def candidates_step(parameters, statistics, frozen, batch):
        output = predict(parameters, statistics, frozen, batch)
        points = points_of(num_samples(batch))
        level_sizes = None
        if settings.top_k_per_level:
            level_sizes = np.unique(points.stride, return_counts=True)[1]

        def decode(logits, offsets, valid):
            found, point = decode_with_points(
                logits, offsets, points, valid,
                score_threshold=settings.score_threshold,
                top_k=settings.top_k, level_sizes=level_sizes,
                min_length_tokens=settings.min_length_tokens)
            every = (jax.nn.sigmoid(logits)[point]
                     if settings.keep_all_scores else None)
            return found, every

        return jax.vmap(decode)(output.class_logits, output.offsets,
                                output.valid)

    return candidates_step


def make_moments_step(
    encode: Encode, tubelet: int
) -> Callable[[Tree, Tree, dict[str, jax.Array]], tuple[jax.Array, ...]]:
    """Sums over the valid tokens of a batch, for `FeatureStatistics`.

    Returns:
      (frozen, trained, batch) to (count, sum [c], sum of squares [c]) in
      float32.
    """
    def moments_step(frozen, trained, batch):
        valid_samples = batch["valid_samples"]
        last = encode(frozen, trained, encoder_inputs(batch), valid_samples,
                      None).last
        b, n, u, c = last.shape
        first_sample = jnp.arange(n * u) * tubelet
        valid = first_sample[None] < valid_samples[:, None]
        x = last.reshape(b, n * u, c) * valid[..., None]
        return valid.sum(), x.sum((0, 1)), jnp.square(x).sum((0, 1))

    return moments_step
