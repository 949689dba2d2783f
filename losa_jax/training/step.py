"""Makes the train step, the predict step and the moments step of a run.

`build` jits the first two. Gradients, optimizer state and moving average exist
for the trained tree alone; the frozen backbone is another argument. Where
nothing of the backbone is trained, windows are encoded before the gradient is
taken, so no activation of it is stored.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from losa_jax.detection.decode import DecodeSettings
from losa_jax.detection.segments import Segments
from losa_jax.models.ops.params import Template, Tree
from losa_jax.training.encoder import Encode, encoder_inputs
from losa_jax.training.state import TrainState

# Of the backbone's random numbers among a step's; the head's come first.
_BACKBONE = 1


class EmaSettings(NamedTuple):
    """decay 0.999 as ActionFormer; `warmup` starts it lower, because a run
    of a few hundred steps would otherwise evaluate its random start."""

    decay: float
    warmup: bool


def make_train_step(encode: Encode, detector: Template,
                    optimizer: optax.GradientTransformation, ema: EmaSettings
                    ) -> Callable[..., tuple[TrainState, dict]]:
    """The update: (state, frozen, batch, key) to (state, metrics).

    Args:
      encode: windows to their features.
      detector: template of the trained module.
      optimizer: for the trained tree.
      ema: settings.

    The batch is a training batch of `losa_jax.data.windows.batch`, without
    what stays on the host. `key` seeds the run; each step folds its number
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
            model = detector.bind(trained)
            outputs = model(features, state.statistics,
                            batch["valid_samples"], step_key)
            targets = model.head.targets(
                outputs, batch["segments"], batch["labels"],
                batch["action_valid"])
            loss = model.head.loss(outputs, targets, state.normalizer)
            return loss.total, loss

        (total, loss), gradients = jax.value_and_grad(
            loss_function, has_aux=True)(state.trained)
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        new_state = dataclasses.replace(
            state, step=state.step + 1, trained=trained,
            optimizer=optimizer_state,
            ema=_moving_average(state.ema, trained, state.step, ema),
            normalizer=loss.normalizer)
        metrics = {**loss.metrics, "loss": total,
                   "gradient_norm": optax.tree.norm(gradients)}
        return new_state, metrics

    return train_step


def _moving_average(ema: Tree, trained: Tree, step: jax.Array,
                    settings: EmaSettings) -> Tree:
    decay = jnp.float32(settings.decay)
    if settings.warmup:
        decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new,
                        ema, trained)


def make_predict_step(encode: Encode, detector: Template,
                      settings: DecodeSettings) -> Callable[..., Segments]:
    """(parameters, statistics, frozen, batch) to segments.

    Args:
      encode, detector: as `make_train_step`.
      settings: which segments are kept.

    Returns:
      traceable; gives `Segments` [b, m] in tokens of their window.
    """
    def predict_step(parameters, statistics, frozen, batch):
        valid_samples = batch["valid_samples"]
        features = encode(frozen, parameters, encoder_inputs(batch),
                          valid_samples, None)
        model = detector.bind(parameters)
        outputs = model(features, statistics, valid_samples)
        return model.head.decode(outputs, settings)

    return predict_step


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
