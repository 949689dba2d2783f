"""Converts a backbone's checkpoint to a folder, and loads that folder.

The folder holds `backbone.safetensors`, the parameters by path, and
`backbone.json`, the family, the fields of the spec and the fingerprint.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from safetensors.numpy import save_file

from losa_jax.errors import InputError
from losa_jax.models.backbones import BACKBONES, backbone_template, family_of
from losa_jax.models.backbones.base import Backbone, BackboneSpec
from losa_jax.models.ops.params import nest
from losa_jax.utils import atomic_write, memory_map
from losa_jax.utils.text_files import read_json
from losa_jax.weights import checkpoint_file, name_table, open_checkpoint
from losa_jax.weights.checkpoint_file import CONVERT_AGAIN, check_sum

ARRAYS_FILE, FACTS_FILE = "backbone.safetensors", "backbone.json"
FORMAT_VERSION = 1
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
DTYPES = {name: checkpoint_file.SAFETENSORS_DTYPES[code]
          for name, code in _CODES.items()}


class BackboneInfo(NamedTuple):
    """Origin: hex SHA-256 of the arrays, and the checkpoint's file name, or
    OWNER/NAME@COMMIT of the Hugging Face hub."""

    fingerprint: str
    source: str


def load_backbone(folder: str | Path, *, dtype: DTypeLike = jnp.float32
                  ) -> Backbone:
    """Returns a converted backbone with its parameters on the device.

        backbone = load_backbone("backbones/vit_b")
        features = backbone.features(clips, taps=(7, 9, 11))

    Args:
      folder: that `python -m losa_jax.convert` wrote, of any family.
      dtype: of the blocks' matrices; norms and biases are float32. The
        compute dtype is an argument of `features`.

    Returns:
      an `nnx.Module` with a `spec` (`width`, `depth`, `clip_frames`, ...).
      Its `features` takes clips, uint8 or float [n, f, H, W, 3], RGB 0..255,
      and returns `last`, float32 [n, u, c], a vector for each of u temporal
      tokens that `spec.last_pooling` describes, and `taps`,
      [k, n, u, h, w, c], the outputs of the given blocks, standardized over
      channels.

    Raises:
      InputError: no such folder, or arrays that do not fit its description.
    """
    spec, flat, _ = open_backbone(folder)
    return backbone_template(spec).bind(nest({
        name: jnp.asarray(memory_map.copied(
            array, dtype if array.ndim > 2 else jnp.float32))
        for name, array in flat.items()}))


def open_backbone(folder: str | Path
                  ) -> tuple[BackboneSpec, dict[str, np.ndarray], BackboneInfo]:
    """Opens a converted backbone; returns its spec, {parameter path:
    memory-mapped array}, and its origin.

    Raises:
      InputError: not such a folder, or its arrays are not those that were
        converted.
    """
    folder = Path(folder)
    facts_path = folder / FACTS_FILE
    if not facts_path.is_file():
        raise InputError(checkpoint_file.not_converted(folder, FACTS_FILE))
    facts = read_json(facts_path, CONVERT_AGAIN)
    try:
        family = facts.get("family", "videomae")  # not in old folders
        if facts["format_version"] != FORMAT_VERSION or (
                family not in BACKBONES):
            raise ValueError(f"it has format {facts['format_version']} of "
                             f"{family}, not {FORMAT_VERSION} of "
                             f"{', '.join(BACKBONES)}")
        spec = BACKBONES[family].spec(**{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in facts["spec"].items()})
        info = BackboneInfo(facts["sha256"], facts["source"])
    except (ValueError, KeyError, TypeError, AttributeError,
            InputError) as error:
        raise InputError(f"{facts_path}: does not describe a backbone "
                         f"({error}): {CONVERT_AGAIN}") from error
    check_sum(folder / ARRAYS_FILE, info.fingerprint, FACTS_FILE,
              CONVERT_AGAIN)
    tensors, _ = checkpoint_file.open_safetensors(folder / ARRAYS_FILE)
    arrays = {name: tensor.read() for name, tensor in tensors.items()}
    wrong = {(name, array.shape) for name, array in arrays.items()} ^ set(
        name_table.expected_shapes(spec).items())
    if wrong:
        raise InputError(f"{folder}: arrays do not fit {FACTS_FILE}: "
                         f"{sorted(wrong)[:5]}; {CONVERT_AGAIN}")
    return spec, arrays, info


def stored_fingerprint(folder: Path) -> str:
    """Returns the fingerprint that a folder states; "" without one."""
    try:
        return str(json.loads((folder / FACTS_FILE).read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def copy_backbone(folder: Path, target: Path) -> None:
    """Copies a converted backbone, unless it is there already."""
    if stored_fingerprint(target) == stored_fingerprint(folder):
        return
    with atomic_write.atomic_folder(target) as temporary:
        for name in (ARRAYS_FILE, FACTS_FILE):
            shutil.copyfile(folder / name, temporary / name)


def convert_backbone(source: str | Path, output: str | Path, *,
                     dtype: str | None = None, probe: Path | None = None,
                     origin: Mapping[str, str] | None = None,
                     **options: Any) -> BackboneSpec:
    """Converts a public checkpoint to a folder and returns its spec.

    Args:
      source: see `open_checkpoint`.
      output: the folder to make; a converted backbone there is replaced.
      dtype: to write, a key of `DTYPES`; None keeps the checkpoint's.
      probe: see `open_checkpoint`.
      origin: facts to store, `source` instead of the file's name.
      options: see `checkpoint_spec`.

    Raises:
      InputError: `output` holds other files; or lists all tensors that are
        missing, unexpected, of wrong shape or type, or not finite.
    """
    output = Path(output)
    atomic_write.refuse_others(output, "converted backbone", FACTS_FILE,
                               ARRAYS_FILE)
    checkpoint = open_checkpoint.open_checkpoint(source, probe=probe)
    try:
        spec = open_checkpoint.checkpoint_spec(checkpoint, **options)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    expected = name_table.expected_source(spec)
    problems = open_checkpoint.misfits(checkpoint, expected)
    dtypes = _dtypes(checkpoint, expected, dtype, problems)
    with atomic_write.atomic_folder(output) as folder:
        digest = _write_arrays(folder / ARRAYS_FILE, checkpoint, spec,
                               expected, dtypes, problems)
        if problems:
            module = name_table.FAMILIES[checkpoint.family]
            raise InputError(
                f"{source}: {len(problems)} tensors do not fit:\n"
                + "\n".join(f"  {line}" for line in problems)
                + f"\nNothing was written. Is it a {module.TITLE} encoder, "
                f"{module.describe(spec)}? ({_flags(module.HINTS)})")
        (folder / FACTS_FILE).write_text(json.dumps({
            "format_version": FORMAT_VERSION, "family": checkpoint.family,
            "spec": dataclasses.asdict(spec),
            "pixel_mean": spec.pixel_mean, "pixel_std": spec.pixel_std,
            "source": Path(source).name, **(origin or {}), "sha256": digest,
        }, indent=1) + "\n")
    return spec


def _flags(hints: Sequence[str]) -> str:
    """Returns the flags of `convert` by which sizes can be given."""
    return ", ".join(flag for name, flag in (
        ("heads", "--heads"), ("clip_frames", "--frames"),
        ("image_size", "--image_size")) if name in hints)


def _dtypes(checkpoint: open_checkpoint.Checkpoint,
            expected: Mapping[str, name_table.Place], dtype: str | None,
            problems: list[str]) -> dict[str, np.dtype]:
    """Returns the dtype to write of each parameter; exact unless given."""
    examples: dict[str, dict[np.dtype, str]] = {}
    for name, place in expected.items():
        if name not in checkpoint.tensors:
            continue
        actual = checkpoint.tensors[name].dtype
        if actual.name not in (*DTYPES, "float64"):
            problems.append(f"wrong type: {name} is {actual.name}")
        else:
            examples.setdefault(place.rule.parameter, {}).setdefault(
                actual, name)
    if dtype is not None:
        return dict.fromkeys(examples, DTYPES[dtype])
    for parameter, dtypes in examples.items():
        if len(dtypes) > 1 or "float64" in {one.name for one in dtypes}:
            problems.append(
                f"wrong type: {parameter} would not be exact, since "
                + ", ".join(f"{name} is {one.name}"
                            for one, name in dtypes.items())
                + ": give --dtype=float32")
    return {parameter: next(iter(dtypes))
            for parameter, dtypes in examples.items()}


def _write_arrays(path: Path, checkpoint: open_checkpoint.Checkpoint,
                  spec: BackboneSpec, expected: Mapping[str, name_table.Place],
                  dtypes: Mapping[str, np.dtype], problems: list[str]) -> str:
    """Writes a safetensors file, one tensor in memory at a time.

    Adds tensors that are not finite to `problems`; returns the SHA-256.
    """
    shapes = name_table.expected_shapes(spec)
    # Wide numbers first, so that each array starts at a multiple of its own.
    places = sorted(
        (item for item in expected.items() if item[1].rule.parameter in dtypes),
        key=lambda item: -dtypes[item[1].rule.parameter].itemsize)
    header: dict[str, Any] = {}
    offset = 0
    for parameter in dict.fromkeys(
            place.rule.parameter for _, place in places):
        dtype = dtypes[parameter]
        size = int(np.prod(shapes[parameter])) * dtype.itemsize
        header[parameter] = {"dtype": _CODES.get(dtype.name),
                             "shape": shapes[parameter],
                             "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with path.open("w+b") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, place in places:
            tensor = checkpoint.tensors.get(name)
            if tensor is None or tensor.shape != place.shape:
                continue  # among the problems already
            dtype = dtypes[place.rule.parameter]
            with np.errstate(over="ignore"):
                array = tensor.read().astype(dtype)
            bad = array.size - int(
                np.isfinite(array.astype(np.float32)).sum())
            if bad:
                problems.append(f"not finite: {name}, {bad} of "
                                f"{array.size} values as {dtype.name}")
            if not problems:
                array = place.rule.layout.to_flax(array, spec)
                file.write(np.ascontiguousarray(array).tobytes())
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_source(path: str | Path, spec: BackboneSpec,
                params: Mapping[str, np.ndarray]) -> None:
    """Writes flat parameters in the public layout, as .npz or .safetensors;
    the latter has the fields that no tensor shows in its metadata."""
    tensors: dict[str, Any] = name_table.source_tensors(spec, params)
    with atomic_write.atomic_file(Path(path)) as temporary:
        if Path(path).suffix == ".npz":
            with temporary.open("wb") as file:
                np.savez(file, **tensors)
        else:
            save_file(tensors, temporary,
                      metadata={"losa_jax": own_facts(spec)})


def own_facts(spec: BackboneSpec) -> str:
    """Returns JSON of the fields of a spec that no tensor shows."""
    return json.dumps({name: getattr(spec, name) for name
                       in name_table.FAMILIES[family_of(spec)].HINTS})
