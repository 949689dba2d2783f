"""Reads NumPy archives (.npz) as tensors, without unpickling anything."""

import functools
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from losa_jax.errors import InputError
from losa_jax.utils.file_type import misplaced
from losa_jax.weights.torch_pickle import Tensor

_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0,
                   (2, 0): np.lib.format.read_array_header_2_0}
_FETCH_AGAIN = "fetch it again"


def open_npz(path: Path) -> dict[str, Tensor]:
    """Returns the arrays of an archive by name, not read yet.

    Raises:
      InputError: not an archive, damaged, or an array of Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [name for name in archive.namelist()
                       if name.endswith(".npy")]
            if not entries:
                raise ValueError("no arrays in it")
            headers = {name: _header(archive, name) for name in entries}
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(
            misplaced(path, "a NumPy archive", "a NumPy archive (.npz)",
                      "give it with the suffix of its own format")
            or f"{path}: cannot be read as a NumPy archive ({error}): "
            f"{_FETCH_AGAIN}") from error
    if objects := [name for name, (_, dtype) in headers.items()
                   if dtype.hasobject]:
        raise InputError(f"{path}: {objects[0].removesuffix('.npy')} holds "
                         "Python objects, which could run code: refused. Save "
                         "arrays of numbers only")
    return {name.removesuffix(".npy"): Tensor(
        path, shape, _number_type(dtype),
        functools.partial(_read, path, name))
        for name, (shape, dtype) in headers.items()}


def _header(archive: zipfile.ZipFile, entry: str
            ) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADER_READERS:
            raise ValueError(f"{entry} has format {version}")
        shape, _, dtype = _HEADER_READERS[version](file)
        return shape, dtype


def _number_type(dtype: np.dtype) -> np.dtype:
    """Returns bfloat16 for two bytes without a type: NumPy saves it so."""
    return np.dtype(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else dtype


def _read(path: Path, entry: str) -> np.ndarray:
    try:
        with (zipfile.ZipFile(path) as archive,
              archive.open(entry) as file):
            array = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(f"{path}: the data of {entry} cannot be read "
                         f"({error}): {_FETCH_AGAIN}") from error
    return array.view(_number_type(array.dtype))
