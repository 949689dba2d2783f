"""Checkpoints by Orbax: the last ones, and the best by mAP.

A checkpoint holds the train state, the data iterator's position and a small
JSON of facts (classes, mAP, configuration). The frozen backbone is never
saved: it never changes, its folder and checksum are among the facts.

Saves are copied to host memory and written in the background, while the
training goes on. What is not whole has a temporary name and is never read.
"""

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import jax
import orbax.checkpoint as ocp

from losa_jax.distributed import processes, remote_workdir
from losa_jax.errors import InputError
from losa_jax.training.state import TrainState

LAST, BEST = "last", "best"


def _let_one_device_write_small_arrays() -> None:
    """Of an array that all devices hold, Orbax lets each write a slice.

    It compiles a program for each form of slice: with eight devices 10 s for
    a state of small arrays, against half a second where one writes them.
    """
    # Orbax warns of what it is asked to do.
    absl, level = logging.getLogger("absl"), logging.getLogger("absl").level
    absl.setLevel(logging.ERROR)
    ocp.type_handlers.register_type_handler(
        jax.Array, ocp.type_handlers.ArrayHandler(
            min_slice_bytes_for_replica_parallel=2 ** 20), override=True)
    absl.setLevel(level)


_let_one_device_write_small_arrays()


class Position(Protocol):
    """Of an iterator: JSON, the same for any number of processes."""

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class _Manager(ocp.CheckpointManager):
    """Orbax's, which asks jax about preemption with each step it saves.

    jax agrees on a step to stop at by the last one that each process asked
    about (`processes.stop_reached`). A save that ends in the background would
    ask about a step long passed, and the processes could stop at different
    ones.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The two folders of a work directory, checkpoints/last and /best."""

    def __init__(self, workdir: Path, keep_last: int = 2, *,
                 alone: bool = False, only_writer: bool = False):
        """
        Args:
          workdir: of the run; the same folder to all its processes.
          keep_last: how many of the last ones stay.
          alone: this process saves without the run's others.
          only_writer: nobody else saves here now: what saves that were
            killed have left is removed.
        """
        self._workdir, self._alone = workdir, alone
        self._steps: dict[str, int] = {}
        self._failures: dict[str, BaseException] = {}
        root = remote_workdir.checkpoints_folder(workdir)
        if alone:  # Orbax makes folders only for all processes together
            for name in (LAST, BEST):
                (root / name).mkdir(parents=True, exist_ok=True)
        self._managers = {
            name: _Manager(root / name, options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, create=not alone,
                cleanup_tmp_directories=only_writer,
                async_options=ocp.AsyncOptions(
                    barrier_sync_fn=self._barrier(name),
                    post_finalization_callback=before,
                    create_directories_asynchronously=False),
                multiprocessing_options=self._processes(name)))
            for name, keep, before in (
                (LAST, keep_last, self._before_last), (BEST, 1, None))}

    def _processes(self, which: str) -> ocp.options.MultiprocessingOptions:
        """Who saves. Both kinds may be written at once: each has names of
        its own for where the processes wait for each other."""
        if not self._alone:
            return ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=which)
        return ocp.options.MultiprocessingOptions(
            active_processes={jax.process_index()},
            primary_host=jax.process_index(),
            barrier_sync_key_prefix=f"alone_{which}")

    def _barrier(self, which: str) -> ocp.multihost.BarrierSyncFn:
        """Where the threads that write wait for each other.

        A thread whose write has failed comes here too, on its way out; the
        others, who wait for it elsewhere, would not come for 20 minutes.
        """
        wait = ocp.multihost.get_barrier_sync_fn(
            processes=self._processes(which).active_processes)

        def barrier(*, key: str, timeout_ms: int) -> None:
            failure = sys.exception()
            if failure is not None and (
                    threading.current_thread()
                    is not threading.main_thread()):
                self._failures[which] = failure
                raise failure
            wait(key=key, timeout_ms=timeout_ms)

        return barrier

    def _before_last(self) -> None:
        """Before LAST gets its name, by the process that gives it.

        No restored step lacks its metrics, and none knows of a best
        checkpoint that is not there.
        """
        remote_workdir.copy_back(self._workdir)
        self._managers[BEST].wait_until_finished()

    def latest_step(self, which: str = LAST) -> int | None:
        """Step of the newest whole checkpoint, None if there is none."""
        self.wait()
        return self._managers[which].latest_step()

    def save(self, which: str, step: int, state: TrainState,
             facts: dict[str, Any],
             iterator: Position | None = None) -> None:
        """Copies to host memory; files are written in the background.

        The caller may donate the state at once. The files have a temporary
        name until everything is there; LAST gets its name after BEST. Waits
        for the save before of the same kind.

        Raises:
          InputError: this save cannot begin, or the one before failed.
        """
        items = {"state": ocp.args.StandardSave(state),
                 "facts": ocp.args.JsonSave(facts)}
        if iterator is not None:
            # The same in every process, and for any number of them.
            items["data"] = ocp.args.JsonSave(iterator.get_state())
        manager = self._managers[which]
        with self._told(which):
            manager.wait_until_finished()
        self._steps[which] = step
        with self._told(which):
            # A run that died between saving best and last does some epochs
            # again. Orbax skips a step that is not newer than its newest,
            # and says nothing.
            for stale in manager.all_steps():
                if stale >= step:
                    manager.delete(stale)
            manager.save(step, args=ocp.args.Composite(**items))

    def check(self) -> None:
        """Raises InputError where a save in the background has failed."""
        for which, failure in self._failures.items():
            with self._told(which):
                raise failure

    def wait(self) -> None:
        """Until everything saved is whole.

        Raises:
          InputError: a save failed.
        """
        for which in (BEST, LAST):
            with self._told(which):
                self._managers[which].wait_until_finished()

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """At its end, an error included, nothing is still being written."""
        try:
            yield
        except BaseException as error:
            # A lost process would be waited for.
            if not processes.is_loss(error):
                self.wait()
            raise
        self.wait()

    @contextlib.contextmanager
    def _told(self, which: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            cause = error.__cause__ or error
            if processes.is_loss(cause):
                raise cause from None
            folder = self._managers[which].directory
            raise InputError(
                f"checkpoint {folder}/{self._steps.get(which)} could not be "
                f"written ({error}). Is there room, and may this account "
                "write there? Start the same command again to go on from "
                "the last one that is whole") from error

    def restore(self, which: str, abstract_state: TrainState,
                iterator: Position | None = None
                ) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint of a kind.

        Args:
          which: LAST or BEST.
          abstract_state: shapes and shardings to restore into.
          iterator: set to the saved position where given.

        Raises:
          InputError: there is none, or it does not fit the model.
        """
        manager, step = self._managers[which], self.latest_step(which)
        if step is None:
            raise InputError(f"no checkpoint under {manager.directory}: "
                             "train first (--mode=train)")
        items = {"state": ocp.args.StandardRestore(abstract_state),
                 "facts": ocp.args.JsonRestore()}
        if iterator is not None:
            items["data"] = ocp.args.JsonRestore()
        try:
            restored = manager.restore(
                step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            raise InputError(
                f"checkpoint {manager.directory}/{step} does not fit this "
                "configuration; use the work directory's own config.json "
                f"settings, or another --workdir ({error})") from error
        if iterator is not None:
            iterator.set_state(restored["data"])
        return restored["state"], restored["facts"]

    def facts(self, which: str) -> dict[str, Any]:
        """The facts of the newest checkpoint of a kind, without the state.

        Raises:
          InputError: there is none.
        """
        manager, step = self._managers[which], self.latest_step(which)
        if step is None:
            raise InputError(f"no checkpoint under {manager.directory}: "
                             "train first (--mode=train)")
        return manager.restore(step, args=ocp.args.Composite(
            facts=ocp.args.JsonRestore()))["facts"]

    def close(self) -> None:
        """Waits for what is being written."""
        self.wait()
        for manager in self._managers.values():
            manager.close()


def abstract_state(state: TrainState) -> TrainState:
    """Shapes, types and shardings of a state."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype,
                                          sharding=leaf.sharding), state)


def same_facts(saved: dict[str, Any], now: dict[str, Any],
               keys: tuple[str, ...], workdir: Path,
               other: str = "choose another --workdir") -> None:
    """Raises InputError where a resumed run would be another run."""
    changed = [line for key in keys
               for line in _changed(key, saved.get(key), now.get(key))]
    if changed:
        raise InputError(
            f"{workdir} holds a run with other settings:\n"
            + "\n".join(changed)
            + f"\nresume with the same settings, or {other}")


def _changed(name: str, saved: Any, now: Any) -> list[str]:
    """Lines on the entries that differ, in sections of sections."""
    if isinstance(saved, dict) and isinstance(now, dict):
        return [line for key in dict.fromkeys((*saved, *now))
                for line in _changed(f"{name}.{key}", saved.get(key),
                                     now.get(key))]
    return [] if saved == now else [
        f"  {name}: saved {json.dumps(saved)}, now {json.dumps(now)}"]
