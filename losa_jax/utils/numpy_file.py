"""Reads one array of floating-point numbers from a .npy or .npz file.

Nothing in the file is trusted: a damaged header is not taken for another
shape, pickles are refused, and an archive's checksum is compared.
"""

import io
import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from losa_jax.errors import InputError
from losa_jax.utils.file_type import misplaced

AGAIN = "copy it again from its source or make it again"
_SAVE = "save the numbers alone with numpy.save(FILE, array.astype('float32'))"
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0}
_END_BYTES = 22  # of a zip archive's last record, without the comment


def read_array(path: Path, name: str = "", *, usual: str = "",
               setting: str = "") -> np.ndarray:
    """Returns the array of a .npy file as a memory map, or one of a .npz file.

    Args:
      name: of the array in a .npz file; "" takes the only one, or `usual`.
      usual: see `name`.
      setting: gives `name`, for the message.

    Raises:
      InputError: the file is missing, damaged, or of another type, or holds
        anything but floating-point numbers.
    """
    if reason := misplaced(path, "a NumPy", "a NumPy array", _SAVE):
        raise InputError(reason)
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                return _read_member(path, name, usual, setting)
            file.seek(0)
            dtype, shape, order = _read_header(file, path.stat().st_size, path)
            offset = file.tell()
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape, order)
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{path}: cannot be read ({_reason(error)}): "
                         f"{AGAIN}") from error


def _read_member(path: Path, name: str, usual: str, setting: str
                 ) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        members = [one for one in archive.infolist()
                   if one.filename.endswith(".npy")]
        names = [one.filename.removesuffix(".npy") for one in members]
        if len(set(names)) < len(names) or not _fills_file(archive, path):
            raise InputError(f"{path}: looks like several files in one: "
                             f"{AGAIN}")
        if not name and len(names) > 1:
            name = usual or "*"
        if name and name not in names:
            raise InputError(
                f"{path}: holds the arrays {', '.join(names)}: " + (
                    f"name the one to read with {setting}=NAME" if setting
                    else "keep one"))
        # Reading it to its end compares the checksum.
        content = archive.read(f"{name or names[0]}.npy")
    file = io.BytesIO(content)
    dtype, shape, order = _read_header(file, len(content), path)
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(
        shape, order=order)


def _fills_file(archive: zipfile.ZipFile, path: Path) -> bool:
    """Whether nothing stands before an archive or after it."""
    with path.open("rb") as file:
        file.seek(-_END_BYTES - len(archive.comment), 2)
        is_end = file.read(4) == b"PK\5\6"
    return is_end and not min(
        one.header_offset for one in archive.infolist())


def _read_header(file: BinaryIO, num_bytes: int, path: Path
                 ) -> tuple[np.dtype, tuple[int, ...], Any]:
    """Returns dtype, shape, and order "C" or "F"; InputError unless the array
    fills the rest of the file."""
    version = np.lib.format.read_magic(file)
    if version not in _READ_HEADER:
        raise InputError(f"{path}: has the version {version} of NumPy's "
                         f"format, not 1 or 2: {_SAVE}")
    shape, is_fortran, dtype = _READ_HEADER[version](file)
    if dtype.hasobject:
        raise InputError(f"{path}: holds Python objects (a pickle), which can "
                         f"run code when they are loaded: {_SAVE}")
    if dtype.kind != "f":
        hint = (" (bfloat16, which NumPy does not store?)"
                if dtype == np.dtype("V2") else "")
        raise InputError(f"{path}: holds numbers of type {dtype}{hint}, not "
                         f"floating-point numbers: {_SAVE}")
    size = math.prod(shape) * dtype.itemsize
    rest = num_bytes - file.tell()
    if min(shape, default=1) < 0 or size != rest:
        raise InputError(f"{path}: its header promises {size} bytes of "
                         f"numbers, shape {shape}, and {rest} are there: "
                         f"{AGAIN}")
    return dtype, shape, "F" if is_fortran else "C"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
