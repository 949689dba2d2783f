"""--mode=export: a finished run as one folder that needs nothing else.

losa_jax/inference/exported.py describes the folder; `predict` takes it in
place of a work directory.
"""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

import losa_jax
from losa_jax.distributed import sharding
from losa_jax.errors import InputError
from losa_jax.inference.exported import CONTENT, PLATFORMS, write_exported
from losa_jax.inference.load import read_thresholds
from losa_jax.jobs.fit_config import fit_config
from losa_jax.jobs.setup import check_config, start_log
from losa_jax.models.detector import FeatureStatistics
from losa_jax.models.ops import attention, params
from losa_jax.training import restore, specs
from losa_jax.training.step import make_predict_step
from losa_jax.utils.atomic_write import refuse_others


def export(config: Any, workdir: Path, *, output: Path | None = None,
           which: str = "best",
           platforms: Sequence[str] = PLATFORMS) -> Path:
    """Writes the exported folder and returns it.

    Args:
      output: the folder; None: `export` in the work directory.
      which: checkpoint of the run, "best" or "last".
      platforms: where the folder can run.

    Raises:
      InputError: no finished run, or one that cannot read videos.
    """
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown or not platforms:
        raise InputError(f"--platforms={','.join(platforms)}: choose among "
                         f"{', '.join(PLATFORMS)}")
    check_config(config, keys=())
    folder = output or workdir / "export"
    refuse_others(folder, *CONTENT)
    fit_config(config, workdir)
    config = config.copy_and_resolve_references()
    # The clips of all windows of a batch are encoded side by side.
    chunk, batch = config.backbone.chunk_clips, config.evaluate.batch_windows
    config.backbone.chunk_clips = max(1, chunk // batch) if chunk else 0
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    run = restore.load_run(workdir, config, mesh, which=which)
    if os.access(workdir, os.W_OK):
        start_log(workdir)
    weights = {name: np.asarray(jax.device_get(leaf)) for name, leaf
               in params.flatten({
                   "frozen": run.model.frozen, "trained": run.state.ema,
                   "statistics": run.state.statistics._asdict()}).items()}
    program = _program(config, run, weights, tuple(platforms))
    thresholds = read_thresholds(workdir)
    write_exported(folder, program, weights, {
        "losa_jax": losa_jax.__version__,
        "platforms": tuple(platforms),
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
    print("python -m losa_jax.predict VIDEO --checkpoint="
          f"{shlex.quote(str(folder))}")
    return folder


def _program(config: Any, run: restore.Run, weights: dict[str, np.ndarray],
             platforms: tuple[str, ...]) -> bytes:
    """The serialized program, for any number of windows."""
    model = run.model
    step = make_predict_step(model.encode, model.detector,
                             specs.decode_settings(config.evaluate))

    def one_window(weights, frames, valid_samples):
        tree = params.nest(weights)
        rows = jax.tree.map(lambda leaf: leaf[0], step(
            tree["trained"], FeatureStatistics(**tree["statistics"]),
            tree.get("frozen", {}),
            {"frames": frames[None], "valid_samples": valid_samples[None]})
            )._asdict()
        # The name in the file format.
        rows["alive"] = rows.pop("valid")
        if rows["class_scores"] is None:
            del rows["class_scores"]
        return rows

    def all_windows(weights, frames, valid_samples):
        # Only the batch size is symbolic; sizes inside stay numbers.
        return jax.vmap(one_window, (None, 0, 0))(weights, frames,
                                                  valid_samples)

    size = config.augment.size
    batch, = jax_export.symbolic_shape("b")
    with attention.portable():
        exported = jax_export.export(
            jax.jit(all_windows), platforms=platforms)(
                jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype), weights),
                jax.ShapeDtypeStruct(
                    (batch, config.window.samples, size, size, 3), np.uint8),
                jax.ShapeDtypeStruct((batch,), np.int32))
    return bytes(exported.serialize())


def _settings(config: Any) -> dict[str, Any]:
    """Returns the settings between a video and its detections."""
    augment, data = config.augment, config.data
    return restore.plain({
        "window": config.window.to_dict(),
        "augment": {"size": augment.size, "test_resize": augment.test_resize},
        "data": {"check": data.check, "num_threads": data.num_threads},
        "evaluate": config.evaluate.to_dict()})
