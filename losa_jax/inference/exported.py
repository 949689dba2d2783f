"""Writes and reads a run exported as one self-contained folder.

    manifest.json        version, classes, thresholds, the settings by which
                         videos are cut into windows, checksums of the files
    weights.safetensors  frozen and trained parameters (moving average)
    program.bin          a `jax.export` program with a symbolic batch size:
                         weights, frames and numbers of valid samples to
                         segments

Reading needs neither the config nor the code of the model. NMS is not in the
program, because it joins all windows of a video and may be set later.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export
from safetensors.numpy import load_file, save_file

from losa_jax.data.windows.batch import Inputs
from losa_jax.detection.segments import Segments
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import atomic_folder, refuse_others
from losa_jax.utils.text_files import read_json
from losa_jax.utils.xla_options import compiler_options
from losa_jax.weights.checkpoint_file import check_sum, sha256

FORMAT = "losa_jax export"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
WEIGHTS_FILE, PROGRAM_FILE = "weights.safetensors", "program.bin"
# Arguments of `refuse_others`.
CONTENT = "exported model", MANIFEST_FILE, WEIGHTS_FILE, PROGRAM_FILE
PLATFORMS = ("cpu", "tpu", "cuda")
_AGAIN = "copy the folder again, or export the run again"


def is_exported(folder: str | Path) -> bool:
    """Whether a folder holds an exported model."""
    return (Path(folder) / MANIFEST_FILE).is_file()


def write_exported(folder: Path, program: bytes,
                   weights: Mapping[str, np.ndarray],
                   manifest: Mapping[str, Any]) -> None:
    """Writes the folder, in place of an exported model there.

    Args:
      program: serialized.
      weights: by flat name.
      manifest: as `load_exported` returns it, without `files`.

    Raises:
      InputError: the folder holds other files, or cannot be written.
    """
    refuse_others(folder, *CONTENT)
    with atomic_folder(folder) as temporary:
        save_file({name: np.ascontiguousarray(array)
                   for name, array in weights.items()},
                  temporary / WEIGHTS_FILE)
        (temporary / PROGRAM_FILE).write_bytes(program)
        files = {name: {"bytes": (temporary / name).stat().st_size,
                        "sha256": sha256(temporary / name)}
                 for name in (WEIGHTS_FILE, PROGRAM_FILE)}
        (temporary / MANIFEST_FILE).write_text(json.dumps({
            "format": FORMAT, "format_version": FORMAT_VERSION,
            "jax": jax.__version__, **manifest, "files": files},
            indent=1) + "\n", encoding="utf-8")


def load_exported(folder: str | Path
                  ) -> tuple[dict[str, Any], Callable[[Inputs], Segments]]:
    """Reads and checks an exported folder for the devices of this machine.

    Returns:
      the manifest: `class_names` in label order, `thresholds` {class name:
      score}, `settings` (sections `window`, `augment`, `data`, `evaluate`),
      `platforms`, `files`; and the `predict_windows` of a `Localizer`.

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
        check_sum(folder / name, facts["sha256"], MANIFEST_FILE, _AGAIN)
    try:
        program = jax_export.deserialize(
            bytearray((folder / PROGRAM_FILE).read_bytes()))
    except Exception as error:  # flatbuffers has no error type of its own
        raise InputError(
            f"{folder / PROGRAM_FILE}: this jax ({jax.__version__}) cannot "
            f"read a program of jax {manifest['jax']} ({error}): install "
            "that version, or export the run again") from error
    weights = jax.device_put(load_file(folder / WEIGHTS_FILE))
    run = jax.jit(program.call, compiler_options=compiler_options())

    def predict_windows(inputs):
        rows = run(weights, inputs["frames"],
                   np.asarray(inputs["valid_samples"], np.int32))
        return Segments(rows["segments"], rows["scores"], rows["labels"],
                        rows["alive"], rows.get("class_scores"))

    return manifest, predict_windows


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    manifest = read_json(path, _AGAIN)
    try:
        if manifest["format"] != FORMAT:
            raise ValueError(f"format={manifest['format']!r}")
        version = int(manifest["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the manifest of an exported model "
                         f"({error!r}): {_AGAIN}") from error
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {version}, but this program reads "
            f"{FORMAT_VERSION}: " + (
                "update losa_jax" if version > FORMAT_VERSION
                else "export the run again"))
    missing = {"class_names", "thresholds", "settings", "platforms", "files",
               "jax"} - set(manifest)
    missing |= {PROGRAM_FILE, WEIGHTS_FILE} - set(manifest.get("files", ()))
    if missing:
        raise InputError(f"{path}: has no entry {', '.join(sorted(missing))}"
                         f": {_AGAIN}")
    return manifest
