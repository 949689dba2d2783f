"""A finished run of random parameters, for benchmarks of `predict`.

The embedded default's network (configs/quick.py) that has learned nothing:
as fast and as large as a trained one. Its scores all lie near each other and
above the threshold, so every candidate goes to NMS: the worst case.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import quick
from losa_jax.distributed import sharding
from losa_jax.jobs.setup import write_json
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.training import build
from losa_jax.training.checkpoint import Checkpoints
from losa_jax.training.restore import fresh_state, run_facts
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import expected_shapes

NUM_CLASSES = 8


def write_random_run(folder: Path, *, depth: int = 6) -> Path:
    """Writes backbone and run; returns the work directory.

    Args:
      folder: is made.
      depth: blocks of the backbone, at least 2; fewer make a faster model.
    """
    config = quick.get_config()
    config.backbone.depth = depth
    # Taps come from the last half.
    config.adapter.num_taps = min(config.adapter.num_taps, depth // 2)
    config.backbone.checkpoint = str(_write_backbone(folder, config))
    workdir = folder / "run"
    workdir.mkdir()
    names = [f"class_{number}" for number in range(NUM_CLASSES)]
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    model = build.build_model(config, NUM_CLASSES, mesh)
    state, _ = fresh_state(config, model, mesh, steps_per_epoch=1)
    checkpoints = Checkpoints(workdir)
    checkpoints.save(1, state, run_facts(config, names, model))
    checkpoints.set_evaluated(1, 0.0)
    checkpoints.close()
    write_json(workdir / "config.json", config.to_dict())
    return workdir


def _write_backbone(folder: Path, config: Any) -> Path:
    settings = config.backbone
    spec = VideoMaeSpec(width=settings.width, depth=settings.depth,
                        heads=settings.heads, mlp_width=4 * settings.width,
                        patch=16, image_size=(config.augment.size,) * 2)
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "backbone.safetensors"
    backbone_folder.save_source(path, spec, {
        name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape
        in expected_shapes(spec).items()})
    backbone_folder.convert_backbone(path, folder / "backbone")
    return folder / "backbone"
