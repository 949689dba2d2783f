"""--mode=export: a finished run as one folder that needs nothing else.

What is in it and why: losa_jax/inference/exported.py. `predict` takes the
folder in place of a work directory.
"""

import logging
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.inference.exported import (
    PLATFORMS,
    refuse_others,
    write_exported,
)
from losa_jax.inference.load import Run, load_run, read_thresholds
from losa_jax.jobs.setup import start_log
from losa_jax.models.detector import FeatureStatistics
from losa_jax.models.ops.attention import portable
from losa_jax.models.ops.params import flatten, nest
from losa_jax.training.restore import plain
from losa_jax.training.specs import decode_settings
from losa_jax.training.step import make_predict_step

logger = logging.getLogger(__name__)

# The folder in the work directory where config.export.folder names none.
DEFAULT_FOLDER = "export"


def export(config: Any, workdir: Path) -> Path:
    """The job: writes config.export.folder, returns it.

    Raises:
      InputError: no finished run, or one that cannot read videos.
    """
    platforms = tuple(config.export.platforms)
    strangers = [name for name in platforms if name not in PLATFORMS]
    if strangers or not platforms:
        raise InputError(f"config.export.platforms={platforms}: choose among "
                         f"{', '.join(PLATFORMS)}")
    folder = Path(config.export.folder or workdir / DEFAULT_FOLDER)
    refuse_others(folder)
    config = config.copy_and_resolve_references()
    # The clips of all windows of a batch are encoded side by side.
    chunk, batch = config.backbone.chunk_clips, config.evaluate.batch_windows
    config.backbone.chunk_clips = max(1, chunk // batch) if chunk else 0
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    run = load_run(workdir, config, mesh, which=config.evaluate.checkpoint)
    start_log(workdir)
    weights = {name: np.asarray(jax.device_get(leaf)) for name, leaf
               in flatten(_weights(run)).items()}
    program = _program(config, run, weights, platforms)
    thresholds = read_thresholds(workdir)
    write_exported(folder, program, weights, {
        "losa_jax": metadata.version("losa_jax"),
        "platforms": platforms,
        "class_names": run.class_names,
        "thresholds": thresholds,
        "settings": _settings(config),
        "run": {"checkpoint": run.which, "step": int(run.state.step),
                "adapter": config.adapter.kind, "head": config.head.kind,
                "backbone": run.model.fingerprint}})
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {len(run.class_names)} classes, checkpoint "
          f"{run.which} of step {int(run.state.step)}, "
          f"{size / 2**20:.1f} MiB, for {', '.join(platforms)}"
          + ("" if thresholds else "; the run measured no thresholds"))
    print(f"python -m losa_jax.predict VIDEO --checkpoint={folder}")
    return folder


def _weights(run: Run) -> dict[str, Any]:
    return {"frozen": run.model.frozen, "trained": run.state.ema,
            "statistics": run.state.statistics._asdict()}


def _program(config: Any, run: Run, weights: dict[str, np.ndarray],
             platforms: tuple[str, ...]) -> bytes:
    """The serialized program, for any number of windows."""
    model = run.model
    step = make_predict_step(model.encode, model.detector,
                             decode_settings(config.evaluate))

    def one_window(weights, frames, valid_samples):
        tree = nest(weights)
        found = jax.tree.map(lambda leaf: leaf[0], step(
            tree["trained"], FeatureStatistics(**tree["statistics"]),
            tree.get("frozen", {}),
            {"frames": frames[None], "valid_samples": valid_samples[None]}))
        rows = found._asdict()
        # The format's names, older than the code's.
        rows["alive"] = rows.pop("valid")
        if rows["class_scores"] is None:
            del rows["class_scores"]
        return rows

    def all_windows(weights, frames, valid_samples):
        # Inside, sizes are numbers: only the batch is a symbol.
        return jax.vmap(one_window, (None, 0, 0))(weights, frames,
                                                  valid_samples)

    size = config.augment.size
    batch, = jax_export.symbolic_shape("b")
    with portable():
        exported = jax_export.export(
            jax.jit(all_windows), platforms=platforms)(
                jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype), weights),
                jax.ShapeDtypeStruct(
                    (batch, config.window.samples, size, size, 3), np.uint8),
                jax.ShapeDtypeStruct((batch,), np.int32))
    return bytes(exported.serialize())


def _settings(config: Any) -> dict[str, Any]:
    """What lies between a video and its detections, but for the model."""
    augment, data = config.augment, config.data
    return plain({
        "window": config.window.to_dict(),
        "augment": {"size": augment.size, "test_resize": augment.test_resize},
        "data": {"check": data.check, "num_threads": data.num_threads},
        "evaluate": config.evaluate.to_dict()})
