"""Creates and restores training states, and identifies their runs."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from losa_jax.distributed import remote_workdir, sharding
from losa_jax.errors import InputError
from losa_jax.models.detector import FeatureStatistics
from losa_jax.training import build, optimizer
from losa_jax.training.build import Model
from losa_jax.training.checkpoint import BEST, LAST, Checkpoints
from losa_jax.training.run_facts import same_facts
from losa_jax.training.step import TrainState, create_state
from losa_jax.utils import run_files
from losa_jax.weights import backbone_folder

# The path of the backbone from the work directory, among the facts.
BACKBONE_PLACE = "backbone_from_workdir"
# Facts that must be equal for a checkpoint to fit the model ...
MODEL_FACTS = ("class_names", "backbone", "features", "tap_layers", "model",
               "window")
# ... and for a resumed run to be the same run.
RUN_FACTS = (*MODEL_FACTS, "train", "loss", "seed", "data", "augment")


def run_schedule(train: Any, steps_per_epoch: int) -> optax.Schedule:
    """Returns the learning rate by step, from the config section `train`."""
    return optimizer.learning_rate_schedule(
        train.learning_rate, round(train.warmup_epochs * steps_per_epoch),
        train.schedule_epochs * steps_per_epoch, train.final_learning_rate)


def fresh_state(config: Any, model: Model, mesh: Mesh, steps_per_epoch: int
                ) -> tuple[TrainState, optax.GradientTransformation]:
    """Returns the state at step 0, on the mesh, and the optimizer.

    The feature statistics are mean 0 and deviation 1. Of a described model,
    the leaves are `jax.ShapeDtypeStruct`.
    """
    train, adapter = config.train, config.adapter
    adapters = r"^(adapter|backbone/adapters)/"
    transformation = optimizer.make_optimizer(
        run_schedule(train, steps_per_epoch), model.trained,
        weight_decay=train.weight_decay, gradient_clip=train.gradient_clip,
        rate_factors={
            r"^adapter/.*gate/gate$": adapter.gate_learning_rate_factor,
            adapters: adapter.learning_rate_factor,
            r"^backbone/": adapter.backbone_learning_rate_factor},
        decay_factors={adapters: adapter.weight_decay_factor})

    def create(trained):
        statistics = FeatureStatistics(jnp.zeros(model.width),
                                       jnp.ones(model.width))
        return create_state(trained, transformation,
                            config.loss.initial_normalizer, statistics)

    shapes = jax.eval_shape(create, model.trained)
    shardings = sharding.parameter_shardings(shapes, mesh)
    if isinstance(jax.tree.leaves(model.trained)[0], jax.ShapeDtypeStruct):
        state = jax.tree.map(
            lambda leaf, place: leaf.update(sharding=place), shapes,
            shardings)
    else:
        # One program, because arrays with parts in other processes cannot be
        # changed outside of one.
        state = jax.jit(create, out_shardings=shardings)(model.trained)
    return state, transformation


class Run(NamedTuple):
    """A trained run, on the mesh; `which` checkpoint it is, best or last."""

    model: Model
    state: TrainState
    class_names: tuple[str, ...]
    which: str


def load_run(workdir: Path, config: Any, mesh: Mesh, *, which: str = BEST
             ) -> Run:
    """Loads a checkpoint with a backbone that reads videos.

    Raises:
      InputError: no checkpoint, or one of another config or of features.
    """
    if which not in (BEST, LAST):
        raise InputError(f"checkpoint {which!r}: choose {BEST} or {LAST}")
    if config.features.folder:
        raise InputError(
            f"{workdir}: this run reads files of features, not videos: use "
            "a run with a backbone")
    if not remote_workdir.checkpoints_folder(workdir).is_dir():
        raise InputError(f"--workdir={workdir} holds no run: name the "
                         "folder of a run, or train first (--mode=train)")
    class_names = tuple(run_facts_of(workdir)["class_names"])
    model = build.build_model(config, len(class_names), mesh, for_videos=True)
    state, which = restore_run(config, workdir, which, model, mesh,
                               class_names)
    return Run(model, state, class_names, which)


def run_facts_of(workdir: Path) -> dict[str, Any]:
    """Returns the facts of the newest checkpoint of a run."""
    checkpoints = Checkpoints(workdir)
    facts = checkpoints.facts()
    checkpoints.close()
    return facts


def restore_run(config: Any, workdir: Path, which: str, model: Model,
                mesh: Mesh, class_names: Sequence[str]
                ) -> tuple[TrainState, str]:
    """Returns a run's checkpoint and which it is, `best` or `last`.

    Raises:
      InputError: there is no checkpoint, or it is of another model.
    """
    fresh, _ = fresh_state(config, model, mesh, steps_per_epoch=1)
    checkpoints = Checkpoints(workdir)
    facts = checkpoints.facts()
    if not checkpoints.has_best():
        if which == BEST and checkpoints.best_map() is not None:
            raise InputError(
                f"{workdir}: the best checkpoint of this run is missing: copy "
                "the run again, or choose --checkpoint=last (--which=last of "
                "predict)")
        which = LAST
    # Before the arrays, whose errors would not name the key.
    same_facts(facts, run_facts(config, class_names, model), MODEL_FACTS,
               workdir)
    state, _ = checkpoints.restore(which, fresh)
    checkpoints.close()
    return state, which


def run_facts(config: Any, class_names: Sequence[str], model: Model
              ) -> dict[str, Any]:
    """Returns the facts that identify the run of a checkpoint."""
    sections = config.to_dict()
    return plain({
        "class_names": class_names,
        "backbone": model.fingerprint,
        "backbone_spec": (dataclasses.asdict(model.spec) if model.spec
                          else sections["features"]),
        "tap_layers": model.tap_layers,
        "model": {"adapter": sections["adapter"], "head": sections["head"],
                  "size": config.augment.size,
                  "dtype": config.backbone.dtype},
        "data": {"train_subset": config.data.train_subset,
                 "cached": bool(config.data.cache)},
        **{name: sections[name] for name in (
            "window", "train", "loss", "augment", "seed")},
    })


def backbone_place(config: Any, workdir: Path) -> dict[str, Any]:
    """Returns the fact by which a run that was moved finds its backbone."""
    checkpoint = config.backbone.checkpoint
    if not checkpoint or remote_workdir.remote_of(workdir) is not None:
        return {}
    return {
        BACKBONE_PLACE: os.path.relpath(checkpoint, workdir)}


def find_backbone(workdir: Path, checkpoint: str) -> str:
    """Returns the folder of the backbone that a run was trained with.

    Args:
      checkpoint: config.backbone.checkpoint of the run; first are tried the
        copy in the work directory (config.backbone.keep_copy), this path, and
        the same place seen from the work directory; of a finished round,
        WORKDIR/rounds/N, that is WORKDIR. Without one that holds the run's
        weights it is the first that is there.

    Raises:
      InputError: none of them is there.
    """
    facts = run_facts_of(workdir)
    home = workdir
    if workdir.absolute().parent.name == run_files.ROUNDS_FOLDER:
        home = workdir.absolute().parent.parent
    tried = [home / run_files.BACKBONE_FOLDER, Path(checkpoint)]
    if BACKBONE_PLACE in facts:
        tried.append(Path(os.path.normpath(home / facts[BACKBONE_PLACE])))
    there = [path for path in tried
             if (path / backbone_folder.FACTS_FILE).is_file()]
    if not there:
        raise InputError(
            f"{workdir}: its backbone is neither in "
            f"{' nor in '.join(map(str, tried))}: give --backbone=FOLDER")
    return str(next(
        (path for path in there if backbone_folder.stored_fingerprint(path)
         == facts.get("backbone")), there[0]))


def plain(value: Any) -> Any:
    """Returns a value as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(value))
