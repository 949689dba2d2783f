"""Compares the facts that identify a run with those of another command."""

import json
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from losa_jax.errors import InputError, listed
from losa_jax.utils import recipes

# Keys of the configuration by the facts that have another name.
_KEYS = {"model.adapter": "adapter", "model.head": "head",
         "model.size": "augment.size", "model.dtype": "backbone.dtype",
         "tap_layers": "adapter.tap_layers", "data.cached": "data.cache"}


def same_facts(saved: dict[str, Any], now: dict[str, Any],
               keys: tuple[str, ...], workdir: Path) -> None:
    """Raises InputError where these facts of a run have changed.

    The message names each key, both values, and the flags of the run.
    """
    lines, flags = changed_facts(saved, now, keys)
    if lines:
        raise InputError(
            f"{workdir} holds a run with other settings:{listed(lines)}\n"
            "go on with the settings of the run"
            + (f" ({' '.join(flags)})" if flags else "")
            + ", or choose another --workdir for a new run")


def changed_facts(saved: dict[str, Any], now: dict[str, Any],
                  keys: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Returns lines about facts that differ, and the flags of the run.

    An older run may lack facts of `recipes.LATER_KEYS`.
    """
    later = recipes.later_defaults()
    old, new = (flatten_dict({key: facts.get(key) for key in keys}, sep=".")
                for facts in (saved, now))
    lines, flags = [], []
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if name == "class_names":
            lines.append("classes of the annotations: " + _changed_names(
                before or [], after or []))
            continue
        if name == "backbone":
            lines.append(
                "weights of the backbone (config.backbone.checkpoint): the "
                f"run has those of SHA-256 {str(before)[:12]}, this command "
                f"{str(after)[:12]}")
            continue
        key = _config_key(name)
        if name not in old and key in later and later[key] == after:
            continue
        key = f"config.{key}"
        lines.append(f"{key}: the run has {json.dumps(before)}, this command "
                     f"{json.dumps(after)}")
        if name in old and name != "data.cached":
            flags.append(f"--{key}={_as_flag(before)}")
    return lines, flags


def _config_key(name: str) -> str:
    """Returns the key of the configuration that a fact comes from."""
    for fact, key in _KEYS.items():
        if name == fact or name.startswith(f"{fact}."):
            return key + name.removeprefix(fact)
    return name


def _as_flag(value: Any) -> str:
    """Returns a value as the command line takes it."""
    if isinstance(value, list):
        return f"'({','.join(map(str, value))}{',' * (len(value) == 1)})'"
    return str(value)


def _changed_names(before: list[str], after: list[str]) -> str:
    """Describes how two lists of classes differ."""
    parts = [f"{what} {', '.join(names)}" for what, names in (
        ("without", [name for name in before if name not in after]),
        ("with the new", [name for name in after if name not in before]))
             if names]
    return "; ".join(parts) or "the same in another order"
