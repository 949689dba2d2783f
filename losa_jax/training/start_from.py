"""Starts a run from the best weights of another one.

Classes are matched by name: what the head has for each class is copied, and a
new class keeps its initialization. All other parameters must have the same
shapes. The optimizer starts afresh.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from losa_jax.distributed import remote_workdir, sharding
from losa_jax.errors import InputError, listed
from losa_jax.models.ops import params
from losa_jax.training.build import Model
from losa_jax.training.checkpoint import BEST, LAST, Checkpoints
from losa_jax.training.run_facts import changed_facts
from losa_jax.training.step import TrainState

# Among the facts of a run that started from another one.
FACT = "started_from"
# Facts that change what weights mean without changing their shapes.
_MEANING = ("backbone", "tap_layers", "model.adapter.kind",
            "model.adapter.standardize_last", "model.head.kind")
_MAX_PARAMETERS = 5


class Start(NamedTuple):
    """The state to begin with, and the fact that says where it is from."""

    state: TrainState
    fact: dict[str, Any]


def load_start(folder: Path, facts: dict[str, Any], model: Model, mesh: Mesh,
               state: TrainState) -> Start:
    """Returns the state before the first step with the weights of a run.

    Args:
      folder: work directory of that run.
      facts: of the new run.
      state: of the new run, before its first step.

    Raises:
      InputError: there is no run, or its weights do not fit.
    """
    if not remote_workdir.checkpoints_folder(folder).is_dir():
        raise InputError(f"config.train.start_from={folder} holds no run: "
                         "name the --workdir of a training")
    checkpoints = Checkpoints(folder)
    saved = checkpoints.facts()
    which = BEST if checkpoints.has_best() else LAST
    old_names, new_names = saved["class_names"], facts["class_names"]
    old_shapes = params.flatten(model.trained) | params.flatten(
        model.shapes_for(len(old_names)))
    _check_fits(folder, saved, facts, {
        name: tuple(leaf.shape) for name, leaf in old_shapes.items()},
        checkpoints.saved_shapes(which))
    like = {
        "step": state.step, "normalizer": state.normalizer,
        "statistics": state.statistics,
        "ema": _described(params.nest(old_shapes), mesh)}
    parts, _ = checkpoints.restore(which, like)
    best_map = checkpoints.best_map()
    checkpoints.close()
    step = int(parts["step"])
    print(f"starting from {folder}, step {step}" + _class_line(
        old_names, new_names))
    return Start(
        _started(state, parts, class_axes(model, len(new_names)),
                 old_names, new_names),
        {"folder": str(folder), "step": step, "map": best_map})


def class_axes(model: Model, num_classes: int) -> dict[str, int]:
    """Returns the axis of each parameter that has an entry for each class."""
    small, large = (params.flatten(model.shapes_for(count))
                    for count in (num_classes, num_classes + 1))
    axes = {}
    for name, leaf in small.items():
        differing = [axis for axis, (one, other) in enumerate(
            zip(leaf.shape, large[name].shape, strict=True)) if one != other]
        if differing:
            (axes[name],) = differing
            assert leaf.shape[axes[name]] == num_classes, name
    return axes


def _started(state: TrainState, parts: dict[str, Any], axes: dict[str, int],
             old_names: Sequence[str], new_names: Sequence[str]) -> TrainState:
    known = [name for name in new_names if name in old_names]
    to_rows = jnp.array([new_names.index(name) for name in known], int)
    from_rows = jnp.array([old_names.index(name) for name in known], int)

    def copied(name: str, fresh: jax.Array, old: jax.Array) -> jax.Array:
        if name not in axes:
            return jnp.array(old)
        axis = axes[name]
        rows = jnp.moveaxis(old, axis, 0)[from_rows]
        return jnp.moveaxis(
            jnp.moveaxis(fresh, axis, 0).at[to_rows].set(rows), 0, axis)

    def begin(fresh: Any, old: Any) -> tuple[Any, Any]:
        flat = params.flatten(old)
        trained = params.nest({name: copied(name, leaf, flat[name])
                               for name, leaf in params.flatten(fresh).items()})
        # A copy, because a donated buffer may appear only once.
        return trained, jax.tree.map(jnp.array, trained)

    # One program, because arrays with parts in other processes cannot be
    # changed outside of one.
    places = sharding.of_leaves(state.trained)
    trained, ema = jax.jit(begin, out_shardings=(places, places))(
        state.trained, parts["ema"])
    return dataclasses.replace(
        state, trained=trained, ema=ema, normalizer=parts["normalizer"],
        statistics=parts["statistics"])


def _described(shapes: params.Tree, mesh: Mesh) -> params.Tree:
    """Returns the shapes with dtypes, and with the shardings of a state."""
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=place),
        shapes, sharding.parameter_shardings(shapes, mesh))


def _class_line(old_names: Sequence[str], new_names: Sequence[str]) -> str:
    parts = [f"{what} {', '.join(names)}" for what, names in (
        ("new classes:", [one for one in new_names if one not in old_names]),
        ("classes that are dropped:",
         [one for one in old_names if one not in new_names])) if names]
    return "".join(f"; {part}" for part in parts)


def _check_fits(folder: Path, saved: dict[str, Any], facts: dict[str, Any],
                wanted: dict[str, tuple[int, ...]],
                stored: dict[str, tuple[int, ...]]) -> None:
    """Raises InputError where the weights of a run do not fit this one."""
    old, new = ({name: _fact(one, name) for name in _MEANING}
                for one in (saved, facts))
    lines, flags = changed_facts(old, new, _MEANING)
    wrong = [name for name in sorted(wanted | stored)
             if wanted.get(name) != stored.get(name)]
    if wrong and not lines:
        lines, flags = changed_facts(saved, facts, ("model", "window"))
        lines += [
            f"parameter {name}: the run has {stored.get(name, 'none')}, this "
            f"command {wanted.get(name, 'none')}"
            for name in wrong[:_MAX_PARAMETERS]]
    if lines:
        raise InputError(
            f"the weights of {folder} do not fit this command:{listed(lines)}"
            "\nset the keys as they are there"
            + (f" ({' '.join(flags)})" if flags else "")
            + ", or choose another --workdir, without "
            "--config.train.start_from, for a run from the beginning")


def _fact(facts: dict[str, Any], name: str) -> Any:
    value: Any = facts
    for part in name.split("."):
        value = value[part]
    return value
