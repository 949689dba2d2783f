"""Public checkpoints of the heads, in and on our disk.

A converted head is a folder of `head.safetensors` (flat parameters by our
names) and `head.json` (what it is).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from losa_jax.errors import InputError
from losa_jax.weights.checkpoint_file import open_safetensors
from losa_jax.weights.head_names import from_public
from losa_jax.weights.torch_pickle import load_torch_zip
from losa_jax.weights.videomae import Tensor

ARRAYS_FILE = "head.safetensors"
FACTS_FILE = "head.json"
FORMAT_VERSION = 1
# Names that only a head's checkpoint has.
_MARKS = ("cls_head.", "rpn_head.")


def open_head_tensors(path: str | Path, *, ema: bool = True
                      ) -> tuple[dict[str, Tensor], str] | None:
    """Tensors by public name; None if the file holds no head.

    Args:
      path: .pth, .pth.tar, .pt or .safetensors.
      ema: take the moving average where the file has it: what the public
        codes evaluate.

    Returns:
      the tensors, unread, and what was taken of the file, for people.

    Raises:
      InputError: missing or damaged.
    """
    path = Path(path)
    if path.is_dir():
        return None
    if path.suffix == ".safetensors":
        content: Any = open_safetensors(path)[0]
    else:
        content = load_torch_zip(path)
    taken = "the file"
    while isinstance(content, Mapping):
        keys = (("state_dict_ema",) if ema else ()) + (
            "state_dict", "model", "module")
        key = next((key for key in keys
                    if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        taken, content = key, content[key]
    if not isinstance(content, Mapping):
        return None
    tensors = {_without_prefix(str(name)): value
               for name, value in content.items() if hasattr(value, "read")}
    if not any(name.startswith(_MARKS) for name in tensors):
        return None
    if any(name.startswith("rpn_head.") for name in tensors):
        # Trained end to end: the video backbone lies beside the head.
        tensors = {name: tensor for name, tensor in tensors.items()
                   if not name.startswith("backbone.")}
    return tensors, taken


def _without_prefix(name: str) -> str:
    for prefix in ("module.", "model."):
        name = name.removeprefix(prefix)
    return name


def convert_head(source: str | Path, output: str | Path, *, ema: bool = True
                 ) -> dict[str, Any]:
    """Writes a folder of ours; returns what the tensors tell of the head.

    Raises:
      InputError: no head, tensors without a place, or an output that exists
        and is something else.
    """
    output = Path(output)
    found = open_head_tensors(source, ema=ema)
    if found is None:
        raise InputError(f"{source}: no head of ActionFormer, TriDet or "
                         "OpenTAD in it: give a checkpoint that one of them "
                         "wrote")
    if output.exists() and not (output / FACTS_FILE).is_file() and (
            not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is no converted head: choose "
                         "another --output")
    tensors, taken = found
    flat = {name: np.ascontiguousarray(array, np.float32) for name, array
            in from_public({name: tensor.read() for name, tensor
                            in tensors.items()}).items()}
    wrong = [name for name, array in flat.items()
             if not np.isfinite(array).all()]
    if wrong:
        raise InputError(f"{source}: not finite: {', '.join(wrong[:8])}; "
                         "take the checkpoint of another epoch")
    facts = {"format_version": FORMAT_VERSION, "source": Path(source).name,
             "taken": taken,
             "settings": {**infer_settings(flat), "opentad": any(
                 name.startswith("rpn_head.") for name in tensors)}}
    output.mkdir(parents=True, exist_ok=True)
    # The facts come last: a folder without them does not count.
    (output / FACTS_FILE).unlink(missing_ok=True)
    temporary = output / f".{ARRAYS_FILE}.{os.getpid()}"
    save_file(flat, temporary)
    os.replace(temporary, output / ARRAYS_FILE)
    temporary = output / f".{FACTS_FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(facts, indent=1) + "\n")
    os.replace(temporary, output / FACTS_FILE)
    return facts


def load_head(folder: str | Path
              ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Flat parameters and facts of a converted head."""
    folder = Path(folder)
    try:
        facts = json.loads((folder / FACTS_FILE).read_text())
        flat = load_file(folder / ARRAYS_FILE)
    except (OSError, ValueError) as error:
        raise InputError(
            f"config.head.checkpoint={folder} is no converted head "
            f"({error}): make it with `python -m losa_jax.convert CHECKPOINT "
            f"--output={folder}`") from error
    return flat, facts


def infer_settings(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Keys of the config section `head` that the shapes tell.

    Not told: attention heads and windows, absolute positions, dropout.
    """
    def count(prefix: str) -> int:
        numbers = {name.removeprefix(prefix).split("/")[0]
                   for name in flat if name.startswith(prefix)}
        return len(numbers)

    def shape(name: str) -> tuple[int, ...]:
        return flat[name].shape

    is_tridet = "pyramid/stem/0/psi/kernel" in flat or (
        "pyramid/branch/0/psi/kernel" in flat)
    levels = 1 + count("pyramid/branch/")
    first = shape("pyramid/embedding/0/conv/kernel")
    settings: dict[str, Any] = {
        "kind": "tridet" if is_tridet else "actionformer",
        "in_width": first[1], "width": first[2],
        "embedding_kernel": first[0],
        "num_classes": shape("cls/out/kernel")[2],
        "num_levels": levels,
        "num_embedding_convs": count("pyramid/embedding/"),
        "embedding_norm": "pyramid/embedding/0/norm/scale" in flat,
        "num_stem_blocks": count("pyramid/stem/"),
        "neck": "fpn" if "neck/lateral/0/kernel" in flat else "identity",
        "neck_norm": "neck/norms/0/scale" in flat,
        "head_layers": 1 + count("cls/convs/"),
        "head_kernel": shape("cls/out/kernel")[0],
        "head_width": shape("cls/out/kernel")[1],
        "head_norm": "cls/convs/0/norm/scale" in flat,
        "drop_path": 0.1 if any(name.endswith("mlp_scale")
                                for name in flat) else 0.0,
    }
    if settings["neck"] == "fpn":
        settings["neck_width"] = shape("neck/lateral/0/kernel")[2]
    if not is_tridet:
        settings["relative_positions"] = any(
            name.endswith("attn/relative") for name in flat)
        return settings
    windows = [1] + [shape(f"pyramid/branch/{i}/psi/kernel")[0]
                     for i in range(levels - 1)]
    wides = [shape(f"pyramid/branch/{i}/convkw/kernel")[0]
             for i in range(levels - 1)]
    settings |= {
        "sgp_window": windows, "sgp_k": _factor(windows[1:], wides),
        "sgp_mlp_width": shape("pyramid/branch/0/fc1/kernel")[1],
        "downsample": "avg" if "pyramid/branch/0/down/kernel" in flat
        else "max",
        "trident": "start/out/kernel" in flat}
    if settings["trident"]:
        settings |= {"num_bins": shape("reg/out/kernel")[2] // 2 - 1,
                     "boundary_kernel": shape("start/out/kernel")[0]}
    return settings


def _factor(windows: list[int], wides: list[int]) -> float:
    """A k that gives these kernels: round((w + 1) k), made odd."""
    def gives(k: float) -> bool:
        sizes = [round((window + 1) * k) for window in windows]
        return [size + 1 - size % 2 for size in sizes] == wides

    tried = [1.0, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0,
             *(wide / (window + 1) for window, wide
               in zip(windows, wides, strict=True))]
    return next((k for k in tried if gives(k)), tried[-1])
