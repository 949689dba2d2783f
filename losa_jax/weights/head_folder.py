"""Converts a public checkpoint of a head to a folder of ours, and loads it.

A converted head is a folder of `head.safetensors` (flat parameters by our
names) and `head.json` (what it is).
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from losa_jax.errors import InputError
from losa_jax.weights import actionformer, tridet
from losa_jax.weights.checkpoint_file import Tensor, open_file
from losa_jax.weights.head_name_table import apply_rules

HEAD_MODULES = {"actionformer": actionformer, "tridet": tridet}
ARRAYS_FILE = "head.safetensors"
FACTS_FILE = "head.json"
FORMAT_VERSION = 1
_WRAPPERS = ("state_dict", "model", "module")
# Names that only a head's checkpoint has.
_MARKS = ("cls_head.", "rpn_head.")


def open_head_tensors(path: str | Path, *, ema: bool = True
                      ) -> tuple[dict[str, Tensor], str] | None:
    """Opens a checkpoint; None if it holds no head.

    Args:
      path: .pth, .pth.tar, .pt or .safetensors.
      ema: take the moving average where the file has it: what the public
        codes evaluate.

    Returns:
      the tensors, unread, by public name, and which entry of the file was
      taken, for people.

    Raises:
      InputError: missing or damaged.
    """
    if Path(path).is_dir():
        return None
    named, keys = open_file(path).state_dict(
        ("state_dict_ema", *_WRAPPERS) if ema else _WRAPPERS)
    tensors = {_without_prefix(name): tensor
               for name, tensor in named.items()}
    if not any(name.startswith(_MARKS) for name in tensors):
        return None
    if any(name.startswith("rpn_head.") for name in tensors):
        # Trained end to end: the video backbone lies beside the head.
        tensors = {name: tensor for name, tensor in tensors.items()
                   if not name.startswith("backbone.")}
    return tensors, keys[-1] if keys else "the file"


def _without_prefix(name: str) -> str:
    for prefix in ("module.", "model."):
        name = name.removeprefix(prefix)
    return name


def from_public(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns flat parameters of our head.

    Args:
      tensors: {public name, without prefix: array}.

    Raises:
      InputError: names that are in no rule.
    """
    return apply_rules(_head_of(tensors).RULES, tensors)


def _head_of(names: Iterable[str]) -> ModuleType:
    names = tuple(names)
    return next((module for module in HEAD_MODULES.values()
                 if module.recognizes(names)), actionformer)


def head_settings(public: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keys of the config section `head`, and in_width, num_classes
    and max_tokens, for a public configuration.

    Args:
      public: the YAML file's content: "model_name", "model", "train_cfg",
        "dataset"; what it leaves out has the public code's default.

    Raises:
      InputError: another model, or an option that ours does not have.
    """
    names = {head.MODEL_NAME: head for head in HEAD_MODULES.values()}
    name = public.get("model_name", actionformer.MODEL_NAME)
    if name not in names:
        raise InputError(f"model_name {name!r}: known are "
                         f"{', '.join(names)}")
    return names[name].head_settings(public)


def convert_head(source: str | Path, output: str | Path, *, ema: bool = True
                 ) -> dict[str, Any]:
    """Writes a folder of ours; returns what the tensors tell of the head.

    Raises:
      InputError: no head, tensors without a place, or an output that exists
        and is something else.
    """
    output = Path(output)
    opened = open_head_tensors(source, ema=ema)
    if opened is None:
        raise InputError(f"{source}: no head of ActionFormer, TriDet or "
                         "OpenTAD in it: give a checkpoint that one of them "
                         "wrote")
    if output.exists() and not (output / FACTS_FILE).is_file() and (
            not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is no converted head: choose "
                         "another --output")
    tensors, taken = opened
    parameters = {
        name: np.ascontiguousarray(array, np.float32) for name, array
        in from_public({name: tensor.read() for name, tensor
                        in tensors.items()}).items()}
    wrong = [name for name, array in parameters.items()
             if not np.isfinite(array).all()]
    if wrong:
        raise InputError(f"{source}: not finite: {', '.join(wrong[:8])}; "
                         "take the checkpoint of another epoch")
    settings = _head_of(tensors).infer_settings(parameters)
    facts = {"format_version": FORMAT_VERSION, "source": Path(source).name,
             "taken": taken,
             "settings": {**settings, "opentad": any(
                 name.startswith("rpn_head.") for name in tensors)}}
    output.mkdir(parents=True, exist_ok=True)
    # The facts come last: a folder without them does not count.
    (output / FACTS_FILE).unlink(missing_ok=True)
    temporary = output / f".{ARRAYS_FILE}.{os.getpid()}"
    save_file(parameters, temporary)
    os.replace(temporary, output / ARRAYS_FILE)
    temporary = output / f".{FACTS_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(facts, indent=1) + "\n")
    os.replace(temporary, output / FACTS_FILE)
    return facts


def load_head(folder: str | Path
              ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns flat parameters and facts of a converted head.

    Raises:
      InputError: not such a folder.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / FACTS_FILE).read_text())
        parameters = load_file(folder / ARRAYS_FILE)
    except (OSError, ValueError) as error:
        raise InputError(
            f"config.head.checkpoint={folder} is no converted head "
            f"({error}): make it with `python -m losa_jax.convert CHECKPOINT "
            f"--output={folder}`") from error
    return parameters, facts
