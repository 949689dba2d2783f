"""Rounds of a work directory: the same command with changed data.

A finished run moves to rounds/N and the next round starts from its weights:

    WORKDIR/checkpoints, config.json, ...   the round that is trained
    WORKDIR/rounds/1/checkpoints, ...       the first one, a complete run

Renaming the folder of checkpoints decides: before that the work directory
holds the finished run, and after it a round that has not begun. The other
files follow, config.json last, so that a start after a kill completes the
move. What the next round writes comes after all of that.
"""

import os
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from losa_jax.distributed import processes, remote_workdir
from losa_jax.errors import InputError
from losa_jax.training import start_from, training_set
from losa_jax.training.build import Model
from losa_jax.training.checkpoint import Checkpoints
from losa_jax.training.step import TrainState
from losa_jax.utils import atomic_write, run_files

# What belongs to a round, in the order in which it is moved.
_MOVED = (
    run_files.METRICS_FILE, run_files.TENSORBOARD_FOLDER,
    run_files.PREDICTIONS_FILE, run_files.MAP_FILE, run_files.THRESHOLDS_FILE,
    run_files.COST_FILE, run_files.BROKEN_FILE, run_files.REPORT_FOLDER,
    run_files.AGAIN_FILE, run_files.CONFIG_FILE)


def open_run(config: Any, workdir: Path, facts: dict[str, Any], model: Model,
             mesh: Mesh, state: TrainState
             ) -> tuple[Checkpoints, start_from.Start | None]:
    """Opens the checkpoints to train on, and moves a finished run away whose
    data changed.

    Returns:
      the checkpoints; and, of a run without any that starts from another one,
      what it starts with.

    Raises:
      InputError: the weights to start from do not fit, or a bucket holds a
        finished run on other data.
    """
    asked = config.train.start_from
    if asked and config.head.checkpoint:
        raise InputError("config.train.start_from and config.head.checkpoint "
                         "are both set: clear one of them")
    checkpoints = Checkpoints(workdir, only_writer=True)
    if checkpoints.latest_step() is not None:
        due = is_due(checkpoints, facts, accepted=config.data.accept_changes)
        if not any(processes.gather(due)):
            return checkpoints, None
        _refuse_bucket(workdir)
        # Before anything is moved, because the weights may not fit.
        start = start_from.load_start(workdir, facts, model, mesh, state)
        checkpoints.close()
        folder = retire(workdir)
        print(f"the data changed since {workdir} was trained: that run is in "
              f"{folder} now, and this one begins with its weights")
        fact = {**start.fact, "folder": _relative(folder, workdir)}
        return (Checkpoints(workdir, only_writer=True),
                start._replace(fact=fact))
    if last := latest(workdir):
        _move_rest(workdir, last)
        start = start_from.load_start(last, facts, model, mesh, state)
        return checkpoints, start._replace(
            fact={**start.fact, "folder": _relative(last, workdir)})
    if asked:
        return checkpoints, start_from.load_start(
            remote_workdir.local_folder(asked, only_reads=True), facts, model,
            mesh, state)
    return checkpoints, None


def is_due(checkpoints: Checkpoints, facts: dict[str, Any], *, accepted: bool
           ) -> bool:
    """Whether a run is finished, and its training videos, their actions or the
    classes are others now."""
    saved = checkpoints.facts()
    if accepted or training_set.FACT not in saved:
        return False
    before, now = saved[training_set.FACT], facts[training_set.FACT]
    steps = saved["train"]["epochs"] * before["steps_per_epoch"]
    is_finished = steps == checkpoints.latest_step() == (
        checkpoints.evaluated_step())
    return is_finished and (before["videos"] != now["videos"] or
                            saved["class_names"] != facts["class_names"])


def latest(workdir: Path) -> Path | None:
    """Returns the folder of the last finished round, None without any."""
    numbers = [int(folder.name) for folder
               in (workdir / run_files.ROUNDS_FOLDER).glob("[0-9]*")
               if folder.name.isdigit()
               and (folder / remote_workdir.CHECKPOINTS).is_dir()]
    return _folder(workdir, max(numbers)) if numbers else None


def retire(workdir: Path) -> Path:
    """Moves a finished run to the next of the rounds; returns its folder."""
    last = latest(workdir)
    processes.barrier("round")  # all have looked
    folder = _folder(workdir, int(last.name) + 1 if last else 1)
    if processes.is_first():
        atomic_write.make_folder(folder)
        with atomic_write.writing(folder):
            os.replace(workdir / remote_workdir.CHECKPOINTS,
                       folder / remote_workdir.CHECKPOINTS)
    _move_rest(workdir, folder)
    return folder


def _move_rest(workdir: Path, folder: Path) -> None:
    """Moves what an interrupted move has left."""
    if processes.is_first() and not (folder / run_files.CONFIG_FILE).exists():
        with atomic_write.writing(folder):
            for name in _MOVED:
                if (workdir / name).exists():
                    os.replace(workdir / name, folder / name)
    processes.barrier("moved")


def _folder(workdir: Path, number: int) -> Path:
    return workdir / run_files.ROUNDS_FOLDER / str(number)


def _relative(folder: Path, workdir: Path) -> str:
    return folder.relative_to(workdir).as_posix()


def _refuse_bucket(workdir: Path) -> None:
    remote = remote_workdir.remote_of(workdir)
    if remote is not None:
        raise InputError(
            f"{remote} holds a finished run on other data, and a folder in a "
            "bucket cannot be renamed: start the next round in another "
            f"--workdir with --config.train.start_from={remote}")
