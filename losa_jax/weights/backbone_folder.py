"""Converted backbones: folders of our format, of any family.

A folder holds `backbone.safetensors` with our parameter paths and
`backbone.json` with the family, the fields of the spec and the fingerprint.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.typing import DTypeLike
from safetensors.numpy import save_file

from losa_jax.errors import InputError
from losa_jax.models.backbones import (
    BACKBONES,
    backbone_template,
    family_of,
)
from losa_jax.models.backbones.base import Backbone, BackboneSpec
from losa_jax.models.ops.params import nest
from losa_jax.utils.atomic_write import written_whole
from losa_jax.weights.checkpoint_file import Tensor, open_safetensors
from losa_jax.weights.name_table import (
    Place,
    expected_shapes,
    expected_source,
    source_tensors,
    weights_module,
)
from losa_jax.weights.open_checkpoint import (
    Checkpoint,
    checkpoint_spec,
    misfits,
    open_checkpoint,
)

ARRAYS_FILE, FACTS_FILE = "backbone.safetensors", "backbone.json"
FORMAT_VERSION = 1
# Of folders from before there were families.
FIRST_FAMILY = "videomae"
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16),
          "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_SAFETENSORS_NAMES = {np.dtype(np.float32): "F32",
                      np.dtype(np.float16): "F16",
                      np.dtype(ml_dtypes.bfloat16): "BF16"}


@dataclasses.dataclass(frozen=True)
class BackboneInfo:
    """Where a converted backbone is from.

    Attributes:
      fingerprint: SHA-256 of the arrays file, hexadecimal.
      source: name of the checkpoint it was converted from.
    """

    fingerprint: str
    source: str


def load_backbone(folder: str | Path, *, dtype: DTypeLike = jnp.float32
                  ) -> Backbone:
    """A converted backbone with its parameters on the device.

        backbone = load_backbone("backbones/vit_b")
        features = backbone.features(clips, taps=(7, 9, 11))

    Args:
      folder: that `python -m losa_jax.convert` wrote, of any family.
      dtype: of the blocks' matrices; norms and biases are float32. The
        compute dtype is an argument of `features`.

    Returns:
      an `nnx.Module` whose `spec` says `width`, `depth`, `clip_frames`,
      `patch` and so on. Its `features(clips, taps=())` takes clips uint8 or
      float [n, f, H, W, 3], RGB 0..255, to `last` float32 [n, u, c], the
      mean over space of the last block at u temporal tokens, and `taps`
      [k, n, u, h, w, c], the outputs of the blocks named, standardized over
      channels unless `tap_norm=False`.

    Raises:
      InputError: no such folder, or arrays that do not fit its description.
    """
    spec, flat, _ = open_backbone(folder)
    return backbone_template(spec).bind(nest({
        name: jnp.array(array, dtype if array.ndim > 2 else jnp.float32)
        for name, array in flat.items()}))


def open_backbone(folder: str | Path
                  ) -> tuple[BackboneSpec, dict[str, np.ndarray], BackboneInfo]:
    """Opens a converted backbone without reading its parameters.

    Returns:
      its spec (see `BackboneSpec`); {parameter path: memory-mapped array};
      and where it is from.

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
        family = facts.get("family", FIRST_FAMILY)
        if version == FORMAT_VERSION and family in BACKBONES:
            spec = BACKBONES[family].spec(**{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in facts["spec"].items()})
        info = BackboneInfo(facts["sha256"], facts["source"])
    except (ValueError, KeyError, TypeError, AttributeError,
            InputError) as error:
        raise InputError(f"{facts_path}: damaged ({error!r}); convert the "
                         "checkpoint again") from error
    if version != FORMAT_VERSION:
        raise InputError(f"{facts_path}: format {version}, this program "
                         f"reads {FORMAT_VERSION}; convert it again")
    if family not in BACKBONES:
        raise InputError(f"{facts_path}: of the family {family!r}, this "
                         f"program has {', '.join(BACKBONES)}; use a newer "
                         "program")
    tensors, _ = open_safetensors(folder / ARRAYS_FILE)
    expected = expected_shapes(spec)
    actual = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if actual != expected:
        names = sorted(set(actual.items()) ^ set(expected.items()))
        raise InputError(f"{folder}: arrays do not fit {FACTS_FILE}: "
                         f"{names[:5]}; convert the checkpoint again")
    return spec, _memory_mapped(folder / ARRAYS_FILE), info


def _memory_mapped(path: Path) -> dict[str, np.ndarray]:
    """Read-only views of the file: a slice reads only its own bytes."""
    dtypes = {name: dtype for dtype, name in _SAFETENSORS_NAMES.items()}
    raw = np.asarray(np.memmap(path, np.uint8, mode="r"))
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8:start].tobytes())
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        first, last = (start + offset for offset in entry["data_offsets"])
        arrays[name] = raw[first:last].view(dtypes[entry["dtype"]]).reshape(
            entry["shape"])
    return arrays


def convert_backbone(source: str | Path, output: str | Path, *,
                     dtype: str | None = None, **options: Any
                     ) -> BackboneSpec:
    """Converts a public checkpoint to a folder of ours, tensor by tensor.

    Args:
      source: see `open_checkpoint`.
      output: the folder to make; a converted backbone there is replaced.
      dtype: of the written arrays; None keeps the source's.
      options: what no tensor tells, as `heads`, `clip_frames` and
        `image_size`: see the family's `infer_spec`.

    Returns:
      the spec.

    Raises:
      InputError: lists every tensor that is missing, unexpected, of the
        wrong shape or not finite; nothing is left behind.
    """
    output = Path(output)
    if output.exists() and not _is_replaceable(output):
        raise InputError(f"{output} exists and is no converted backbone: "
                         "choose another --output")
    checkpoint = open_checkpoint(source)
    spec = checkpoint_spec(checkpoint, **options)
    if dtype not in (None, *DTYPES):
        raise InputError(f"--dtype={dtype}: choose one of "
                         f"{', '.join(DTYPES)}")
    expected = expected_source(spec)
    problems = misfits(checkpoint, spec)
    dtypes = _dtypes(checkpoint.tensors, expected, dtype, problems)
    with _new_folder(output) as folder:
        digest = _write_arrays(folder / ARRAYS_FILE, checkpoint, spec,
                               expected, dtypes, problems)
        if problems:
            module = weights_module(checkpoint.family)
            raise InputError(
                f"{source}: {len(problems)} tensors do not fit:\n"
                + "\n".join(f"  {line}" for line in problems)
                + f"\nNothing was written. Is it a {module.TITLE} encoder, "
                f"{module.describe(spec)}? (--heads, --frames, "
                "--image_size)")
        (folder / FACTS_FILE).write_text(json.dumps({
            "format_version": FORMAT_VERSION, "family": checkpoint.family,
            "spec": dataclasses.asdict(spec),
            "pixel_mean": spec.pixel_mean, "pixel_std": spec.pixel_std,
            "source": Path(source).name, "sha256": digest,
        }, indent=1) + "\n")
    return spec


def _is_replaceable(output: Path) -> bool:
    """An empty folder, or our two files and nothing of anybody's own."""
    names = {path.name for path in output.iterdir()} if output.is_dir() else (
        {output.name})
    return not names or (
        FACTS_FILE in names and names <= {FACTS_FILE, ARRAYS_FILE})


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder to write into, which takes the output's name when whole.

    After an error nothing is left, and what was there before stays.
    """
    # Folders that this makes go again if nothing comes into them.
    made = [parent for parent in output.parents if not parent.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=output.parent,
                                   prefix=f".{output.name}."))
    try:
        yield folder
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


def _dtypes(tensors: Mapping[str, Tensor], expected: Mapping[str, Place],
            dtype: str | None, problems: list[str]) -> dict[str, np.dtype]:
    """The dtype to write of each of our parameters; exact unless asked."""
    examples: dict[str, dict[np.dtype, str]] = {}
    for name, place in expected.items():
        if name not in tensors:
            continue
        actual = tensors[name].dtype
        if actual.name not in (*DTYPES, "float64"):
            problems.append(f"wrong type: {name} is {actual.name}")
        else:
            examples.setdefault(place.rule.ours, {}).setdefault(actual, name)
    if dtype is not None:
        return {place.rule.ours: DTYPES[dtype] for place in expected.values()}
    for ours, dtypes in examples.items():
        if len(dtypes) > 1 or "float64" in {one.name for one in dtypes}:
            problems.append(
                f"wrong type: {ours} would not be exact, since "
                + ", ".join(f"{name} is {one.name}"
                            for one, name in dtypes.items())
                + ": give --dtype=float32")
    return {ours: one if (one := next(iter(dtypes))) in _SAFETENSORS_NAMES
            else DTYPES["float32"] for ours, dtypes in examples.items()}


def _write_arrays(path: Path, checkpoint: Checkpoint, spec: BackboneSpec,
                  expected: Mapping[str, Place],
                  dtypes: Mapping[str, np.dtype], problems: list[str]) -> str:
    """A safetensors file, block by block; adds what is not finite."""
    shapes = expected_shapes(spec)
    header: dict[str, Any] = {}
    offset = 0
    sources: dict[str, list[str]] = {}
    for name, place in expected.items():
        if place.rule.ours in dtypes:
            sources.setdefault(place.rule.ours, []).append(name)
    # Wide numbers first, so that each array starts at a multiple of its own.
    ours = sorted(sources, key=lambda path: -dtypes[path].itemsize)
    for parameter in ours:
        dtype = dtypes[parameter]
        size = int(np.prod(shapes[parameter])) * dtype.itemsize
        header[parameter] = {"dtype": _SAFETENSORS_NAMES[dtype],
                             "shape": shapes[parameter],
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
        for name in (name for parameter in ours for name in sources[parameter]):
            place, tensor = expected[name], checkpoint.tensors.get(name)
            if tensor is None or tuple(tensor.shape) != tuple(place.shape):
                continue  # among the problems already
            dtype = dtypes[place.rule.ours]
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
                array = place.rule.layout.to_ours(array, spec)
                write(np.ascontiguousarray(array).tobytes())
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def save_source(path: str | Path, spec: BackboneSpec,
                params: Mapping[str, np.ndarray]) -> None:
    """Writes the public layout as .safetensors; `open_checkpoint` reads it.

    What no tensor tells goes into the file's metadata.

    Args:
      path: of the file.
      spec: of any family.
      params: our flat parameters.
    """
    path = Path(path)
    with written_whole(path) as temporary:
        save_file(source_tensors(spec, params), temporary,
                  metadata={"losa_jax": own_facts(spec)})


def own_facts(spec: BackboneSpec) -> str:
    """JSON of what no tensor of the public layout tells."""
    return json.dumps({name: getattr(spec, name) for name in
                       weights_module(family_of(spec)).HINTS})
