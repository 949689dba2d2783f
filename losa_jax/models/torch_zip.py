"""Reads PyTorch checkpoint files without PyTorch, and without risk.

A `.pth` file of torch >= 1.6 is a zip: `NAME/data.pkl` describes the objects,
`NAME/data/KEY` hold the numbers. A pickle can run any code, so this reader
resolves no name by import: the handful that a state dict needs map to
functions of this file, and every other class becomes an inert `Unknown` that
only remembers its name. Tensors stay on disk until asked for.
"""

import dataclasses
import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from losa_jax.errors import InputError

_STORAGE_DTYPES = {
    "FloatStorage": np.float32, "DoubleStorage": np.float64,
    "HalfStorage": np.float16, "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8,
    "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor that still lies in the file.

    Attributes:
      shape, dtype: of the array that `read` gives.
    """

    path: Path
    entry: str
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    def read(self) -> np.ndarray:
        """The numbers, contiguous.

        Raises:
          InputError: the file holds fewer bytes than the tensor needs.
        """
        count = 0 if 0 in self.shape else 1 + sum(
            (size - 1) * stride
            for size, stride in zip(self.shape, self.strides, strict=True))
        itemsize = self.dtype.itemsize
        try:
            with zipfile.ZipFile(self.path) as archive:
                with archive.open(self.entry) as file:
                    file.seek(self.offset * itemsize)
                    data = file.read(count * itemsize)
        except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
            raise InputError(f"{self.path}: the data of entry {self.entry} "
                             f"cannot be read ({error}); the file is "
                             "damaged, fetch it again") from error
        if len(data) < count * itemsize:
            raise InputError(f"{self.path}: entry {self.entry} is cut short; "
                             "the file is damaged, fetch it again")
        flat = np.frombuffer(data, self.dtype)
        steps = tuple(stride * itemsize for stride in self.strides)
        return np.ascontiguousarray(
            np.lib.stride_tricks.as_strided(flat, self.shape, steps))


class Unknown:
    """Stands for an object of a class that this reader does not know.

    Training checkpoints carry optimizers and argument objects beside the
    weights. Nothing of them is imported or called: whatever the pickle asks
    to construct, it gets one of these.
    """

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    # Pickle fills lists and dicts through these.
    def append(self, _item: Any) -> None:
        pass

    def extend(self, _items: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass


class _Storage:
    def __init__(self, name: str):
        self.dtype = np.dtype(_STORAGE_DTYPES[name])


def load_torch_zip(path: str | Path) -> Any:
    """The object that `torch.save` wrote, with `LazyTensor` leaves.

    Raises:
      InputError: not such a file, damaged, or it asks for code to be run.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            described = [n for n in names if n.endswith("/data.pkl")]
            if len(described) != 1:
                raise InputError(
                    f"{path}: a zip file, but not one of torch.save (no "
                    "data.pkl in it)")
            root = described[0].removesuffix("data.pkl")
            if (root + "byteorder" in names
                    and archive.read(root + "byteorder") != b"little"):
                raise InputError(f"{path}: big-endian checkpoints are not "
                                 "supported; save it again on a common PC")
            description = archive.read(described[0])
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        hint = _not_a_zip_hint(path)
        raise InputError(f"{path}: {hint}") from error
    try:
        return _Reader(description, path, root).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle fails in any way it likes
        raise InputError(f"{path}: data.pkl cannot be read ({error}); the "
                         "file is damaged, fetch it again") from error


def _not_a_zip_hint(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        return "the zip file is cut short or damaged; fetch it again"
    if start[:1] == b"\x80":
        return ("written by a torch older than 1.6, in a format that cannot "
                "be read safely; load and save it once with a newer torch "
                "(torch.save(torch.load(f), g))")
    return "is no PyTorch checkpoint (neither zip nor pickle)"


class _Reader(pickle.Unpickler):
    """Knows a few names; imports none."""

    def __init__(self, description: bytes, path: Path, root: str):
        super().__init__(io.BytesIO(description), encoding="utf-8")
        self._path, self._root = path, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage") and name in _STORAGE_DTYPES:
            return _Storage(name)
        if module == "torch._utils":
            if name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
                return _rebuild_tensor
            if name == "_rebuild_parameter":
                return lambda data, *_: data
        # Old pickle protocols call the module of built-ins __builtin__.
        if module in ("builtins", "__builtin__") and name in _HARMLESS:
            return _HARMLESS[name]
        if module in _DANGEROUS or module.split(".")[0] in _DANGEROUS:
            raise InputError(
                f"{self._path}: its pickle asks for {module}.{name}, which "
                "can run code: refused. A checkpoint has no need of it; get "
                "the file from its authors")
        return Unknown

    def persistent_load(self, reference: Any) -> Any:
        kind, storage, key, _location, _count = reference
        if kind != "storage" or not isinstance(storage, _Storage):
            raise InputError(f"{self._path}: unknown storage {reference!r}; "
                             "quantised or special tensors are not supported")
        return self._path, f"{self._root}data/{key}", storage.dtype


_HARMLESS = {"set": set, "frozenset": frozenset, "list": list, "dict": dict,
             "int": int, "float": float, "bool": bool, "str": str}
# Unknown classes are harmless here, since nothing is imported; but a file
# that asks for one of these was made to attack, and the user should know.
_DANGEROUS = {"os", "posix", "nt", "subprocess", "sys", "builtins",
              "__builtin__", "socket", "shutil", "importlib", "runpy",
              "pty", "ctypes", "webbrowser", "code"}


def _rebuild_tensor(storage: Any, offset: int, shape: tuple, strides: tuple,
                    *_rest: Any) -> LazyTensor:
    path, entry, dtype = storage
    return LazyTensor(path, entry, dtype, tuple(shape), tuple(strides),
                      offset)
