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
# What a head sees of files of features. A run on them has their section of the
# configuration as its backbone's spec.
FEATURE_KEYS = ("stride_frames", "clip_frames", "width", "channels", "resize")


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

    An older run may lack facts of `recipes.LATER_KEYS`: it has the default.
    """
    later = recipes.later_defaults()
    old, new = (_flat(facts, keys) for facts in (saved, now))
    old |= {name: later[_config_key(name)] for name in new
            if name not in old and _config_key(name) in later}
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
        key = f"config.{_config_key(name)}"
        lines.append(f"{key}: the run has {json.dumps(before)}, this command "
                     f"{json.dumps(after)}")
        if name in old and name != "data.cached":
            flags.append(f"--{key}={_as_flag(before)}")
    return lines, flags


def _flat(facts: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """Returns {name: value}, with "features" of a run on files of them."""
    parts = {key: facts.get(key) for key in keys}
    if "features" in keys:
        spec = facts.get("backbone_spec") or {}
        parts["features"] = {name: spec[name] for name in FEATURE_KEYS
                             if name in spec and "stride_frames" in spec}
    return flatten_dict(parts, sep=".")


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
