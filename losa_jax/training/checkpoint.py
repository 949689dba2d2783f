"""Checkpoints by Orbax: the last ones, and the best by mAP.

A checkpoint holds the train state, the data iterator's position and a small
JSON of facts (classes, mAP, configuration). The frozen backbone is never
saved: it never changes, its folder and checksum are among the facts.
"""

import json
from pathlib import Path
from typing import Any, Protocol

import jax
import orbax.checkpoint as ocp

from losa_jax.errors import InputError
from losa_jax.training import bucket
from losa_jax.training.state import TrainState

LAST, BEST = "last", "best"


class Position(Protocol):
    """Of an iterator: JSON, the same for any number of processes."""

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class Checkpoints:
    """The two folders of a work directory, checkpoints/last and /best."""

    def __init__(self, workdir: Path, keep_last: int = 2, *,
                 alone: bool = False):
        """
        Args:
          workdir: of the run; the same folder to all its processes.
          keep_last: how many of the last ones stay.
          alone: this process saves without the run's others.
        """
        together = ocp.options.MultiprocessingOptions(
            active_processes={jax.process_index()},
            primary_host=jax.process_index(),
            barrier_sync_key_prefix="alone",
        ) if alone else ocp.options.MultiprocessingOptions()
        self._workdir = workdir
        root = bucket.checkpoints_folder(workdir)
        if alone:  # Orbax makes folders only for all processes together
            for name in (LAST, BEST):
                (root / name).mkdir(parents=True, exist_ok=True)
        self._managers = {
            name: ocp.CheckpointManager(
                root / name, options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep, enable_async_checkpointing=False,
                    create=not alone, multiprocessing_options=together))
            for name, keep in ((LAST, keep_last), (BEST, 1))}

    def latest_step(self, which: str = LAST) -> int | None:
        """Step of the newest whole checkpoint, None if there is none."""
        return self._managers[which].latest_step()

    def save(self, which: str, step: int, state: TrainState,
             facts: dict[str, Any],
             iterator: Position | None = None) -> None:
        """Writes to a temporary name and renames when everything is there."""
        # First, so that no restored step lacks its metrics.
        bucket.copy_back(self._workdir)
        items = {"state": ocp.args.StandardSave(state),
                 "facts": ocp.args.JsonSave(facts)}
        if iterator is not None:
            # The same in every process, and for any number of them.
            items["data"] = ocp.args.JsonSave(iterator.get_state())
        manager = self._managers[which]
        # A run that died between saving best and last does some epochs
        # again. Orbax skips a step that is not newer than its newest, and
        # says nothing.
        for stale in manager.all_steps():
            if stale >= step:
                manager.delete(stale)
        manager.save(step, args=ocp.args.Composite(**items))
        manager.wait_until_finished()

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
        manager = self._managers[which]
        step = manager.latest_step()
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
        manager = self._managers[which]
        step = manager.latest_step()
        if step is None:
            raise InputError(f"no checkpoint under {manager.directory}: "
                             "train first (--mode=train)")
        return manager.restore(step, args=ocp.args.Composite(
            facts=ocp.args.JsonRestore()))["facts"]

    def close(self) -> None:
        """Waits for what is being written."""
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
    changed = [
        f"  {key}: saved {json.dumps(saved.get(key))}, now "
        f"{json.dumps(now.get(key))}"
        for key in keys if saved.get(key) != now.get(key)]
    if changed:
        raise InputError(
            f"{workdir} holds a run with other settings:\n"
            + "\n".join(changed)
            + f"\nresume with the same settings, or {other}")
