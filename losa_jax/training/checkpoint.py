"""Saves and restores checkpoints with Orbax: the latest two and the best.

A checkpoint is a folder checkpoints/STEP with the train state, the position
of the data iterator, a JSON of facts (classes, configuration) and the
checksums of all files. The frozen backbone is not saved, only its fingerprint
among the facts. A state is saved before it is evaluated; evaluated.json beside
the checkpoints tells which was evaluated last, and which is the best.
"""

import asyncio
import contextlib
import functools
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict
from orbax.checkpoint import checkpoint_managers

from losa_jax.distributed import processes, remote_workdir
from losa_jax.errors import InputError, listed
from losa_jax.training import checksums
from losa_jax.training.step import TrainState
from losa_jax.utils import atomic_write

LAST, BEST = "last", "best"
_NUM_LATEST = 2
EVALUATED = "evaluated.json"
# What the operating system says within the long messages of TensorStore.
_OS_REASON = re.compile(
    "No space left on device|Disk quota exceeded|File too large|"
    "Read-only file system|Permission denied|Input/output error")


@functools.cache
def _quiet_closed_loops() -> None:
    """Lets TensorStore's threads call event loops that are closed.

    After an operation that failed they report each of the pending ones to a
    loop that Orbax has closed, and print a traceback for each. The failure
    itself is raised in the main thread.
    """
    call = asyncio.BaseEventLoop.call_soon_threadsafe

    def call_unless_closed(self: asyncio.BaseEventLoop, callback: Any,
                           *arguments: Any, **options: Any) -> asyncio.Handle:
        if self.is_closed() and (
                threading.get_ident() != threading.main_thread().ident):
            return asyncio.Handle(callback, arguments, self)
        return call(self, callback, *arguments, **options)

    setattr(asyncio.BaseEventLoop, call.__name__, call_unless_closed)
    # Tasks whose exceptions nobody awaits any more.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


class _Manager(ocp.CheckpointManager):
    """An Orbax manager that leaves preemption to `processes.stop_reached`.

    Orbax would ask jax about an earlier step than the training loop does.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class _KeepBest(checkpoint_managers.PreservationPolicy):
    """Preserves the checkpoint of one step."""

    def __init__(self, best_step: Callable[[], int | None]):
        self._best_step = best_step

    def should_preserve(
            self,
            checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
            **_: Any) -> Sequence[bool]:
        return [one.step == self._best_step() for one in checkpoints]


class Checkpoints:
    """The folder checkpoints/ of a work directory."""

    def __init__(self, workdir: Path, *, only_writer: bool = False):
        """Opens or creates the folder.

        Args:
          workdir: of the run, the same folder for all its processes.
          only_writer: removes what interrupted saves have left.

        Raises:
          InputError: a checkpoint is incomplete or damaged, or has the
            layout of an older version.
        """
        _quiet_closed_loops()
        self._step: int | None = None
        self._verified: set[int] = set()
        self._failure: BaseException | None = None
        root = remote_workdir.checkpoints_folder(workdir)
        if any((root / name).exists() for name in (LAST, BEST)):
            raise InputError(
                f"{root} was written by an older version of losa_jax (it has "
                f"folders {LAST} and {BEST}), which this version cannot read: "
                "choose another --workdir, or use the older version")
        self._workdir, self._root = workdir, epath.Path(root)
        self._refuse_damaged([
            checksums.damage(folder, with_arrays=False)
            for folder in _complete_folders(root)])
        # {"last_step", "best_step", "best_map"}, empty before an evaluation.
        self._evaluated: dict[str, Any] = self._read_evaluated()
        with atomic_write.writing(workdir / remote_workdir.CHECKPOINTS):
            self._manager = self._open(only_writer)

    def _open(self, only_writer: bool) -> _Manager:
        return _Manager(
            self._root, handler_registry=_handlers(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy([
                    checkpoint_managers.LatestN(_NUM_LATEST),
                    _KeepBest(self._best_step)]),
                cleanup_tmp_directories=only_writer,
                async_options=ocp.AsyncOptions(
                    barrier_sync_fn=self._barrier(),
                    # Before the checkpoint gets its final name.
                    post_finalization_callback=self._finish,
                    create_directories_asynchronously=False)))

    def _finish(self) -> None:
        """Adds the checksums of the checkpoint that is being written."""
        temporary = self._root.glob(f"{self._step}.*")
        checksums.write(next(temporary, self._root / str(self._step)))
        remote_workdir.copy_back(self._workdir)

    def _refuse_damaged(self, damages: Sequence[str]) -> None:
        if faults := [damage for damage in damages if damage]:
            raise InputError(
                f"checkpoints of {self._workdir} are not as they were "
                f"written:{listed(faults)}\ncopy the run again, or delete the "
                "folder of the checkpoint to use the others")

    def _barrier(self) -> ocp.multihost.BarrierSyncFn:
        """Returns a barrier where no failed write waits."""
        wait = ocp.multihost.get_barrier_sync_fn()

        def barrier(*, key: str, timeout_ms: int) -> None:
            failure = sys.exception()
            thread = threading.current_thread()
            # After a failed write Orbax would wait here 20 minutes for the
            # other processes, which wait elsewhere.
            if failure is not None and thread is not threading.main_thread():
                self._failure = failure
                raise failure
            wait(key=key, timeout_ms=timeout_ms)

        return barrier

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, None without any."""
        self.wait()
        return self._manager.latest_step()

    def has_best(self) -> bool:
        """Whether the best of the evaluated checkpoints is there."""
        self.wait()
        return self._best_step() in self._manager.all_steps()

    def evaluated_step(self) -> int | None:
        """Returns the step that was evaluated last."""
        return self._evaluated.get("last_step")

    def best_map(self) -> float | None:
        """Returns the highest average mAP, 0..1."""
        return self._evaluated.get("best_map")

    def _best_step(self) -> int | None:
        return self._evaluated.get("best_step")

    def set_evaluated(self, step: int, average_map: float) -> None:
        """Notes the average mAP, 0..1, of a saved step; the same in every
        process. The best checkpoint is kept from then on."""
        self.wait()
        best_map = self.best_map()
        if best_map is None or average_map > best_map:
            self._evaluated |= {"best_step": step, "best_map": average_map}
        self._evaluated["last_step"] = step
        if processes.is_first():
            path = self._root / EVALUATED
            temporary = path.with_suffix(".tmp")
            with atomic_write.writing(Path(path)):
                temporary.write_text(json.dumps(self._evaluated, indent=1))
                temporary.replace(path)

    def _read_evaluated(self) -> dict[str, Any]:
        path = self._root / EVALUATED
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text())
            return {"last_step": int(content["last_step"]),
                    "best_step": int(content["best_step"]),
                    "best_map": float(content["best_map"])}
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error!r}): copy it from "
                             "another copy of the run") from error

    def save(self, step: int, state: TrainState, facts: dict[str, Any],
             iterator: Any = None) -> None:
        """Copies the state to host memory and writes it in the background.

        Args:
          step: later than those of other checkpoints.
          state: may be donated as soon as this returns.
          facts: JSON.
          iterator: its `get_state` returns JSON.

        Raises:
          InputError: this save or the one before failed.
        """
        items = {"state": ocp.args.PyTreeSave(state),
                 "facts": ocp.args.JsonSave(facts)}
        if iterator is not None:
            items["data"] = ocp.args.JsonSave(iterator.get_state())
        self.wait()
        self._step = step
        with self._as_input_error():
            self._manager.save(
                step, args=ocp.args.Composite(**items),
                custom_metadata=checksums.CHECKED)

    def check(self) -> None:
        """Raises InputError where a save in the background has failed."""
        with self._as_input_error():
            if self._failure is not None:
                raise self._failure

    def wait(self) -> None:
        """Waits for the background; raises InputError where a save failed."""
        with self._as_input_error():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Waits at the end, also after an error, until nothing is written."""
        try:
            yield
        except BaseException as error:
            # Orbax would wait for a lost process.
            if not processes.is_loss(error):
                self.wait()
            raise
        self.wait()

    @contextlib.contextmanager
    def _as_input_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            cause = error.__cause__ or error
            if processes.is_loss(cause):
                raise cause from None
            self._remove_half_written()
            reason = _OS_REASON.search(str(error))
            raise InputError(
                f"checkpoint {self._root}/{self._step} could not be written "
                f"({reason[0] if reason else error}): make room, then start "
                "the same command again to go on from the last complete "
                "checkpoint") from error

    def _remove_half_written(self) -> None:
        """Frees the space of a save that failed, where nothing uses it."""
        if processes.is_first():
            for folder in self._root.glob(f"{self._step}.*"):
                with contextlib.suppress(OSError):
                    folder.rmtree()

    def _step_of(self, which: str) -> int:
        latest = self.latest_step()
        step = self._best_step() if which == BEST else latest
        if step is None:
            raise InputError(f"no checkpoint under {self._manager.directory}: "
                             "train first (--mode=train)")
        return step

    def saved_shapes(self, which: str) -> dict[str, tuple[int, ...]]:
        """Returns {parameter path: shape} of the trained parameters."""
        tree = self._manager.item_metadata(self._step_of(which))["state"].tree
        return {name: tuple(leaf.shape) for name, leaf
                in flatten_dict(tree["ema"], sep="/").items()}

    def restore(self, which: str, like: Any, iterator: Any = None
                ) -> tuple[Any, dict[str, Any]]:
        """Returns (state, facts) of the newest or the best checkpoint.

        Args:
          which: LAST or BEST.
          like: a `TrainState`, or a dict of some of its fields, with the
            shapes, dtypes and shardings to restore.
          iterator: its `set_state` gets the saved position.

        Raises:
          InputError: there is no checkpoint, it is damaged, or it does not
            fit the model.
        """
        step = self._step_of(which)
        if step not in self._verified and processes.is_first():
            self._refuse_damaged([checksums.damage(
                self._root / str(step), with_arrays=True)])
            self._verified.add(step)
        restore_args = ocp.checkpoint_utils.construct_restore_args(like)
        items = {"state": ocp.args.PyTreeRestore(
                     like, restore_args,
                     partial_restore=isinstance(like, dict)),
                 "facts": ocp.args.JsonRestore()}
        if iterator is not None:
            items["data"] = ocp.args.JsonRestore()
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            raise InputError(
                f"checkpoint {self._manager.directory}/{step} does not fit "
                "this configuration: use the settings in config.json of the "
                f"work directory, or another --workdir ({error})") from error
        if iterator is not None:
            iterator.set_state(restored["data"])
        return restored["state"], restored["facts"]

    def facts(self) -> dict[str, Any]:
        """Returns the facts of the newest checkpoint."""
        return self._manager.restore(
            self._step_of(LAST),
            args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]

    def close(self) -> None:
        """Waits for the background and closes the manager."""
        self.wait()
        with self._as_input_error():
            self._manager.close()


def _complete_folders(root: epath.Path | Path) -> list[epath.Path]:
    """Returns the folders of checkpoints of which the writing has ended.

    On disk these have their final names; in a bucket, where nothing can be
    renamed, they hold Orbax's last file.
    """
    root = epath.Path(root)
    if not processes.is_first() or not root.is_dir():
        return []
    folders = [path for path in root.iterdir() if path.name.isdigit()]
    return [path for path in sorted(folders) if "://" not in str(root)
            or (path / checksums.COMMIT).exists()]


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Returns handlers by which one device writes each small array.

    By default each device writes a slice, and each shape of slice is compiled:
    for a state of small arrays on eight devices 10 s instead of 0.5 s.
    """
    arrays = ocp.type_handlers.ArrayHandler(
        min_slice_bytes_for_replica_parallel=2 ** 20)
    handler = ocp.handlers.PyTreeCheckpointHandler(
        type_handler_registry=ocp.type_handlers.create_type_handler_registry(
            (jax.Array, arrays)))
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for arguments in (ocp.args.PyTreeSave, ocp.args.PyTreeRestore):
        registry.add("state", arguments, handler)
    return registry
