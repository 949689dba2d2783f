"""Backbones, batches and steps that need no data: made-up numbers."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from losa_jax.distributed import sharding
from losa_jax.models.backbones.videomae import VideoMae, VideoMaeSpec
from losa_jax.models.ops.params import flatten, named_key, nest, parameters
from losa_jax.training import build
from losa_jax.training.restore import fresh_state
from losa_jax.weights.backbone_folder import convert_backbone, save_source

STEPS_PER_EPOCH = 100


class Step(NamedTuple):
    """A train step as a run has it, and what it takes.

    Attributes:
      model: see `build.Model`.
      state: step 0.
      run: jitted, (state, frozen, batch, key) to (state, metrics); it gives
        the old state's room away.
      batch: of `make_batch`.
      key: of the run.
      mesh: one device.
    """

    model: build.Model
    state: Any
    run: jax.stages.Wrapped
    batch: dict[str, jax.Array]
    key: jax.Array
    mesh: Mesh


def make_backbone(folder: Path, spec: VideoMaeSpec) -> dict[str, np.ndarray]:
    """A fresh one, converted into the folder; its flat parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    params = {name: np.asarray(leaf) for name, leaf in flatten(parameters(
        VideoMae(spec, rngs=nnx.Rngs(0)))).items()}
    source = folder.with_suffix(".safetensors")
    save_source(source, spec, params)
    convert_backbone(source, folder)
    source.unlink()
    return params


def random_parameters(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns random parameters in place of described ones, on their devices.

    Scales are near 1 and no branch of the model is zero, unlike at the start
    of training.
    """
    def make(key: jax.Array) -> dict[str, Any]:
        leaves = {}
        for name, leaf in flatten(tree).items():
            numbers = jax.random.normal(named_key(key, name), leaf.shape)
            if name.endswith("scale"):
                numbers = 1 + 0.1 * numbers
            elif name.endswith("kernel"):
                numbers *= 0.5 * leaf.shape[-2] ** -0.5
            else:
                numbers *= 0.02
            leaves[name] = numbers.astype(leaf.dtype)
        return nest(leaves)

    return jax.jit(make, out_shardings=sharding.of_leaves(tree))(
        jax.random.key(0))


def make_step(config: Any, num_classes: int) -> Step:
    """The train step of a config with a converted backbone."""
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    model = build.build_model(config, num_classes, mesh)
    state, optimizer = fresh_state(config, model, mesh, STEPS_PER_EPOCH)
    step = build.jit_train_step(config, model, optimizer, state, mesh)
    batch = make_batch(config, num_classes, np.random.default_rng(0))
    return Step(model, state, step, batch, jax.random.key(0), mesh)


def make_batch(config: Any, num_classes: int, rng: np.random.Generator,
               num_actions: int = 8) -> dict[str, jax.Array]:
    """Windows of noise without padding, with actions."""
    b, frames = config.train.batch_windows, config.window.samples
    tokens, size = config.window.tokens, config.augment.size
    starts = rng.uniform(0, 0.7 * tokens, (b, num_actions))
    ends = np.minimum(starts + rng.lognormal(1.5, 1.0, starts.shape), tokens)
    return jax.device_put({
        "frames": rng.integers(0, 256, (b, frames, size, size, 3), np.uint8),
        "valid_samples": np.full(b, frames, np.int32),
        "readable": np.ones((b, 1), bool),
        "segments": np.stack([starts, ends], -1).astype(np.float32),
        "labels": rng.integers(0, num_classes, starts.shape).astype(np.int32),
        "action_valid": np.ones(starts.shape, bool)})
