"""Opens public checkpoints: what lies around the weights is taken off."""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from losa_jax.errors import InputError
from losa_jax.weights import videomae
from losa_jax.weights.torch_pickle import LazyTensor, load_torch_zip
from losa_jax.weights.videomae import Tensor

WRAPPERS = ("module", "model", "state_dict")
PREFIXES = ("module.", "model.", "backbone.", "videomae.", "encoder.")
_EPSILONS = ("norm_epsilon", "final_norm_epsilon")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A public checkpoint, opened but not read.

    Attributes:
      tensors: by VideoMAEv2's names.
      hints: keyword arguments for `infer_spec` that the file itself gives.
      spec_changes: fields of the spec that no tensor tells.
      notes: what was renamed, joined or dropped, for people.
      layout: whose names the file has.
      file_names: {VideoMAEv2's name: the file's}, where they differ.
    """

    path: Path
    tensors: dict[str, Tensor]
    hints: dict[str, Any]
    spec_changes: dict[str, Any]
    notes: tuple[str, ...]
    layout: str
    file_names: dict[str, str]

    def describe(self, name: str) -> str:
        """A tensor's name, and how the file calls it or would call it."""
        original = self.file_names.get(name)
        if original is None and (found := re.match(
                r"blocks\.(\d+)\.(.+)", name)):
            # As the same tensor of another block is called.
            for other, title in self.file_names.items():
                twin = re.fullmatch(r"blocks\.(\d+)\." + re.escape(found[2]),
                                    other)
                if twin:
                    original = title.replace(f".{twin[1]}.", f".{found[1]}.",
                                             1)
                    break
        return name if original in (None, name) else (
            f"{name} (in the file: {original})")


@dataclasses.dataclass(frozen=True)
class _SafeTensor:
    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        with safe_open(self.path, "np") as file:
            return file.get_tensor(self.name)


@dataclasses.dataclass(frozen=True)
class _Joined:
    """Query, key and value weights as the one tensor that ours has."""

    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        rows = sum(part.shape[0] for part in self.parts)
        return (rows, *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(*(part.dtype for part in self.parts))

    def read(self) -> np.ndarray:
        return np.concatenate([part.read() for part in self.parts])


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens `.pth`/`.pt`/`.bin`, `.safetensors` or a Hugging Face folder.

    Raises:
      InputError: missing, damaged, or not a checkpoint.
    """
    path = Path(path)
    hints: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    notes: list[str] = []
    files = _weight_files(path, notes)
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file: check the path")
        if file.suffix == ".safetensors":
            part, metadata = open_safetensors(file)
            if "losa_jax" in metadata:
                hints, changes = _own_facts(file, metadata["losa_jax"])
        else:
            content = load_torch_zip(file)
            if isinstance(content, Mapping) and isinstance(
                    content.get("losa_jax"), str):
                hints, changes = _own_facts(file, content["losa_jax"])
            part = _unwrap(content, file, notes)
        if twice := sorted(set(tensors) & set(part)):
            raise InputError(f"{file}: {twice[0]} is in an earlier part too: "
                             "fetch all parts again")
        tensors |= part
    titles = {id(tensor): name for name, tensor in tensors.items()}
    tensors = _strip_prefixes(tensors, notes)
    layout = "VideoMAEv2"
    if any(name.startswith("patch_embed.projection.") for name in tensors):
        layout = "OpenTAD (mmaction2)"
        tensors = _rename(tensors, lambda name: _renamed(
            name, videomae.OPENTAD_NAMES))
    if any(name.startswith("encoder.layer.") for name in tensors):
        layout = "Hugging Face"
        # Its names say neither heads nor epsilons: the config must be there.
        hints, changes = _hugging_face_facts(
            files[0].with_name("config.json"))
        tensors = _rename(tensors, lambda name: _renamed(
            name, videomae.HUGGING_FACE_NAMES))
    names = {name: titles[id(tensor)] for name, tensor in tensors.items()}
    if layout == "Hugging Face":
        tensors = _join_attention(tensors, notes)
    notes.append(f"{layout} names")
    return Checkpoint(path, tensors, hints, changes, tuple(notes), layout,
                      {name: title for name, title in names.items()
                       if name != title})


def _own_facts(path: Path, text: str) -> tuple[dict, dict]:
    """What this program said of the weights when it wrote the file."""
    try:
        hints = json.loads(text)
        hints["image_size"] = tuple(hints["image_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its metadata losa_jax is damaged "
                         f"({error!r}); convert the checkpoint again"
                         ) from error
    return hints, {name: hints.pop(name) for name in _EPSILONS
                   if name in hints}


def _weight_files(path: Path, notes: list[str]) -> list[Path]:
    """The file itself, or those of a Hugging Face folder."""
    if not path.is_dir():
        return [path]
    if (path / "backbone.json").is_file():
        raise InputError(f"{path} is converted already; --to=torch leads "
                         "back to VideoMAEv2's layout")
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return [path / name]
        index = path / f"{name}.index.json"
        if not index.is_file():
            continue
        try:
            parts = sorted({str(part) for part in json.loads(
                index.read_text())["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: not an index of weight files "
                             f"({error!r}); fetch it again") from error
        outside = [part for part in parts if Path(part).name != part]
        if not parts or outside:
            raise InputError(f"{index}: names no file, or one outside the "
                             f"folder: {outside}; fetch it again")
        notes.append(f"{len(parts)} weight files")
        return [path / part for part in parts]
    return [path / "model.safetensors"]


def open_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors by name, unread, and the metadata of the file."""
    names = {"F64": np.float64, "F32": np.float32, "F16": np.float16,
             "BF16": ml_dtypes.bfloat16, "I64": np.int64, "I32": np.int32}
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(name)
                dtype = names.get(part.get_dtype())
                if dtype is None:
                    raise InputError(f"{path}: tensor {name} has type "
                                     f"{part.get_dtype()}, not supported: "
                                     "save it as float32, float16 or "
                                     "bfloat16")
                tensors[name] = _SafeTensor(
                    path, name, tuple(part.get_shape()), np.dtype(dtype))
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); "
                         "fetch it again") from error
    return tensors, metadata


def _unwrap(content: Any, path: Path, notes: list[str]) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        key = next((key for key in WRAPPERS
                    if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        notes.append(f"state dict found under {key!r}")
        content = content[key]
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a "
                         "state dict: save the model's state dict alone")
    tensors: dict[str, Tensor] = {
        str(name): value for name, value in content.items()
        if isinstance(value, LazyTensor)}
    if not tensors:
        raise InputError(f"{path}: no tensors in it; keys: "
                         f"{', '.join(map(str, list(content)[:8]))}; save the "
                         "model's state dict alone")
    return tensors


def _strip_prefixes(tensors: dict[str, Tensor], notes: list[str]
                    ) -> dict[str, Tensor]:
    """Takes off what stands before the encoder's names.

    Names outside a prefix keep theirs: they are the classifier's, or are
    reported as unexpected later.
    """
    for prefix in PREFIXES:
        if prefix == "videomae.":  # outer prefixes are off by now
            tensors = _drop_decoder(tensors, notes)
        is_encoder = any(re.match(
            re.escape(prefix) + r"(.+\.)?(blocks\.\d+|encoder\.layer\.\d+)\.",
            name) for name in tensors)
        nested = prefix == "encoder." and any(
            name.startswith("encoder.layer.") for name in tensors)
        if not is_encoder or nested:
            continue
        notes.append(f"prefix {prefix!r} stripped")
        tensors = _rename(
            tensors, functools.partial(_without_prefix, prefix))
    return tensors


def _without_prefix(prefix: str, name: str) -> str:
    return name.removeprefix(prefix)


def _rename(tensors: dict[str, Tensor], new_name: Callable[[str], str]
            ) -> dict[str, Tensor]:
    """Raises InputError where two tensors would get one name."""
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        new = new_name(name)
        if new in renamed:
            raise InputError(f"{origin[new]} and {name} are both {new}: one "
                             "of them does not belong in the checkpoint")
        renamed[new], origin[new] = tensor, name
    return renamed


def _drop_decoder(tensors: dict[str, Tensor], notes: list[str]
                  ) -> dict[str, Tensor]:
    decoder = {name for name in tensors if re.match(
        r"(decoder\.|encoder_to_decoder|mask_token)", name)}
    if not decoder or not any(name.startswith(("encoder.", "videomae."))
                              for name in tensors):
        return tensors
    notes.append(f"a pre-training checkpoint: {len(decoder)} tensors of its "
                 "decoder are dropped")
    return {name: tensor for name, tensor in tensors.items()
            if name not in decoder}


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in table:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, ours, name)
    return name


def _join_attention(tensors: dict[str, Tensor], notes: list[str]
                    ) -> dict[str, Tensor]:
    """Query, key and value weights become one tensor."""
    renamed = dict(tensors)
    for name in [name for name in renamed if name.endswith(".attn.k_bias")]:
        # The softmax does not see it; VideoMAE's is zero by construction.
        if not np.any(renamed[name].read()):
            del renamed[name]
            notes.append(f"{name} is zero, as it must be: dropped")
    for block in range(_number_of_blocks(renamed)):
        parts = [f"blocks.{block}.attn.{part}.weight"
                 for part in ("query", "key", "value")]
        shapes = {tuple(renamed[part].shape) for part in parts
                  if part in renamed}
        # Unequal or missing ones are reported under their own names.
        if all(part in renamed for part in parts) and len(shapes) == 1 and (
                len(*shapes) == 2):
            renamed[f"blocks.{block}.attn.qkv.weight"] = _Joined(
                tuple(renamed.pop(part) for part in parts))
    return renamed


def _number_of_blocks(tensors: Mapping[str, Tensor]) -> int:
    numbers = [int(found[1]) for name in tensors
               if (found := re.match(r"blocks\.(\d+)\.", name))]
    return max(numbers, default=-1) + 1


def _hugging_face_facts(path: Path) -> tuple[dict, dict]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a Hugging Face folder has "
                         "config.json and model.safetensors")
    try:
        facts = json.loads(path.read_text())
        size = facts["image_size"]
        size = tuple(size) if isinstance(size, list) else (size, size)
        if facts.get("hidden_act", "gelu") != "gelu":
            raise InputError(f"{path}: hidden_act={facts['hidden_act']!r}; "
                             "only VideoMAE's gelu is supported")
        hints = {"heads": facts["num_attention_heads"],
                 "clip_frames": facts["num_frames"],
                 "depth": facts.get("num_hidden_layers"),
                 "image_size": size}
        epsilon = facts["layer_norm_eps"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the config of a VideoMAE model "
                         f"({error!r}); give its .safetensors file itself, "
                         "with --heads, --frames and --image_size"
                         ) from error
    # fc_norm is built with torch's default there, whatever the config says.
    mean_pooling = facts.get("use_mean_pooling", True)
    return hints, {"norm_epsilon": epsilon,
                   "final_norm_epsilon": 1e-5 if mean_pooling else epsilon}
