"""Loads finished runs and exported folders."""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from losa_jax.data.windows.batch import Inputs
from losa_jax.detection.metrics import DEFAULT_THRESHOLD
from losa_jax.detection.segments import Segments
from losa_jax.errors import InputError, listed
from losa_jax.inference import exported
from losa_jax.inference.localizer import Localizer
from losa_jax.utils import recipes
from losa_jax.utils.run_files import CONFIG_FILE, THRESHOLDS_FILE
from losa_jax.utils.text_files import read_json
from losa_jax.utils.threads import thread_count

_RESTORE = "restore it from a copy"
_TYPES = {bool: "true or false", int: "whole number", float: "number",
          str: "text in quotes", tuple: "list of numbers or names"}


def load(folder: str | Path, *, which: str = "best", backbone: str = "",
         batch_windows: int = 0, num_threads: int = 0) -> Localizer:
    """Loads a finished model that localizes actions in any video.

    >>> model = load("runs/quick")
    >>> for action in model("video.mp4"):
    ...     print(action.label, action.start_seconds, action.end_seconds)

    Args:
      folder: work directory of a run, or the output of --mode=export.
      which: checkpoint of a run, "best" (by mAP) or "last"; without a best
        checkpoint both are the last.
      backbone: folder of the converted backbone; "" finds the one of the
        run's config.json, also after the run was moved along with it.
      batch_windows: windows that run at once; 0 keeps
        config.evaluate.batch_windows.
      num_threads: threads that decode; 0 keeps config.data.num_threads.

    Returns:
      a `Localizer`, which maps the path of a video to a list of
      `losa_jax.Detection`.

    Raises:
      InputError: the folder holds no finished run or one that reads features,
        the backbone is missing, or `backbone` or `which` is given for an
        exported folder.
    """
    folder = Path(folder)
    is_run = not exported.is_exported(folder)
    if not is_run and (backbone or which != "best"):
        raise InputError(
            f"{folder}: an exported folder holds one checkpoint with its "
            "backbone: leave out --backbone and --which, or name the "
            "work directory of the run")
    if is_run:
        config = read_config(folder)
        config.backbone.checkpoint = backbone or config.backbone.checkpoint
        config.train.batch_windows = batch_windows or config.train.batch_windows
    else:
        manifest, predict_windows = exported.load_exported(folder)
        config = ConfigDict(recipes.with_later_keys(manifest["settings"]))
    config.evaluate.batch_windows = (
        batch_windows or config.evaluate.batch_windows)
    config.data.num_threads = thread_count(
        num_threads or config.data.num_threads)
    if is_run:
        class_names, weights, predict_windows = _open_run(
            folder, config, which, backbone)
        thresholds = read_thresholds(folder)
    else:
        class_names = tuple(manifest["class_names"])
        thresholds = manifest["thresholds"]
        weights = [manifest["files"][name]["sha256"] for name in (
            exported.WEIGHTS_FILE, exported.PROGRAM_FILE)]
    return Localizer(config, class_names, thresholds,
                     identity_of(config, class_names, weights),
                     config.evaluate.batch_windows, predict_windows)


def _open_run(workdir: Path, config: ConfigDict, which: str,
              backbone: str) -> tuple[
        tuple[str, ...], list[Any], Callable[[Inputs], Segments]]:
    """Returns classes, checksums of the weights, and `predict_windows`."""
    # Exported folders are used without the code of the model.
    from losa_jax.distributed import sharding
    from losa_jax.training import build, config_ranges
    from losa_jax.training.restore import find_backbone, load_run
    from losa_jax.weights.backbone_folder import FACTS_FILE

    config_ranges.check_ranges(config)
    if backbone and not (Path(backbone) / FACTS_FILE).is_file():
        raise InputError(f"{backbone} is no converted backbone: give with "
                         f"--backbone=FOLDER that of the run {workdir}")
    if not (config.features.folder or backbone):
        config.backbone.checkpoint = find_backbone(
            workdir, config.backbone.checkpoint)
    # The devices of this process, not those of training.
    config.mesh.data = config.mesh.clip = config.mesh.fsdp = 0
    mesh = build.build_mesh(config, jax.local_devices())
    config.evaluate.batch_windows = build.evaluation_windows(
        config, mesh.shape)
    model, state, class_names, _ = load_run(workdir, config, mesh,
                                            which=which)
    step = build.jit_predict_step(config, model, mesh)

    def predict_windows(inputs):
        batch = sharding.put(inputs, sharding.batch_shardings(inputs, mesh))
        return step(state.ema, state.statistics, model.frozen, batch)

    checksums = [zlib.crc32(np.ascontiguousarray(leaf).data) for leaf
                 in jax.tree.leaves((state.ema, state.statistics))]
    return class_names, [model.fingerprint, *checksums], predict_windows


def read_config(workdir: Path) -> ConfigDict:
    """Reads the settings of a run; raises InputError without one.

    An older run may lack the keys `recipes.LATER_KEYS`.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file() or not (workdir / "checkpoints").is_dir():
        raise InputError(
            f"{workdir}: holds no finished run ({CONFIG_FILE} and "
            "checkpoints/): name the --workdir of a training")
    content, defaults = read_json(path, _RESTORE), recipes.defaults()
    missing = [section for section, default in defaults.items() if (
        isinstance(default, ConfigDict) and not (
            isinstance(content, dict)
            and isinstance(content.get(section), dict)))]
    if missing:
        raise InputError(f"{path}: not the settings of a run, for it has no "
                         f"{', '.join(missing)}: {_RESTORE}")
    content = recipes.with_later_keys(content)
    actual = flatten_dict(content, sep=".")
    problems = [
        f"config.{key}={actual[key]!r} is no {_TYPES[type(default)]}"
        if key in actual else f"config.{key} is missing"
        for key, default in flatten_dict(defaults.to_dict(), sep=".").items()
        if not _is_like(actual.get(key), default)]
    if problems:
        raise InputError(
            f"{path}: not the settings of a run of this version, for"
            f"{listed(problems)}\n{_RESTORE}, or write what the run was "
            "trained with; configs/common.py has every key's default")
    return ConfigDict(content)


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value from JSON has the type of a default."""
    if isinstance(default, tuple):
        return isinstance(value, list) and all(
            type(one) in (int, float, str) for one in value)
    return type(value) is type(default) or (
        isinstance(default, float) and type(value) is int)


def read_thresholds(workdir: Path) -> dict[str, float]:
    """Returns {class: score of best F1}, empty where none were measured."""
    path = workdir / THRESHOLDS_FILE
    if not path.is_file():
        return {}
    remedy = f"delete it to use {DEFAULT_THRESHOLD}"
    content = read_json(path, remedy)
    try:
        return {name: float(entry["score"])
                for name, entry in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not the thresholds of a run ({error!r}): "
                         f"{remedy}") from error


def identity_of(config: ConfigDict, class_names: Sequence[str],
                weights: Sequence[Any]) -> str:
    """Returns a hash of everything that decides the detections of a video."""
    evaluate = {key: value for key, value in config.evaluate.items()
                if key not in ("batch_windows", "checkpoint", "output",
                               "tiou_thresholds", "per_frame", "ego4d_recall")}
    facts = [config.window.to_dict(), config.augment.size,
             config.augment.test_resize, evaluate, list(class_names),
             list(weights)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()
                          ).hexdigest()[:16]
