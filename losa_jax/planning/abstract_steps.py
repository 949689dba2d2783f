"""A run's compiled functions, from shapes alone: for any devices and size."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from losa_jax.distributed import sharding
from losa_jax.training import build
from losa_jax.training.restore import fresh_state

# The schedule's length changes no shape.
_STEPS_PER_EPOCH = 100
# Slots for the actions of a window.
_MAX_ACTIONS = 64


class Steps(NamedTuple):
    """The two functions of a run, ready to lower and compile."""

    train: jax.stages.Traced  # the update of train.batch_windows windows
    evaluate: jax.stages.Traced  # candidates of evaluate.batch_windows windows
    trained_count: int  # number of trained parameters


def trace_steps(config: Any, num_classes: int, mesh: Mesh) -> Steps:
    """Traces the train and the evaluation step for the devices of a mesh.

    The devices may be described ones. The config needs the backbone's name or
    sizes, because its checkpoint is not read.

    Raises:
      InputError: a key that does not fit.
    """
    model = build.build_model(config, num_classes, mesh, abstract=True)
    state, optimizer = fresh_state(config, model, mesh, _STEPS_PER_EPOCH)
    size = config.augment.size

    def batch(b, *names):
        shapes = {
            "frames": ((b, config.window.samples, size, size, 3), jnp.uint8),
            "valid_samples": ((b,), jnp.int32),
            "segments": ((b, _MAX_ACTIONS, 2), jnp.float32),
            "labels": ((b, _MAX_ACTIONS), jnp.int32),
            "action_valid": ((b, _MAX_ACTIONS), jnp.bool_),
        }
        leaves = {name: jax.ShapeDtypeStruct(*shapes[name])
                  for name in names or shapes}
        shardings = sharding.batch_shardings(leaves, mesh)
        return {name: leaf.update(sharding=shardings[name])
                for name, leaf in leaves.items()}

    key = jax.eval_shape(lambda: jax.random.key(0))
    key = key.update(sharding=sharding.replicated(mesh))
    train = build.jit_train_step(
        config, model, optimizer, state, mesh).trace(
            state, model.frozen, batch(config.train.batch_windows), key)
    evaluate = build.jit_predict_step(config, model, mesh).trace(
        state.ema, state.statistics, model.frozen, batch(
            config.evaluate.batch_windows, "frames", "valid_samples"))
    return Steps(train, evaluate, sum(
        leaf.size for leaf in jax.tree.leaves(state.trained)))
