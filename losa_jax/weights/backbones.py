"""Backbone weights in files: read public ones, write and load ours.

A converted backbone is a folder: `backbone.safetensors` with our parameter
names and `backbone.json` with what it is.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from losa_jax.errors import InputError
from losa_jax.models.backbones.videomae import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VitSpec,
)
from losa_jax.utils.atomic_write import written_whole
from losa_jax.weights import videomae
from losa_jax.weights.checkpoint_file import (
    Checkpoint,
    open_checkpoint,
    open_safetensors,
)
from losa_jax.weights.videomae import RULES, Tensor

ARRAYS_FILE, FACTS_FILE = "backbone.safetensors", "backbone.json"
FORMAT_VERSION = 1
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16),
          "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_SAFETENSORS_NAMES = {np.dtype(np.float32): "F32",
                      np.dtype(np.float16): "F16",
                      np.dtype(ml_dtypes.bfloat16): "BF16"}


@dataclasses.dataclass(frozen=True)
class BackboneInfo:
    """What `backbone.json` says beside the spec.

    Attributes:
      fingerprint: SHA-256 of the arrays file, hexadecimal.
      source: name of the checkpoint it was converted from.
    """

    fingerprint: str
    source: str


def checkpoint_spec(checkpoint: Checkpoint, *, heads: int | None = None,
                    clip_frames: int | None = None,
                    image_size: tuple[int, int] | None = None) -> VitSpec:
    """What the checkpoint is; arguments overrule what the file says."""
    given = {"heads": heads, "clip_frames": clip_frames,
             "image_size": image_size}
    given = {name: value for name, value in given.items()
             if value is not None}
    spec = videomae.infer_spec(checkpoint.tensors,
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
    if output.exists() and not _is_replaceable(output):
        raise InputError(f"{output} exists and is no converted backbone: "
                         "choose another --output")
    checkpoint = open_checkpoint(source)
    spec = checkpoint_spec(checkpoint, heads=heads, clip_frames=clip_frames,
                           image_size=image_size)
    if dtype not in (None, *DTYPES):
        raise InputError(f"--dtype={dtype}: choose one of "
                         f"{', '.join(DTYPES)}")
    problems = _misfits(checkpoint, spec)
    kinds = _kinds(checkpoint.tensors, spec, dtype, problems)
    # Folders that this makes go again if nothing comes into them.
    made = [parent for parent in output.parents if not parent.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=output.parent,
                                   prefix=f".{output.name}."))
    try:
        digest = _write_arrays(folder / ARRAYS_FILE, checkpoint, spec, kinds,
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
            # Both names exist until the new folder is in place.
            retired = folder.with_name(folder.name + ".old")
            os.replace(output, retired)
            try:
                os.replace(folder, output)
            except OSError:
                os.replace(retired, output)
                raise
            shutil.rmtree(retired)
        else:
            os.replace(folder, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not output.exists():
            for parent in made:
                parent.rmdir()
    return spec


def _is_replaceable(output: Path) -> bool:
    """An empty folder, or our two files and nothing of anybody's own."""
    names = {path.name for path in output.iterdir()} if output.is_dir() else (
        {output.name})
    return not names or (
        FACTS_FILE in names and names <= {FACTS_FILE, ARRAYS_FILE})


def _kinds(tensors: Mapping[str, Tensor], spec: VitSpec, dtype: str | None,
           problems: list[str]) -> dict[str, np.dtype]:
    """The dtype to write of each of our parameters; exact unless asked."""
    examples: dict[str, dict[np.dtype, str]] = {}
    for name, (rule, _, _) in videomae.expected_source(spec).items():
        if name not in tensors:
            continue
        kind = tensors[name].dtype
        if kind.name not in (*DTYPES, "float64"):
            problems.append(f"wrong type: {name} is {kind.name}")
        else:
            examples.setdefault(rule.ours, {}).setdefault(kind, name)
    if dtype is not None:
        return dict.fromkeys(videomae.expected_shapes(spec),
                             DTYPES[dtype])
    for ours, kinds in examples.items():
        if len(kinds) > 1 or "float64" in {kind.name for kind in kinds}:
            problems.append(
                f"wrong type: {ours} would not be exact, since "
                + ", ".join(f"{name} is {kind.name}"
                            for kind, name in kinds.items())
                + ": give --dtype=float32")
    return {ours: kind if (kind := next(iter(kinds))) in _SAFETENSORS_NAMES
            else DTYPES["float32"] for ours, kinds in examples.items()}


def _misfits(checkpoint: Checkpoint, spec: VitSpec) -> list[str]:
    tensors, name_of = checkpoint.tensors, checkpoint.describe
    expected = videomae.expected_source(spec)
    missing, odd, parts_seen = [], [], set()
    for name, (_, _, shape) in expected.items():
        # Hugging Face's query, key and value, where they could not be joined.
        parts = [name.replace(".qkv.", f".{part}.")
                 for part in ("query", "key", "value")]
        if name in tensors:
            found = tuple(tensors[name].shape)
            if found != tuple(shape):
                odd.append(f"wrong shape: {name_of(name)} is {found}, "
                           f"should be {shape}")
        elif ".qkv." in name and any(part in tensors for part in parts):
            third = (shape[0] // 3, *shape[1:])
            parts_seen.update(parts)
            for part in parts:
                if part not in tensors:
                    missing.append(f"missing: {name_of(part)} {third}")
                elif (found := tuple(tensors[part].shape)) != third:
                    odd.append(f"wrong shape: {name_of(part)} is {found}, "
                               f"should be {third}")
        else:
            missing.append(f"missing: {name_of(name)} {shape}")
    unexpected = [
        f"unexpected: {name_of(name)} {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if name not in expected and name not in parts_seen]
    return missing + unexpected + odd


def _write_arrays(path: Path, checkpoint: Checkpoint, spec: VitSpec,
                  kinds: Mapping[str, np.dtype], problems: list[str]) -> str:
    """A safetensors file, block by block; adds what is not finite."""
    shapes = videomae.expected_shapes(spec)
    expected = videomae.expected_source(spec)
    header: dict[str, Any] = {}
    offset = 0
    # Wide numbers first, so that each array starts at a multiple of its own.
    rules = sorted((rule for rule in RULES if rule.ours in kinds),
                   key=lambda rule: -kinds[rule.ours].itemsize)
    for rule in rules:
        dtype = kinds[rule.ours]
        size = int(np.prod(shapes[rule.ours])) * dtype.itemsize
        header[rule.ours] = {"dtype": _SAFETENSORS_NAMES[dtype],
                             "shape": shapes[rule.ours],
                             "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
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
                dtype = kinds[rule.ours]
                try:
                    array = tensor.read()
                except InputError as error:
                    problems.append(f"unreadable: {name}: {error}")
                    continue
                with np.errstate(over="ignore"):
                    array = array.astype(dtype)
                bad = array.size - int(
                    np.isfinite(array.astype(np.float32)).sum())
                if bad:
                    problems.append(f"not finite: {name}, {bad} of "
                                    f"{array.size} values as {dtype.name}")
                if not problems:
                    array = videomae.to_ours(array, rule.layout, spec)
                    write(np.ascontiguousarray(array).tobytes())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def load_backbone(folder: str | Path
                  ) -> tuple[VitSpec, dict[str, np.ndarray], BackboneInfo]:
    """A converted backbone: what it is, flat parameters, where from.

    Raises:
      InputError: not such a folder, or its arrays do not fit its spec.
    """
    folder = Path(folder)
    facts_path = folder / FACTS_FILE
    if not facts_path.is_file():
        raise InputError(
            f"{folder}: no converted backbone (no {FACTS_FILE}); make one "
            f"with `python -m losa_jax.convert CHECKPOINT "
            f"--output={folder}`")
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
    tensors, _ = open_safetensors(folder / ARRAYS_FILE)
    expected = videomae.expected_shapes(spec)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        names = sorted(set(found.items()) ^ set(expected.items()))
        raise InputError(f"{folder}: arrays do not fit {FACTS_FILE}: "
                         f"{names[:5]}; convert the checkpoint again")
    return spec, _memory_mapped(folder / ARRAYS_FILE), info


def _memory_mapped(path: Path) -> dict[str, np.ndarray]:
    """Read-only views of the file: a slice reads only its own bytes."""
    kinds = {name: dtype for dtype, name in _SAFETENSORS_NAMES.items()}
    raw = np.asarray(np.memmap(path, np.uint8, mode="r"))
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8:start].tobytes())
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        first, last = (start + offset for offset in entry["data_offsets"])
        arrays[name] = raw[first:last].view(kinds[entry["dtype"]]).reshape(
            entry["shape"])
    return arrays


def to_videomae(spec: VitSpec, params: Mapping[str, np.ndarray]
                ) -> dict[str, np.ndarray]:
    """Our flat parameters under VideoMAEv2's names and layout, exactly."""
    return {
        name: np.ascontiguousarray(videomae.to_source(
            params[rule.ours] if block is None else params[rule.ours][block],
            rule.layout, spec))
        for name, (rule, block, _) in
        videomae.expected_source(spec).items()}


def save_videomae_safetensors(path: str | Path, spec: VitSpec,
                              params: Mapping[str, np.ndarray]) -> None:
    """VideoMAEv2's layout as .safetensors; `open_checkpoint` reads it back.

    Heads, frames and picture size, which no tensor tells, go into the file's
    metadata.
    """
    path = Path(path)
    with written_whole(path) as temporary:
        save_file(to_videomae(spec, params), temporary,
                  metadata={"losa_jax": untold_facts(spec)})


def untold_facts(spec: VitSpec) -> str:
    """JSON of what no tensor in VideoMAEv2's layout tells."""
    return json.dumps({
        "heads": spec.heads, "clip_frames": spec.clip_frames,
        "image_size": spec.image_size, "depth": spec.depth,
        "norm_epsilon": spec.norm_epsilon,
        "final_norm_epsilon": spec.final_norm_epsilon})
