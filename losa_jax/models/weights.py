"""Backbone weights in files: read public ones, write and load ours.

A converted backbone is a folder: `backbone.safetensors` with our parameter
names (losa_jax/models/vit.py) and `backbone.json` with what it is.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from losa_jax.errors import InputError
from losa_jax.models import weight_rules
from losa_jax.models.torch_zip import LazyTensor, load_torch_zip
from losa_jax.models.vit import IMAGENET_MEAN, IMAGENET_STD, VitSpec
from losa_jax.models.weight_rules import RULES, Tensor

ARRAYS_FILE, FACTS_FILE = "backbone.safetensors", "backbone.json"
FORMAT_VERSION = 1
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16),
          "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_SAFETENSORS_NAMES = {np.dtype(np.float32): "F32",
                      np.dtype(np.float16): "F16",
                      np.dtype(ml_dtypes.bfloat16): "BF16"}
WRAPPERS = ("module", "model", "state_dict")
PREFIXES = ("module.", "backbone.", "videomae.", "encoder.")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A public checkpoint, opened but not read.

    Attributes:
      tensors: by VideoMAEv2's names.
      hints: keyword arguments for `infer_spec` that the file itself gives.
      spec_changes: fields of the spec that no tensor tells.
      notes: what was renamed, joined or dropped, for people.
    """

    path: Path
    tensors: dict[str, Tensor]
    hints: dict[str, Any]
    spec_changes: dict[str, Any]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class BackboneInfo:
    """What `backbone.json` says beside the spec.

    Attributes:
      fingerprint: SHA-256 of the arrays file, hexadecimal.
      source: name of the checkpoint it was converted from.
    """

    fingerprint: str
    source: str


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
        return self.parts[0].dtype

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
    file = path
    if path.is_dir():
        file = path / "model.safetensors"
        hints, changes = _hugging_face_facts(path / "config.json")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        tensors, metadata = _open_safetensors(file)
        if "losa_jax" in metadata:
            hints = json.loads(metadata["losa_jax"])
            hints["image_size"] = tuple(hints["image_size"])
    else:
        tensors = _unwrap(load_torch_zip(file), file, notes)
    tensors = _strip_prefixes(tensors, notes)
    tensors = _rename_hugging_face(tensors, notes)
    return Checkpoint(path, tensors, hints, changes, tuple(notes))


def _open_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
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
                                     f"{part.get_dtype()}, not supported")
                tensors[name] = _SafeTensor(
                    path, name, tuple(part.get_shape()), np.dtype(dtype))
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); "
                         "fetch it again") from error
    return tensors, metadata


def _unwrap(content: Any, path: Path, notes: list[str]) -> dict[str, Tensor]:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(
                content.get(key), Mapping):
            notes.append(f"state dict found under {key!r}")
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a "
                         "state dict")
    tensors = {name: value for name, value in content.items()
               if isinstance(value, LazyTensor)}
    if not tensors:
        raise InputError(f"{path}: no tensors in it; keys: "
                         f"{', '.join(map(str, list(content)[:8]))}")
    return tensors


def _strip_prefixes(tensors: dict[str, Tensor], notes: list[str]
                    ) -> dict[str, Tensor]:
    decoder = [name for name in tensors if re.match(
        r"(decoder\.|encoder_to_decoder|mask_token)", name)]
    if decoder and any(name.startswith("encoder.") for name in tensors):
        notes.append(f"a pre-training checkpoint: {len(decoder)} tensors of "
                     "its decoder are dropped")
        tensors = {name: tensor for name, tensor in tensors.items()
                   if name not in decoder}
    for prefix in PREFIXES:
        # Hugging Face's classifier stands outside `videomae.`.
        inside = [name for name in tensors if name.startswith(prefix)]
        others = [name for name in tensors if not name.startswith(prefix)]
        is_hugging_face = prefix == "videomae." and inside
        nested = prefix == "encoder." and any(
            name.startswith("encoder.layer.") for name in inside)
        if (others and not is_hugging_face) or not inside or nested:
            continue
        notes.append(f"prefix {prefix!r} stripped")
        tensors = {name.removeprefix(prefix): tensor
                   for name, tensor in tensors.items()}
    return tensors


def _rename_hugging_face(tensors: dict[str, Tensor], notes: list[str]
                         ) -> dict[str, Tensor]:
    if not any(name.startswith("encoder.layer.") for name in tensors):
        return tensors
    notes.append("Hugging Face names")
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, ours in weight_rules.HUGGING_FACE_NAMES:
            if re.fullmatch(pattern, name):
                name = re.sub(pattern, ours, name)
                break
        renamed[name] = tensor
    blocks = [name.removesuffix(".query.weight") for name in renamed
              if name.endswith(".attn.query.weight")]
    for block in blocks:
        parts = [f"{block}.{part}.weight"
                 for part in ("query", "key", "value")]
        if all(part in renamed for part in parts):
            renamed[f"{block}.qkv.weight"] = _Joined(
                tuple(renamed.pop(part) for part in parts))
    return renamed


def _hugging_face_facts(path: Path) -> tuple[dict, dict]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a Hugging Face folder has "
                         "config.json and model.safetensors")
    try:
        facts = json.loads(path.read_text())
        size = facts["image_size"]
        hints = {"heads": facts["num_attention_heads"],
                 "clip_frames": facts["num_frames"],
                 "image_size": (size, size)}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the config of a VideoMAE model "
                         f"({error!r})") from error
    # fc_norm is built with torch's default there, whatever the config says.
    mean_pooling = facts.get("use_mean_pooling", True)
    epsilon = facts.get("layer_norm_eps", 1e-12)
    return hints, {"norm_epsilon": epsilon,
                   "final_norm_epsilon": 1e-5 if mean_pooling else epsilon}


def checkpoint_spec(checkpoint: Checkpoint, *, heads: int | None = None,
                    clip_frames: int | None = None,
                    image_size: tuple[int, int] | None = None) -> VitSpec:
    """What the checkpoint is; arguments overrule what the file says."""
    given = {"heads": heads, "clip_frames": clip_frames,
             "image_size": image_size}
    given = {name: value for name, value in given.items()
             if value is not None}
    spec = weight_rules.infer_spec(checkpoint.tensors,
                                   **{**checkpoint.hints, **given})
    return dataclasses.replace(spec, **checkpoint.spec_changes)


def convert_backbone(source: str | Path, output: str | Path, *,
                     heads: int | None = None,
                     clip_frames: int | None = None,
                     image_size: tuple[int, int] | None = None,
                     dtype: str | None = None) -> VitSpec:
    """A public checkpoint to a folder of ours, tensor by tensor.

    Args:
      source: see `open_checkpoint`.
      output: the folder to make; a converted backbone there is replaced.
      heads, clip_frames, image_size: see `infer_spec`.
      dtype: of the written arrays; None keeps the source's.

    Raises:
      InputError: lists every tensor that is missing, unexpected, of the
        wrong shape or not finite; nothing is left behind.
    """
    output = Path(output)
    if output.exists() and not (output / FACTS_FILE).is_file() and (
            not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is no converted backbone: "
                         "choose another --output")
    checkpoint = open_checkpoint(source)
    spec = checkpoint_spec(checkpoint, heads=heads, clip_frames=clip_frames,
                           image_size=image_size)
    problems = _misfits(checkpoint.tensors, spec)
    if dtype is None:
        kind = checkpoint.tensors["patch_embed.proj.weight"].dtype
    elif dtype in DTYPES:
        kind = DTYPES[dtype]
    else:
        raise InputError(f"--dtype={dtype}: choose one of "
                         f"{', '.join(DTYPES)}")
    if kind not in _SAFETENSORS_NAMES:
        kind = DTYPES["float32"]
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=output.parent,
                                   prefix=f".{output.name}."))
    try:
        digest = _write_arrays(folder / ARRAYS_FILE, checkpoint, spec, kind,
                               problems)
        if problems:
            raise InputError(
                f"{source}: {len(problems)} tensors do not find their "
                "place:\n" + "\n".join(f"  {line}" for line in problems)
                + "\nNothing was written. Is it a VideoMAE encoder of "
                f"{spec.heads} heads, {spec.clip_frames} frames, "
                f"{spec.image_size} pixels? (--heads, --frames, "
                "--image_size)")
        (folder / FACTS_FILE).write_text(json.dumps({
            "format_version": FORMAT_VERSION,
            "spec": dataclasses.asdict(spec),
            "pixel_mean": IMAGENET_MEAN, "pixel_std": IMAGENET_STD,
            "source": Path(source).name, "sha256": digest,
        }, indent=1) + "\n")
        folder.chmod(0o755)
        if output.exists():
            shutil.rmtree(output)
        os.replace(folder, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return spec


def _misfits(tensors: Mapping[str, Tensor], spec: VitSpec) -> list[str]:
    expected = weight_rules.expected_source(spec)
    problems = [f"missing: {name} {shape}"
                for name, (_, _, shape) in expected.items()
                if name not in tensors]
    problems += [f"unexpected: {name} {tuple(tensor.shape)}"
                 for name, tensor in tensors.items() if name not in expected]
    problems += [
        f"wrong shape: {name} is {tuple(tensors[name].shape)}, should be "
        f"{shape}" for name, (_, _, shape) in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)]
    return problems


def _write_arrays(path: Path, checkpoint: Checkpoint, spec: VitSpec,
                  dtype: np.dtype, problems: list[str]) -> str:
    """A safetensors file, block by block; adds what is not finite."""
    shapes = weight_rules.expected_shapes(spec)
    expected = weight_rules.expected_source(spec)
    header: dict[str, Any] = {}
    offset = 0
    rules = [rule for rule in RULES if rule.ours in shapes]
    for rule in rules:
        size = int(np.prod(shapes[rule.ours])) * dtype.itemsize
        header[rule.ours] = {"dtype": _SAFETENSORS_NAMES[dtype],
                             "shape": shapes[rule.ours],
                             "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        write(len(text).to_bytes(8, "little") + text)
        for rule in rules:
            stacked = "{i}" in rule.source
            for block in range(spec.depth) if stacked else (None,):
                name = rule.source.format(i=block)
                tensor = checkpoint.tensors.get(name)
                if tensor is None or tuple(tensor.shape) != tuple(
                        expected[name][2]):
                    continue  # among the problems already
                array = tensor.read()
                with np.errstate(over="ignore"):
                    array = array.astype(dtype)
                bad = array.size - int(
                    np.isfinite(array.astype(np.float32)).sum())
                if bad:
                    problems.append(f"not finite: {name}, {bad} of "
                                    f"{array.size} values as {dtype.name}")
                if not problems:
                    array = weight_rules.to_ours(array, rule.layout, spec)
                    write(np.ascontiguousarray(array).tobytes())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def load_backbone(directory: str | Path
                  ) -> tuple[VitSpec, dict[str, np.ndarray], BackboneInfo]:
    """A converted backbone: what it is, flat parameters, where from.

    Raises:
      InputError: not such a folder, or its arrays do not fit its spec.
    """
    directory = Path(directory)
    facts_path = directory / FACTS_FILE
    if not facts_path.is_file():
        raise InputError(
            f"{directory}: no converted backbone (no {FACTS_FILE}); make one "
            f"with `python -m losa_jax.convert CHECKPOINT "
            f"--output={directory}`")
    try:
        facts = json.loads(facts_path.read_text())
        version = facts["format_version"]
        if version != FORMAT_VERSION:
            raise InputError(f"{facts_path}: format {version}, this program "
                             f"reads {FORMAT_VERSION}; convert it again")
        fields = {**facts["spec"],
                  "image_size": tuple(facts["spec"]["image_size"])}
        spec = VitSpec(**fields)
        info = BackboneInfo(facts["sha256"], facts["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{facts_path}: damaged ({error!r}); convert the "
                         "checkpoint again") from error
    tensors, _ = _open_safetensors(directory / ARRAYS_FILE)
    expected = weight_rules.expected_shapes(spec)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        names = sorted(set(found.items()) ^ set(expected.items()))
        raise InputError(f"{directory}: arrays do not fit {FACTS_FILE}: "
                         f"{names[:5]}; convert the checkpoint again")
    return spec, {name: tensor.read()
                  for name, tensor in tensors.items()}, info


def to_videomae(spec: VitSpec, params: Mapping[str, np.ndarray]
                ) -> dict[str, np.ndarray]:
    """Our flat parameters under VideoMAEv2's names and layout, exactly."""
    return {
        name: np.ascontiguousarray(weight_rules.to_source(
            params[rule.ours] if block is None else params[rule.ours][block],
            rule.layout, spec))
        for name, (rule, block, _) in
        weight_rules.expected_source(spec).items()}


def save_videomae_safetensors(path: str | Path, spec: VitSpec,
                              params: Mapping[str, np.ndarray]) -> None:
    """VideoMAEv2's layout as .safetensors; `open_checkpoint` reads it back.

    Heads, frames and picture size, which no tensor tells, go into the file's
    metadata.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    facts = {"heads": spec.heads, "clip_frames": spec.clip_frames,
             "image_size": spec.image_size}
    save_file(to_videomae(spec, params), temporary,
              metadata={"losa_jax": json.dumps(facts)})
    os.replace(temporary, path)
