"""Converts a public checkpoint of a head to a folder, and loads that folder.

The folder holds `head.safetensors`, the parameters by path, and `head.json`,
their origin and the settings that they show.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import atomic_folder, refuse_others
from losa_jax.utils.text_files import read_json
from losa_jax.weights.checkpoint_file import (
    CONVERT_AGAIN,
    check_sum,
    not_converted,
    open_file,
    open_safetensors,
    sha256,
    state_dict,
)
from losa_jax.weights.head_names import from_public
from losa_jax.weights.head_settings import infer_settings
from losa_jax.weights.torch_pickle import Tensor

ARRAYS_FILE = "head.safetensors"
FACTS_FILE = "head.json"
FORMAT_VERSION = 1


def open_head_tensors(path: str | Path, *, ema: bool = True
                      ) -> tuple[dict[str, Tensor], str] | None:
    """Returns the unread tensors of a head by public name, and their key in
    the file; None if the file holds no head.

    Args:
      path: see `open_file`.
      ema: takes the moving average, which the public programs evaluate,
        where the file has it.
    """
    path = Path(path)
    if path.is_dir():
        return None
    content, _ = open_file(path)
    named, keys = state_dict(
        content, *(("state_dict_ema",) if ema else ()), "state_dict", "model")
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


def convert_head(source: str | Path, output: str | Path, *, ema: bool = True,
                 origin: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Writes a folder; returns the content of its `head.json`.

    Args:
      source, ema: see `open_head_tensors`.
      origin: facts to store, `source` instead of the file's name.

    Raises:
      InputError: no head, unknown tensors, or an output that is something
        else.
    """
    output = Path(output)
    head = open_head_tensors(source, ema=ema)
    if head is None:
        raise InputError(f"{source}: no head of ActionFormer, TriDet or "
                         "OpenTAD in it: give a checkpoint that one of them "
                         "wrote")
    refuse_others(output, "converted head", FACTS_FILE, ARRAYS_FILE)
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
    facts = {"format_version": FORMAT_VERSION, "source": Path(source).name,
             **(origin or {}), "taken": entry,
             "settings": {**infer_settings(parameters),
                          "opentad": _is_opentad(tensors)}}
    with atomic_folder(output) as folder:
        save_file(parameters, folder / ARRAYS_FILE)
        facts["sha256"] = sha256(folder / ARRAYS_FILE)
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def load_head(folder: str | Path
              ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns flat parameters and facts of a converted head.

    Raises:
      InputError: not such a folder, or a damaged one.
    """
    folder = Path(folder)
    path = folder / FACTS_FILE
    if not path.is_file():
        raise InputError(not_converted(folder, FACTS_FILE))
    facts = read_json(path, CONVERT_AGAIN)
    if not isinstance(facts, dict):
        raise InputError(f"{path}: does not describe a head: {CONVERT_AGAIN}")
    if "sha256" in facts:  # not in old folders
        check_sum(folder / ARRAYS_FILE, str(facts["sha256"]), FACTS_FILE,
                  CONVERT_AGAIN)
    tensors, _ = open_safetensors(folder / ARRAYS_FILE)
    return {name: tensor.read() for name, tensor in tensors.items()}, facts
