"""The state that a run starts from, and the facts that identify the run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from losa_jax.distributed import sharding
from losa_jax.models.detector import FeatureStatistics
from losa_jax.training import optimizer
from losa_jax.training.build import Model
from losa_jax.training.checkpoint import (
    LAST,
    Checkpoints,
    abstract_state,
    same_facts,
)
from losa_jax.training.state import TrainState, create_state

# What must be equal for a checkpoint's parameters to mean the same ...
MODEL_FACTS = ("class_names", "backbone", "tap_layers", "model", "window")
# ... and for a resumed run to be the same run.
RUN_FACTS = (*MODEL_FACTS, "train", "loss", "seed", "data", "augment")


def fresh_state(config: Any, model: Model, mesh: Mesh, steps_per_epoch: int
                ) -> tuple[TrainState, optax.GradientTransformation]:
    """Step 0 of a run, on the mesh; statistics are those of no change.

    Only described, `jax.ShapeDtypeStruct` for arrays, if the model is.
    """
    train, adapter = config.train, config.adapter
    schedule = optimizer.learning_rate_schedule(
        train.learning_rate, round(train.warmup_epochs * steps_per_epoch),
        train.schedule_epochs * steps_per_epoch)
    transformation = optimizer.make_optimizer(
        schedule, model.trained, weight_decay=train.weight_decay,
        gradient_clip=train.gradient_clip,
        rate_factors={
            r"^adapter/.*gate/gate$": adapter.gate_learning_rate_factor,
            r"^(adapter|backbone/adapters)/": adapter.learning_rate_factor,
            r"^backbone/": adapter.backbone_learning_rate_factor},
        decay_factors={
            r"^(adapter|backbone/adapters)/": adapter.weight_decay_factor})
    def create(trained):
        statistics = FeatureStatistics(jnp.zeros(model.width),
                                       jnp.ones(model.width))
        return create_state(trained, transformation,
                            config.loss.initial_normalizer, statistics)

    if isinstance(jax.tree.leaves(model.trained)[0], jax.ShapeDtypeStruct):
        state = sharding.make_on_mesh(
            lambda: create(jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
                model.trained)), mesh, abstract=True)
    else:
        # In one program: outside of one, an array that other processes
        # hold a part of cannot be touched.
        shardings = sharding.parameter_shardings(
            jax.eval_shape(create, model.trained), mesh)
        state = jax.jit(create, out_shardings=shardings)(model.trained)
    return state, transformation


def restore_run(config: Any, workdir: Path, which: str, model: Model,
                mesh: Mesh, class_names: Sequence[str]
                ) -> tuple[TrainState, str]:
    """A run's checkpoint for use: (state, which of `best` and `last`).

    Args:
      config, model: that the checkpoint must be of.
      which: to take; `last` where there is no such one yet.

    Raises:
      InputError: there is none, or it is of another model.
    """
    fresh, _ = fresh_state(config, model, mesh, steps_per_epoch=1)
    checkpoints = Checkpoints(workdir)
    which = which if checkpoints.latest_step(which) is not None else LAST
    # First: the arrays of another model would not fit, without saying why.
    same_facts(checkpoints.facts(which), run_facts(
        config, class_names, model), MODEL_FACTS, workdir)
    state, _ = checkpoints.restore(which, abstract_state(fresh))
    checkpoints.close()
    return state, which


def run_facts(config: Any, class_names: Sequence[str], model: Model
              ) -> dict[str, Any]:
    """What is saved beside the state to recognize the run again."""
    sections = config.to_dict()
    facts = {
        "class_names": list(class_names),
        "backbone": model.fingerprint,
        "backbone_spec": (dataclasses.asdict(model.spec) if model.spec
                          else sections["features"]),
        "tap_layers": list(model.tap_layers),
        "model": {"adapter": sections["adapter"], "head": sections["head"],
                  "size": config.augment.size,
                  "dtype": config.backbone.dtype},
        "window": sections["window"],
        "train": sections["train"],
        "loss": sections["loss"],
        "augment": sections["augment"],
        "data": {"train_subset": config.data.train_subset,
                 "cached": bool(config.data.cache)},
        "seed": config.seed,
    }
    return plain(facts)


def plain(value: Any) -> Any:
    """As it looks after a trip through JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value
