"""A run's compiled functions without its arrays: for any devices, any size.

Compiling for described shapes tells memory and collectives of a step on
devices that are not there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from losa_jax.training import build, sharding
from losa_jax.training.cost import matmul_flops
from losa_jax.training.restore import fresh_state
from losa_jax.training.state import tree_size
from losa_jax.training.step import make_predict_step

# The schedule's length changes no shape.
_STEPS_PER_EPOCH = 100


class Lowered(NamedTuple):
    """The two functions of a run, ready to compile.

    Attributes:
      train_step: the update.
      forward: the prediction of the same number of windows.
      trained_count: trained numbers.
      frozen_count: frozen numbers.
      train_flops, forward_flops: of the whole program, all devices, matrix
        products alone (`cost.matmul_flops`).
    """

    train_step: jax.stages.Lowered
    forward: jax.stages.Lowered
    trained_count: int
    frozen_count: int
    train_flops: int
    forward_flops: int


def lower_steps(config: Any, num_classes: int, mesh: Mesh, *,
                max_actions: int = 64) -> Lowered:
    """Lowers train and predict step for the devices of the mesh.

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
    b, size = config.train.batch_windows, config.augment.size
    shapes = {
        "frames": ((b, config.window.frames, size, size, 3), jnp.uint8),
        "valid_samples": ((b,), jnp.int32),
        "segments": ((b, max_actions, 2), jnp.float32),
        "labels": ((b, max_actions), jnp.int32),
        "action_valid": ((b, max_actions), jnp.bool_),
    }
    places = sharding.batch_shardings(shapes, mesh)
    batch = {name: jax.ShapeDtypeStruct(shape, dtype, sharding=places[name])
             for name, (shape, dtype) in shapes.items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype,
                               sharding=sharding.replicated(mesh))
    train_step = jax.jit(
        build.build_train_step(config, model, optimizer, num_classes),
        donate_argnums=0,
        out_shardings=(sharding.of_leaves(state), None)
    ).trace(state, model.frozen, batch, key)
    forward = jax.jit(make_predict_step(model.encode, model.detector)).trace(
        state.trained, state.statistics, model.frozen,
        {name: batch[name] for name in ("frames", "valid_samples")})
    return Lowered(train_step.lower(), forward.lower(),
                   tree_size(state.trained), tree_size(model.frozen),
                   matmul_flops(train_step.jaxpr),
                   matmul_flops(forward.jaxpr))
