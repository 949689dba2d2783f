"""Writes and reads a run exported as one self-contained folder.

    manifest.json        version, classes, thresholds, the settings by which
                         videos are cut into windows, checksums of the files
    weights.safetensors  frozen and trained parameters (moving average)
    program.bin          a `jax.export` program with a symbolic batch size:
                         weights, frames and numbers of valid samples to
                         segments

Reading needs neither the config nor the code of the model. Decoding is in the
program. Suppression is not, because it joins all windows of a video and may
be set without a new export.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export as jax_export
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from losa_jax.detection.segments import Segments
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import atomic_folder
from losa_jax.utils.xla_options import compiler_options

FORMAT = "losa_jax export"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE, PROGRAM_FILE = "weights.safetensors", "program.bin"
PLATFORMS = ("cpu", "tpu", "cuda")
_AGAIN = "copy the folder again, or export the run again"


class ExportedModel(NamedTuple):
    """A loaded folder.

    Attributes:
      manifest: of manifest.json: `class_names` in label order, `thresholds`
        {class name: score}, `settings` (config sections `window`, `augment`,
        `data` and `evaluate`), `files`.
      predict_windows: {"frames": uint8 [b, f, size, size, 3],
        "valid_samples": int32 [b]} to segments [b, m] in tokens of their
        window, for any b; each new b is compiled.
    """

    manifest: dict[str, Any]
    predict_windows: Callable[[Mapping[str, np.ndarray]], Segments]


def is_exported(folder: str | Path) -> bool:
    """Whether a folder holds an exported model."""
    return (Path(folder) / MANIFEST_FILE).is_file()


def write_exported(folder: Path, program: bytes,
                   weights: Mapping[str, np.ndarray],
                   manifest: Mapping[str, Any]) -> None:
    """Writes the folder, in place of an exported model there.

    Args:
      weights: by flat name.
      manifest: `class_names`, `thresholds`, `settings`, `platforms` and any
        further facts.

    Raises:
      InputError: the folder holds other files, or cannot be written.
    """
    refuse_others(folder)
    with atomic_folder(folder, remedy="free space, or choose another "
                       "--output") as temporary:
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


def refuse_others(folder: Path) -> None:
    """Raises InputError where a folder holds anything but an export."""
    ours = {MANIFEST_FILE, WEIGHTS_FILE, PROGRAM_FILE}
    names = ({path.name for path in folder.iterdir()} if folder.is_dir()
             else {folder.name} if folder.exists() else set())
    if names and not (MANIFEST_FILE in names and names <= ours):
        raise InputError(f"{folder} exists and is no exported model: choose "
                         "another --output")


def load_exported(folder: str | Path) -> ExportedModel:
    """Reads and checks an exported folder for the devices of this machine.

    Raises:
      InputError: the folder is no exported model, has another version, is
        damaged, or its program is for other devices.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    platform = jax_export.default_export_platform()
    if platform not in manifest["platforms"]:
        raise InputError(
            f"{folder}: its program is for "
            f"{', '.join(manifest['platforms'])}, this is {platform}: export "
            "the run again with --platforms")
    for name, facts in manifest["files"].items():
        _check_file(folder / name, facts)
    try:
        program = jax_export.deserialize(
            bytearray((folder / PROGRAM_FILE).read_bytes()))
    except Exception as error:  # flatbuffers has no error type of its own
        raise InputError(
            f"{folder / PROGRAM_FILE}: this jax ({jax.__version__}) cannot "
            f"read a program of jax {manifest['jax']} ({error}): install "
            "that version, or export the run again") from error
    try:
        weights = jax.device_put(load_file(folder / WEIGHTS_FILE))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS_FILE}: cannot be read ({error})"
                         f": {_AGAIN}") from error
    run = jax.jit(program.call, compiler_options=compiler_options())

    def predict_windows(inputs):
        rows = run(weights, inputs["frames"],
                   np.asarray(inputs["valid_samples"], np.int32))
        return Segments(rows["segments"], rows["scores"], rows["labels"],
                        rows["alive"], rows.get("class_scores"))

    return ExportedModel(manifest, predict_windows)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise InputError(f"{folder}: no exported model (no {MANIFEST_FILE}): "
                         "make one with --mode=export")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"format={manifest['format']!r}")
        version = int(manifest["format_version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the manifest of an exported model "
                         f"({error!r}): {_AGAIN}") from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {version}, but this program reads "
            f"{FORMAT_VERSION}: " + (
                "update losa_jax" if version > FORMAT_VERSION
                else "export the run again"))
    missing = [key for key in ("class_names", "thresholds", "settings",
                               "platforms", "files", "jax")
               if key not in manifest]
    missing += [name for name in (WEIGHTS_FILE, PROGRAM_FILE)
                if name not in manifest.get("files", ())]
    if missing:
        raise InputError(f"{path}: has no entry {', '.join(missing)}: "
                         f"{_AGAIN}")
    return manifest


def _check_file(path: Path, facts: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise InputError(f"{path}: is missing: {_AGAIN}")
    if _checksum(path) != facts["sha256"]:
        raise InputError(f"{path}: is damaged (its checksum is not the "
                         f"manifest's): {_AGAIN}")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
