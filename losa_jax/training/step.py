"""The train step, the predict step and the step of feature statistics.

Gradients, optimizer state and moving average exist only for the trained tree.
A frozen backbone runs outside the differentiated function, so none of its
activations are stored.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from losa_jax.detection.decode import DecodeSettings
from losa_jax.detection.segments import Segments
from losa_jax.models.detector import FeatureStatistics
from losa_jax.models.ops import params
from losa_jax.models.ops.params import Template, Tree
from losa_jax.training.encoder import Encode, encoder_inputs


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds.

    Attributes:
      step: int32, number of updates.
      trained: parameters of adapter, fusion and head, a nested dict.
      optimizer: optax state of `trained`.
      ema: moving average of `trained`, which evaluation uses.
      normalizer: float32, running number of positive points.
      statistics: channel mean and deviation of the head's input.
    """

    step: jax.Array
    trained: Any
    optimizer: Any
    ema: Any
    normalizer: jax.Array
    statistics: FeatureStatistics


def create_state(trained: Any, optimizer: optax.GradientTransformation,
                 normalizer: float, statistics: FeatureStatistics
                 ) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        optimizer=optimizer.init(trained),
        # A copy, because a donated buffer may appear only once.
        ema=jax.tree.map(jnp.array, trained),
        normalizer=jnp.asarray(normalizer, jnp.float32),
        statistics=statistics)


def make_train_step(encode: Encode, detector: Template,
                    optimizer: optax.GradientTransformation, *,
                    ema_decay: float, ema_warmup: bool,
                    deep_supervision: float = 0.0
                    ) -> Callable[..., tuple[TrainState, dict]]:
    """Returns the update, (state, frozen, batch, key) to (state, metrics).

    The batch is of `losa_jax.data.windows.batch`, without the keys for the
    host. Each step folds its number into `key`, so that a resumed run draws
    the same random numbers as an uninterrupted one. With `ema_warmup` the
    moving average covers fewer steps at first; without it, a run of a few
    hundred steps evaluates its initialization. `deep_supervision` weights the
    mean of the losses after each tap but the last.
    """
    def train_step(state: TrainState, frozen: Tree,
                   batch: dict[str, jax.Array], key: jax.Array
                   ) -> tuple[TrainState, dict[str, jax.Array]]:
        valid_samples = _valid_samples(batch)
        action_valid = batch["action_valid"] & (valid_samples > 0)[:, None]
        step_key = jax.random.fold_in(key, state.step)
        backbone_key = params.named_key(step_key, "backbone")
        head_key = params.named_key(step_key, "head")

        def encoded(trained):
            return encode(frozen, trained, encoder_inputs(batch),
                          valid_samples, backbone_key)

        trains_backbone = "backbone" in state.trained
        fixed = None if trains_backbone else encoded(state.trained)

        def loss_function(trained):
            features = encoded(trained) if trains_backbone else fixed
            model = detector.bind(trained)
            inputs = features, state.statistics, valid_samples, head_key
            if deep_supervision:
                after_taps = model.after_each_tap(*inputs)
                earlier, outputs = (jax.tree.map(lambda x, i=i: x[i],
                                                 after_taps)
                                    for i in (slice(-1), -1))
            else:
                outputs = model(*inputs)
            targets = model.head.targets(
                outputs, batch["segments"], batch["labels"], action_valid,
                batch.get("loss_weights"))
            loss = model.head.loss(outputs, targets, state.normalizer)
            if deep_supervision:
                more = jax.vmap(lambda one: model.head.loss(
                    one, targets, state.normalizer).total)(earlier).mean()
                loss = loss._replace(
                    total=loss.total + deep_supervision * more,
                    metrics={**loss.metrics, "deep_supervision_loss": more})
            return loss.total, loss

        (total, loss), gradients = jax.value_and_grad(
            loss_function, has_aux=True)(state.trained)
        updates, optimizer_state = optimizer.update(
            gradients, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        new_state = dataclasses.replace(
            state, step=state.step + 1, trained=trained,
            optimizer=optimizer_state,
            ema=_moving_average(state.ema, trained, state.step, ema_decay,
                                ema_warmup),
            normalizer=loss.normalizer)
        return new_state, {**loss.metrics, "loss": total,
                           "gradient_norm": optax.tree.norm(gradients)}

    return train_step


def _valid_samples(batch: dict[str, jax.Array]) -> jax.Array:
    """Returns the real samples of windows, int32 [b]: none if a process could
    not read its part of one."""
    if "readable" not in batch:
        return batch["valid_samples"]
    return jnp.where(batch["readable"].all(axis=1), batch["valid_samples"], 0)


def _moving_average(ema: Tree, trained: Tree, step: jax.Array, decay: float,
                    warmup: bool) -> Tree:
    share = jnp.float32(decay)
    if warmup:
        share = jnp.minimum(share, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: share * old + (1 - share) * new,
                        ema, trained)


def make_predict_step(encode: Encode, detector: Template,
                      settings: DecodeSettings) -> Callable[..., Segments]:
    """Returns the prediction, (parameters, statistics, frozen, batch) to
    `Segments` [b, m] in tokens of their window."""
    def predict_step(parameters, statistics, frozen, batch):
        head, outputs = _head_outputs(encode, detector, parameters, statistics,
                                      frozen, batch)
        return head.decode(outputs, settings)

    return predict_step


def make_pair_step(first: tuple[Encode, Template],
                   second: tuple[Encode, Template], settings: DecodeSettings
                   ) -> Callable[..., Segments]:
    """Returns the prediction of pairs of classes of two models, as
    `make_predict_step`; its first three arguments are those of both."""
    def pair_step(parameters, statistics, frozen, batch):
        (head, outputs), (_, others) = (
            _head_outputs(*model, *arguments, batch)
            for model, arguments in zip(
                (first, second), zip(parameters, statistics, frozen,
                                     strict=True), strict=True))
        return head.decode_pairs(outputs, others, settings)

    return pair_step


def _head_outputs(encode: Encode, detector: Template, parameters: Tree,
                  statistics: FeatureStatistics, frozen: Tree,
                  batch: dict[str, jax.Array]) -> tuple[Any, Any]:
    """Returns the head and its outputs for a batch."""
    valid_samples = batch["valid_samples"]
    features = encode(frozen, parameters, encoder_inputs(batch),
                      valid_samples, None)
    model = detector.bind(parameters)
    return model.head, model(features, statistics, valid_samples)


def make_moments_step(
    encode: Encode, tubelet: int
) -> Callable[[Tree, Tree, dict[str, jax.Array]], tuple[jax.Array, ...]]:
    """Returns (frozen, trained, batch) to (count, sum [c], sum of squares
    [c]) of the features of valid tokens, in float32."""
    def moments_step(frozen, trained, batch):
        valid_samples = _valid_samples(batch)
        last = encode(frozen, trained, encoder_inputs(batch), valid_samples,
                      None).last
        b, n, u, c = last.shape
        first_sample = jnp.arange(n * u) * tubelet
        valid = first_sample[None] < valid_samples[:, None]
        x = last.reshape(b, n * u, c) * valid[..., None]
        return valid.sum(), x.sum((0, 1)), jnp.square(x).sum((0, 1))

    return moments_step
