"""A finished run as one self-contained folder, and how it is read.

    manifest.json        what it is: version, classes, thresholds, how videos
                         are cut into windows, checksums of the other files
    weights.safetensors  frozen and trained parameters (moving average)
    program.bin          a `jax.export` program: weights, frames and numbers
                         of valid samples to segments

Reading needs no config and no code of the model: the program is the model.
Its batch is symbolic; weights are an argument, since a program of a gigabyte
of constants could not be stored. Decoding is inside the program (the head's
points belong to the model). Suppression is outside, by detection/ with the
manifest's numbers: it joins all windows of a video, however many, and may be
set anew without exporting again.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from losa_jax.detection.segments import Segments
from losa_jax.errors import InputError
from losa_jax.utils.xla_options import compiler_options

FORMAT = "losa_jax export"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE, PROGRAM_FILE = "weights.safetensors", "program.bin"
PLATFORMS = ("cpu", "tpu", "cuda")


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A folder, loaded.

    Attributes:
      manifest: all of manifest.json.
      class_names: in label order.
      thresholds: score from which a detection of a class is worth showing.
      settings: config sections `window`, `augment`, `data`, `evaluate`, as
        far as a video's way to detections needs them.
      checksums: of weights and program.
      predict_windows: {"frames": uint8 [b, f, size, size, 3],
        "valid_samples": int32 [b]} to segments [b, m] in tokens of their
        window; any b, each new one is compiled.
    """

    manifest: dict[str, Any]
    class_names: tuple[str, ...]
    thresholds: dict[str, float]
    settings: dict[str, Any]
    checksums: tuple[str, ...]
    predict_windows: Callable[[Mapping[str, np.ndarray]], Segments]


def is_exported(folder: str | Path) -> bool:
    """Whether this is (or was) an exported folder, not a work directory."""
    return (Path(folder) / MANIFEST_FILE).is_file()


def write_exported(folder: Path, program: bytes,
                   weights: Mapping[str, np.ndarray],
                   manifest: Mapping[str, Any]) -> None:
    """Writes the folder; it has its name only when it is whole.

    Args:
      folder: to make; an exported model there is replaced.
      program: serialized.
      weights: by flat name.
      manifest: `class_names`, `thresholds`, `settings`, `platforms`; and
        whatever else is worth knowing.

    Raises:
      InputError: something else is there, or the disk is full.
    """
    refuse_others(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.",
                                          dir=folder.parent))
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error}): choose "
                         "another --output") from error
    try:
        save_file({name: np.ascontiguousarray(array)
                   for name, array in weights.items()},
                  temporary / WEIGHTS_FILE)
        (temporary / PROGRAM_FILE).write_bytes(program)
        files = {name: {"bytes": (temporary / name).stat().st_size,
                        "sha256": _checksum(temporary / name)}
                 for name in (WEIGHTS_FILE, PROGRAM_FILE)}
        (temporary / MANIFEST_FILE).write_text(json.dumps({
            "format": FORMAT, "format_version": FORMAT_VERSION,
            "jax": jax.__version__, **manifest, "files": files},
            indent=1) + "\n", encoding="utf-8")
        temporary.chmod(0o755)
        if folder.exists():
            # Both names exist until the new folder is in place.
            retired = temporary.with_name(temporary.name + ".old")
            os.replace(folder, retired)
            os.replace(temporary, folder)
            shutil.rmtree(retired)
        else:
            os.replace(temporary, folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error}): make room "
                         "and export again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_others(folder: Path) -> None:
    """Raises InputError where a folder holds anything but our files."""
    ours = {MANIFEST_FILE, WEIGHTS_FILE, PROGRAM_FILE}
    names = ({path.name for path in folder.iterdir()} if folder.is_dir()
             else {folder.name} if folder.exists() else set())
    if names and not (MANIFEST_FILE in names and names <= ours):
        raise InputError(f"{folder}: is there already and no exported model: "
                         "choose another --output")


def load_exported(folder: str | Path) -> ExportedModel:
    """Reads and checks an exported folder, ready to run on this machine.

    Raises:
      InputError: not such a folder, of another version, damaged, or its
        program is not for this machine's devices.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    platform = jax_export.default_export_platform()
    if platform not in manifest["platforms"]:
        raise InputError(
            f"{folder}: its program is for "
            f"{', '.join(manifest['platforms'])}, this is {platform}: set "
            f"JAX_PLATFORMS={manifest['platforms'][0]} where there is one, "
            "or export again with --platforms")
    for name, facts in manifest["files"].items():
        _check_file(folder / name, facts)
    try:
        program = jax_export.deserialize(
            bytearray((folder / PROGRAM_FILE).read_bytes()))
    except Exception as error:  # flatbuffers has no error of its own
        raise InputError(
            f"{folder / PROGRAM_FILE}: this jax ({jax.__version__}) cannot "
            f"read a program of jax {manifest['jax']} ({error}): install "
            "that one, or export again") from error
    try:
        with safe_open(folder / WEIGHTS_FILE, "np") as file:
            weights = {name: jax.device_put(file.get_tensor(name))
                       for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS_FILE}: cannot be read ({error})"
                         ": copy the folder again") from error
    run = jax.jit(program.call, compiler_options=compiler_options())

    def predict_windows(inputs):
        rows = run(weights, inputs["frames"],
                   np.asarray(inputs["valid_samples"], np.int32))
        return Segments(rows["segments"], rows["scores"], rows["labels"],
                        rows["alive"], rows.get("class_scores"))

    return ExportedModel(
        manifest, tuple(manifest["class_names"]), manifest["thresholds"],
        manifest["settings"],
        tuple(manifest["files"][name]["sha256"]
              for name in (WEIGHTS_FILE, PROGRAM_FILE)), predict_windows)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no exported model (no {MANIFEST_FILE}): "
                         "make one with --mode=export")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format={manifest['format']!r}")
        version = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the manifest of an exported model "
                         f"({error!r}): copy the folder again, or export "
                         "anew") from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {version}, this program reads "
            f"{FORMAT_VERSION}: " + (
                "it is older than the folder, update losa_jax"
                if isinstance(version, int) and version > FORMAT_VERSION
                else "export the run again"))
    missing = [key for key in ("class_names", "thresholds", "settings",
                               "platforms", "files", "jax")
               if key not in manifest]
    missing += [name for name in (WEIGHTS_FILE, PROGRAM_FILE)
                if name not in manifest.get("files", ())]
    if missing:
        raise InputError(f"{path}: says nothing of {', '.join(missing)}: "
                         "copy the folder again, or export anew")
    return manifest


def _check_file(path: Path, facts: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise InputError(f"{path}: is missing: copy the folder again")
    if path.stat().st_size != facts["bytes"]:
        raise InputError(
            f"{path}: has {path.stat().st_size:,} bytes, its manifest says "
            f"{facts['bytes']:,}: copy the folder again")
    if _checksum(path) != facts["sha256"]:
        raise InputError(f"{path}: is damaged (another checksum than its "
                         "manifest's): copy the folder again")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
