"""Converts a public checkpoint of a head to a folder, and loads that folder.

The folder holds `head.safetensors`, the parameters by path, and `head.json`,
what is known of the head.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import atomic_file, write_text
from losa_jax.weights import actionformer, tridet
from losa_jax.weights.checkpoint_file import Tensor, open_file
from losa_jax.weights.head_name_table import apply_rules

HEAD_MODULES = (actionformer, tridet)
ARRAYS_FILE = "head.safetensors"
FACTS_FILE = "head.json"
FORMAT_VERSION = 1


def open_head_tensors(path: str | Path, *, ema: bool = True
                      ) -> tuple[dict[str, Tensor], str] | None:
    """Opens a checkpoint; returns None if it holds no head.

    Args:
      path: .pth, .pth.tar, .pt or .safetensors.
      ema: take the moving average where the file has it, which the public
        programs evaluate.

    Returns:
      the tensors, unread, by public name, and the key of the file under which
      they lay, for people.

    Raises:
      InputError: missing or damaged.
    """
    if Path(path).is_dir():
        return None
    named, keys = open_file(path).state_dict(
        *(("state_dict_ema",) if ema else ()), "state_dict", "model")
    tensors = {name.removeprefix("module.").removeprefix("model."): tensor
               for name, tensor in named.items()}
    if not any(name.startswith(("cls_head.", "rpn_head."))
               for name in tensors):
        return None
    if _is_opentad(tensors):
        # Trained end to end, it holds the video backbone too.
        tensors = {name: tensor for name, tensor in tensors.items()
                   if not name.startswith("backbone.")}
    return tensors, keys[-1] if keys else "the file"


def _is_opentad(names: Iterable[str]) -> bool:
    return any(name.startswith("rpn_head.") for name in names)


def from_public(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the flat parameters of a head.

    Args:
      tensors: {public name, without prefix: array}.

    Raises:
      InputError: names that are in no rule.
    """
    return apply_rules(_head_of(tensors).RULES, tensors)


def _head_of(names: Iterable[str]) -> ModuleType:
    return next((module for module in HEAD_MODULES
                 if module.recognizes(names)), actionformer)


def head_settings(public: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keys of the config section `head`, and in_width, num_classes
    and max_tokens, for a public configuration.

    Args:
      public: the YAML file's content: "model_name", "model", "train_cfg",
        "dataset"; what it leaves out has the public code's default.

    Raises:
      InputError: another model, or an option that our head does not have.
    """
    modules = {module.MODEL_NAME: module for module in HEAD_MODULES}
    name = public.get("model_name", actionformer.MODEL_NAME)
    if name not in modules:
        raise InputError(f"model_name {name!r}: known are "
                         f"{', '.join(modules)}")
    return modules[name].head_settings(public)


def convert_head(source: str | Path, output: str | Path, *, ema: bool = True
                 ) -> dict[str, Any]:
    """Writes a folder; returns the content of its `head.json`.

    Raises:
      InputError: no head, tensors without a place, or an output that exists
        and is something else.
    """
    output = Path(output)
    head = open_head_tensors(source, ema=ema)
    if head is None:
        raise InputError(f"{source}: no head of ActionFormer, TriDet or "
                         "OpenTAD in it: give a checkpoint that one of them "
                         "wrote")
    if output.exists() and not (output / FACTS_FILE).is_file() and (
            not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is no converted head: choose "
                         "another --output")
    tensors, entry = head
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
             "taken": entry,
             "settings": {**settings, "opentad": _is_opentad(tensors)}}
    output.mkdir(parents=True, exist_ok=True)
    # The facts come last: without them the folder is no converted head.
    (output / FACTS_FILE).unlink(missing_ok=True)
    with atomic_file(output / ARRAYS_FILE) as temporary:
        save_file(parameters, temporary)
    write_text(output / FACTS_FILE, json.dumps(facts, indent=1) + "\n")
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
