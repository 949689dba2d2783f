"""Checksums of the files of a checkpoint, by which damage is recognized.

The file checksums.json in a checkpoint's folder holds size and CRC-32 of
every other file. Orbax's own checks cover only the index of the arrays: a
flipped byte in their content is restored without an error.
"""

import contextlib
import json
import re
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath

from losa_jax.utils.file_type import stand_in

FILE = "checksums.json"
# Metadata of checkpoints that have the file.
CHECKED = {"checksums": True}
# Orbax finishes these after the checksums were written: the first gets a time,
# which the checksum leaves out; of the second only the name counts.
_METADATA, COMMIT = "_CHECKPOINT_METADATA", "commit_success.txt"
_TIME = re.compile(rb'("commit_timestamp_nsecs": *)(\d+|null)')
# Without these no version of this program can read a checkpoint.
_NEEDED = (_METADATA, "facts/metadata", "state/_METADATA",
           "state/manifest.ocdbt")
_CHUNK_BYTES = 2 ** 24
_THREADS = 8
_METADATA_SECONDS = 60.0


def write(folder: epath.Path) -> None:
    """Writes the checksums of the files that a checkpoint's folder holds."""
    _await_metadata(folder / _METADATA)
    names = [name for name in _names(folder) if name not in (FILE, COMMIT)]
    (folder / FILE).write_text(json.dumps(_sums(folder, names), indent=1))


def _await_metadata(path: epath.Path) -> None:
    """Waits until the metadata of a checkpoint are there but for their time:
    Orbax writes them in two steps in a thread of its own."""
    deadline = time.monotonic() + _METADATA_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError,
                                 AttributeError):
            facts = json.loads(path.read_text())["custom_metadata"]
            if CHECKED.items() <= facts.items():
                return
        time.sleep(0.01)


def damage(folder: epath.Path, *, with_arrays: bool) -> str:
    """Returns which file of a checkpoint is missing or damaged; "" if none.

    Args:
      with_arrays: also computes the checksums of the state's files, for which
        they are read: 4 GiB take about 1 s once they are in memory.
    """
    for name in _NEEDED:
        if not (folder / name).exists():
            return f"incomplete: {folder / name} is missing"
    stored = _stored(folder)
    if isinstance(stored, str):
        return stored
    for name, (size, _) in stored.items():
        path = folder / name
        if not path.exists():
            return f"incomplete: {path} is missing"
        if name != _METADATA and path.stat().length != size:
            return (_stand_in(path) or f"incomplete: {path} has "
                    f"{path.stat().length} bytes instead of {size}")
    actual = _sums(folder, [name for name in stored if with_arrays
                            or not name.startswith("state/")])
    return next((_stand_in(folder / name)
                 or f"damaged: the content of {folder / name} has changed"
                 for name, entry in actual.items()
                 if entry[1] != stored[name][1]), "")


def _stored(folder: epath.Path) -> dict[str, list[int]] | str:
    """Returns {name: (size, checksum)}, nothing of an older version's
    checkpoint, or what is wrong with the file."""
    path = folder / FILE
    try:
        if path.exists():
            return {str(name): [int(size), int(checksum)] for name, (
                size, checksum) in json.loads(path.read_text()).items()}
        path = folder / _METADATA
        facts = json.loads(path.read_text())["custom_metadata"] or {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return (_stand_in(path)
                or f"damaged: {path} cannot be read ({error!r})")
    return (f"incomplete: {folder / FILE} is missing" if CHECKED.items()
            <= facts.items() else {})


def _stand_in(path: epath.Path) -> str:
    reason = stand_in(Path(path))
    return reason and f"incomplete: {path} is {reason}"


def _names(folder: epath.Path, prefix: str = "") -> list[str]:
    """Returns the files of a folder and its subfolders, sorted."""
    names: list[str] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        names += (_names(path, f"{prefix}{path.name}/") if path.is_dir()
                  else [prefix + path.name])
    return names


def _sums(folder: epath.Path, names: list[str]) -> dict[str, Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(
            lambda name: _sum(folder / name), names), strict=True))


def _sum(path: epath.Path) -> list[int]:
    """Returns size and checksum of a file."""
    if path.name == _METADATA:
        content = _TIME.sub(rb"\1null", path.read_bytes())
        return [len(content), zlib.crc32(content)]
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return [size, checksum]
