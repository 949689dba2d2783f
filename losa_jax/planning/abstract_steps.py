"""A run's compiled functions without its arrays: for any devices, any size.

Compiling for described shapes tells memory and collectives of a step on
devices that are not there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from losa_jax.distributed import sharding
from losa_jax.training import build
from losa_jax.training.restore import fresh_state
from losa_jax.training.state import tree_size

# The schedule's length changes no shape.
_STEPS_PER_EPOCH = 100


class Steps(NamedTuple):
    """The two functions of a run, ready to lower and compile.

    Attributes:
      train: the update of train.batch_windows windows.
      evaluate: the candidates of evaluate.batch_windows windows.
      trained_count: trained numbers.
    """

    train: jax.stages.Traced
    evaluate: jax.stages.Traced
    trained_count: int


def trace_steps(config: Any, num_classes: int, mesh: Mesh, *,
                max_actions: int = 64) -> Steps:
    """Traces train and evaluation step for the devices of the mesh.

    Args:
      config: with a backbone's name or sizes; its checkpoint is not read.
      num_classes: of the data set.
      mesh: of real devices or of a topology description.
      max_actions: slots for the actions of a window.

    Raises:
      InputError: a key that does not fit.
    """
    model = build.describe_model(config, num_classes, mesh)
    state, optimizer = fresh_state(config, model, mesh, _STEPS_PER_EPOCH)
    size = config.augment.size

    def described(batch_windows, names):
        b = batch_windows
        shapes = {
            "frames": ((b, config.window.samples, size, size, 3), jnp.uint8),
            "valid_samples": ((b,), jnp.int32),
            "segments": ((b, max_actions, 2), jnp.float32),
            "labels": ((b, max_actions), jnp.int32),
            "action_valid": ((b, max_actions), jnp.bool_),
        }
        batch = {name: jax.ShapeDtypeStruct(*shapes[name])
                 for name in names or shapes}
        places = sharding.batch_shardings(batch, mesh)
        return {name: leaf.update(sharding=places[name])
                for name, leaf in batch.items()}

    key = jax.eval_shape(lambda: jax.random.key(0))
    key = key.update(sharding=sharding.replicated(mesh))
    train = build.jit_train_step(
        config, model, optimizer, state, mesh).trace(
            state, model.frozen, described(config.train.batch_windows, ()),
            key)
    evaluate = build.jit_predict_step(config, model, mesh).trace(
        state.ema, state.statistics, model.frozen, described(
            config.evaluate.batch_windows, ("frames", "valid_samples")))
    return Steps(train, evaluate, tree_size(state.trained))
