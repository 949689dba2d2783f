"""Finished runs and exported folders, loaded for use.

`load` gives a `Localizer` of either. `load_run` gives the network and state
of a run, for jobs that do something else with it.
"""

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from ml_collections import ConfigDict

from losa_jax.detection.thresholds import DEFAULT_THRESHOLD
from losa_jax.distributed import remote_workdir
from losa_jax.errors import InputError
from losa_jax.inference.exported import is_exported, load_exported
from losa_jax.inference.localizer import Localizer
from losa_jax.utils.run_files import CONFIG_FILE, THRESHOLDS_FILE

if TYPE_CHECKING:  # an exported folder runs without code of the model
    from jax.sharding import Mesh

    from losa_jax.training.build import Model
    from losa_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run.

    Attributes:
      config: as the run was built here.
      model, state: on the mesh.
      class_names: in label order.
      which: checkpoint that it is from, "best" or "last".
    """

    config: Any
    model: "Model"
    state: "TrainState"
    class_names: tuple[str, ...]
    which: str


def load_run(workdir: Path, config: Any, mesh: "Mesh", *,
             which: str = "best") -> Run:
    """A checkpoint of a work directory with a backbone that reads videos.

    Args:
      workdir: of the run.
      config: its settings (`read_config`), or those of the command line,
        which must be of the same model.
      mesh: to load onto.
      which: checkpoint, "best" or "last"; "last" where there is no best yet.

    Raises:
      InputError: there is none, it is of another config, or it reads
        features.
    """
    from losa_jax.training.build import build_model
    from losa_jax.training.checkpoint import BEST, LAST, Checkpoints
    from losa_jax.training.restore import restore_run

    if which not in (BEST, LAST):
        raise InputError(f"checkpoint {which!r}: choose {BEST} or {LAST}")
    if config.features.folder:
        raise InputError(
            f"{workdir}: this run reads files of features, not videos: it "
            "cannot be used on videos without the network that made them")
    if not remote_workdir.checkpoints_folder(workdir).is_dir():
        raise InputError(f"--workdir={workdir} holds no run: name the "
                         "folder of a run, or train first (--mode=train)")
    checkpoints = Checkpoints(workdir)
    try:
        saved = which if checkpoints.latest_step(which) is not None else LAST
        class_names = tuple(checkpoints.facts(saved)["class_names"])
    finally:
        checkpoints.close()
    # The head's start and the cache served the training only.
    building = config.copy_and_resolve_references()
    building.head.checkpoint = building.data.cache = ""
    model = build_model(building, len(class_names), mesh)
    state, which = restore_run(config, workdir, which, model, mesh,
                               class_names)
    return Run(building, model, state, class_names, which)


def load(folder: str | Path, *, which: str = "best", backbone: str = "",
         batch_windows: int = 0, num_threads: int = 0) -> Localizer:
    """A finished model, ready for any video.

    >>> model = load("runs/quick")
    >>> for action in model("video.mp4"):
    ...     print(action.label, action.start_seconds, action.end_seconds)

    Args:
      folder: work directory of a run, or what --mode=export made of it.
      which: checkpoint of a run, "best" (by mAP) or "last"; "best" is the
        last where there is no best yet.
      backbone: folder of the converted backbone, where it is not any more
        where the run's config.json says; "" takes that.
      batch_windows: windows that run at once, in place of
        config.evaluate.batch_windows; 0 keeps it.
      num_threads: that decode, in place of config.data.num_threads; 0 keeps
        it.

    Returns:
      a `Localizer`: called with a video's path, it gives a list of
      `losa_jax.Detection`; `class_names` and `thresholds` say what it knows.

    Raises:
      InputError: no finished run, one that reads files of features instead
        of videos, a missing backbone, or `backbone` or `which` given for an
        exported folder.
    """
    folder = Path(folder)
    if is_exported(folder):
        if backbone or which != "best":
            raise InputError(
                f"{folder}: an exported folder holds one checkpoint with its "
                "backbone: leave out --backbone and --which, or name the "
                "work directory of the run")
        return _exported_localizer(folder, batch_windows, num_threads)
    config = read_config(folder)
    _overrule(config, batch_windows, num_threads)
    if backbone:
        config.backbone.checkpoint = backbone
    return _run_localizer(folder, config, which)


def _overrule(config: ConfigDict, batch_windows: int, num_threads: int
              ) -> None:
    if batch_windows:
        config.evaluate.batch_windows = batch_windows
        if "train" in config:  # not in an exported folder
            config.train.batch_windows = batch_windows
    if num_threads:
        config.data.num_threads = num_threads


def _exported_localizer(folder: Path, batch_windows: int, num_threads: int
                        ) -> Localizer:
    model = load_exported(folder)
    config = ConfigDict(model.settings)
    _overrule(config, batch_windows, num_threads)
    return Localizer(
        config, model.class_names, model.thresholds,
        identity_of(config, model.class_names, model.checksums),
        config.evaluate.batch_windows, model.predict_windows)


def _run_localizer(workdir: Path, config: ConfigDict, which: str
                   ) -> Localizer:
    from losa_jax.distributed import sharding
    from losa_jax.training import build
    from losa_jax.weights.backbone_folder import FACTS_FILE

    if not config.features.folder and not (
            Path(config.backbone.checkpoint) / FACTS_FILE).is_file():
        raise InputError(
            f"{workdir}: the backbone that it was trained with is not in "
            f"{config.backbone.checkpoint} (counted from the current "
            "folder): name its folder with --backbone=FOLDER")
    # The devices here, not those of the training.
    config.mesh.data = config.mesh.clip = config.mesh.fsdp = 0
    mesh = build.build_mesh(config)
    run = load_run(workdir, config, mesh, which=which)
    parameters, statistics = run.state.ema, run.state.statistics
    step = build.jit_predict_step(run.config, run.model, mesh)

    def predict_windows(inputs):
        batch = sharding.put(inputs, sharding.batch_shardings(inputs, mesh))
        return step(parameters, statistics, run.model.frozen, batch)

    return Localizer(
        run.config, run.class_names, read_thresholds(workdir),
        identity_of(run.config, run.class_names, (
            run.model.fingerprint,
            *map(_checksum, jax.tree.leaves((parameters, statistics))))),
        run.config.evaluate.batch_windows, predict_windows)


def read_config(workdir: Path) -> ConfigDict:
    """The settings that a run was made with.

    Raises:
      InputError: the folder holds no run.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file() or not (workdir / "checkpoints").is_dir():
        raise InputError(
            f"{workdir}: holds no finished run ({CONFIG_FILE} and "
            "checkpoints/): name the --workdir of a training")
    try:
        return ConfigDict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a run's settings ({error})"
                         ) from error


def read_thresholds(workdir: Path) -> dict[str, float]:
    """{class: score of best F1}; empty where a run has not measured any."""
    path = workdir / THRESHOLDS_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(entry["score"])
                for name, entry in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not the thresholds of a run ({error!r}): "
                         "delete it to use "
                         f"{DEFAULT_THRESHOLD}") from error


def identity_of(config: ConfigDict, class_names: Sequence[str],
                weights: Sequence[Any]) -> str:
    """Hash of all that decides the detections of a video.

    Args:
      config: of the run.
      class_names: in label order.
      weights: fingerprints of the parameters.
    """
    evaluate = {key: value for key, value in config.evaluate.items()
                if key not in ("batch_windows", "checkpoint", "output",
                               "tiou_thresholds")}
    facts = [config.window.to_dict(), config.augment.size,
             config.augment.test_resize, evaluate, list(class_names),
             list(weights)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()
                          ).hexdigest()[:16]


def _checksum(leaf: jax.Array) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).data)
