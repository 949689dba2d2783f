"""Opens the files of any model's weights as tensors that are not read yet."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from losa_jax.errors import InputError
from losa_jax.utils.file_type import link_to_nothing, misplaced
from losa_jax.utils.text_files import read_json
from losa_jax.weights.npz_file import open_npz
from losa_jax.weights.torch_pickle import REMEDY, Tensor, load_torch_zip

CONVERT_AGAIN = "convert the checkpoint again, or copy the folder again"
# Endings of public checkpoints.
_PUBLIC_SUFFIX = re.compile(r"(\.(pth|pt|bin|ckpt|safetensors|npz|tar))+$")
# Files of a Hugging Face folder, the preferred first.
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
# {file of facts in a converted folder: what it is, key that names it}.
CONVERTED = {"backbone.json": ("backbone", "config.backbone.checkpoint"),
             "head.json": ("head", "config.head.checkpoint")}
SAFETENSORS_DTYPES = {name: np.dtype(dtype) for name, dtype in (
    ("F64", np.float64), ("F32", np.float32), ("F16", np.float16),
    ("BF16", ml_dtypes.bfloat16), ("I64", np.int64), ("I32", np.int32))}


def is_hub_name(text: str) -> bool:
    """Returns whether this is OWNER/NAME of the Hugging Face hub and not meant
    as a path: a mistyped path must not ask the network."""
    return (re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text, re.ASCII) is not None
            and not _PUBLIC_SUFFIX.search(text)
            and not Path(text.partition("/")[0]).exists())


def open_file(path: Path) -> tuple[Any, str]:
    """Opens `.pth`/`.pt`/`.bin`, `.safetensors`, `.npz` or a folder of one of
    them, as Hugging Face's.

    Returns:
      unread tensors by name, maybe under further keys; and the JSON that
      `save_source` wrote into the file, or "".

    Raises:
      InputError: missing, damaged, or not a checkpoint.
    """
    first, *others = _weight_files(path)
    content, metadata = _read(first)
    for file in others:
        part, _ = _read(file)
        if twice := sorted(set(content) & set(part)):
            raise InputError(f"{file}: {twice[0]} is in an earlier part too: "
                             "fetch all parts again")
        content |= part
    return content, metadata


def not_converted(path: Path, facts_file: str) -> str:
    """Returns the message for a path that should be a converted folder, but
    has no `facts_file` (a key of `CONVERTED`)."""
    title, key = CONVERTED[facts_file]
    for other, (other_title, other_key) in CONVERTED.items():
        if (path / other).is_file():
            return (f"{path}: is a converted {other_title}, not a {title}: "
                    f"it belongs to --{other_key}")
    for link in (path, path / facts_file):
        if reason := link_to_nothing(link):
            return reason
    message = f"{path}: " + (
        f"no converted {title} (no {facts_file})" if path.exists()
        else "no such file or folder")
    if (path.parent / facts_file).is_file():
        return f"{message}: name its folder, --{key}={path.parent}"
    stem = _PUBLIC_SUFFIX.sub("", path.name)
    is_file = stem != path.name
    source, output = "CHECKPOINT", path
    if is_file or path.exists():  # a folder cannot be made there
        output = path.parent / f"{stem}_converted"
    if path.exists() and (is_file or any(
            (path / name).exists() for name in FOLDER_FILES)):
        source = str(path)
    return (f"{message}: make one with `python -m losa_jax.convert {source} "
            f"--output={output}` and set --{key}={output}")


def state_dict(content: Any, *wrappers: str
               ) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns {name: tensor} and the keys under which they lie.

    Args:
      content: of `open_file`.
      wrappers: keys that may hold the state dict, before the usual ones.
    """
    keys: list[str] = []
    while isinstance(content, Mapping):
        key = next((key for key in (*wrappers, "module", "model", "state_dict")
                    if isinstance(content.get(key), Mapping)), None)
        if key is None:
            return {str(name): value for name, value in content.items()
                    if isinstance(value, Tensor)}, tuple(keys)
        keys.append(key)
        content = content[key]
    return {}, ()


def is_model_folder(path: Path) -> bool:
    """Returns whether a folder holds a model, of Hugging Face or converted."""
    return any((path / f"{name}{ending}").is_file() for ending in (
        "", ".index.json") for name in (*FOLDER_FILES, *CONVERTED))


def _read(path: Path) -> tuple[Any, str]:
    if not path.is_file():
        raise InputError(link_to_nothing(path)
                         or f"{path}: no such file: check the path")
    if path.suffix == ".safetensors":
        content, metadata = open_safetensors(path)
    elif path.suffix == ".npz":
        content, metadata = open_npz(path), {}
    else:
        content = metadata = load_torch_zip(path)
    own = metadata.get("losa_jax") if isinstance(metadata, Mapping) else None
    return content, own if isinstance(own, str) else ""


def _weight_files(path: Path) -> list[Path]:
    """Returns the file itself, or those of a Hugging Face folder."""
    if not path.is_dir():
        return [path]
    if (path / "backbone.json").is_file():
        raise InputError(f"{path} is converted already; --to=torch restores "
                         "the public layout")
    for name in FOLDER_FILES:
        if (path / name).is_file():
            return [path / name]
        index = path / f"{name}.index.json"
        if not index.is_file():
            continue
        try:
            parts = sorted({str(part) for part in read_json(
                index, REMEDY)["weight_map"].values()})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: not an index of weight files "
                             f"({error!r}); fetch it again") from error
        outside = [part for part in parts if Path(part).name != part]
        if not parts or outside:
            raise InputError(f"{index}: names {outside or 'no file'}, not "
                             "files beside it; fetch it again")
        return [path / part for part in parts]
    archives = sorted(path.glob("*.npz"))
    if len(archives) == 1:
        return archives
    names = ", ".join(sorted(entry.name for entry in path.iterdir())[:8])
    raise InputError(f"{path}: no model.safetensors, pytorch_model.bin or "
                     f"single .npz in it, but {names or 'nothing'}: {REMEDY}")


def check_sum(path: Path, wanted: str, facts_file: str, remedy: str) -> None:
    """Raises InputError, with the remedy, unless a file has the SHA-256 that
    the facts beside it state.

    4 GiB take 2 to 6 s; a file that has not changed is read once in a process.
    """
    if not path.is_file():
        raise InputError(link_to_nothing(path)
                         or f"{path}: is missing: {remedy}")
    actual = sha256(path)
    if actual != wanted:
        raise InputError(
            misplaced(path, "a safetensors",
                      f"the file that {facts_file} describes", remedy)
            or f"{path} is not the file that {facts_file} beside it describes "
            f"(SHA-256 {actual[:12]} instead of {wanted[:12]}): it was "
            f"damaged or replaced: {remedy}")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=8)
def _sha256(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors by name, and the metadata of the file.

    Tensors are read as read-only maps: a slice reads only its part.

    Raises:
      InputError: damaged, or a dtype that is not supported.
    """
    try:
        with safe_open(path, "np"):  # checks the header and the file's size
            pass
    except (SafetensorError, OSError) as error:
        raise InputError(
            misplaced(path, "a safetensors", "a safetensors file", REMEDY)
            or f"{path}: not a complete safetensors file ({error}); fetch it "
            "again") from error
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    metadata = header.pop("__metadata__", {})
    tensors: dict[str, Tensor] = {}
    for name, entry in sorted(header.items()):
        dtype, shape = SAFETENSORS_DTYPES.get(entry["dtype"]), entry["shape"]
        if dtype is None:
            raise InputError(f"{path}: tensor {name} has type "
                             f"{entry['dtype']}, not supported: save it as "
                             "float32, float16 or bfloat16")
        tensors[name] = Tensor(path, tuple(shape), dtype, functools.partial(
            np.memmap, path, dtype, "r", start + entry["data_offsets"][0],
            tuple(shape)))
    return tensors, metadata
