"""Reads the files of `torch.save` without PyTorch and without running code.

A `.pth` file of torch >= 1.6 is a zip archive: `NAME/data.pkl` is a pickle of
the objects, `NAME/data/KEY` holds the numbers of a tensor. Unpickling normally
imports names and calls them, which can run any code. This reader imports
nothing: the few names that a state dict needs are functions of this module,
and every other name becomes an inert class. Calling such a name is refused,
except for `_INERT_CALLS`, which make an inert instance.
"""

import dataclasses
import functools
import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from losa_jax.errors import InputError
from losa_jax.utils.file_type import misplaced

_STORAGE_DTYPES = {
    "FloatStorage": np.float32, "DoubleStorage": np.float64,
    "HalfStorage": np.float16, "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8,
    "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}
REMEDY = ("give a file .pth or .safetensors with a state dict, or a folder of "
          "Hugging Face")
_DAMAGED = "; the file is damaged, fetch it again"
# Old pickle protocols call the module of built-ins __builtin__.
_INERT_CALLS = frozenset(
    [f"{module}.{name}" for module in ("builtins", "__builtin__")
     for name in ("set", "frozenset", "list", "dict", "int", "float", "bool",
                  "str", "bytes", "bytearray", "complex", "slice", "range")]
    + [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core")
       for name in ("scalar", "_reconstruct")]
    + [f"{module}.{name}" for module in ("pathlib", "pathlib._local")
       for name in ("PosixPath", "WindowsPath")]
    + ["numpy.dtype", "_codecs.encode", "collections.defaultdict",
       "collections.deque", "copyreg._reconstructor",
       "copy_reg._reconstructor", "datetime.date", "datetime.datetime",
       "datetime.timedelta", "torch.Size", "torch.device",
       "torch._utils._rebuild_tensor_v3"])


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a file, whose shape is known before it is read."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def __setstate__(self, _state: Any) -> None:
        # A pickle could change where the numbers come from.
        raise InputError(f"{self.path}: refused, because its pickle alters a "
                         "tensor: get it from its authors")


class _UnknownType(type):
    """Refuses `cls(...)`, a call, but allows `cls.__new__`, an instance."""

    full_name = ""
    path: Path | None = None

    def __call__(cls, *_args: Any, **_kwargs: Any) -> Any:
        if cls.full_name not in _INERT_CALLS:
            raise InputError(
                f"{cls.path}: its pickle asks to call {cls.full_name}, which "
                "could run code: refused. If you trust the file, load it "
                "with torch and save its state dict alone")
        return super().__call__()


class _Unknown(metaclass=_UnknownType):
    """Stands for an object of a class that this reader does not know."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "_Unknown":
        return object.__new__(cls)

    def append(self, *_args: Any) -> None:
        pass

    # Pickle fills objects, lists, sets and dicts through these.
    __setstate__ = extend = add = __setitem__ = append


class _Storage(NamedTuple):
    dtype: np.dtype


def load_torch_zip(path: Path) -> Any:
    """Returns the object that `torch.save` wrote, with `Tensor` leaves.

    Raises:
      InputError: not such a file, damaged, or it asks for code to be run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickles = [n for n in names if n.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise InputError(
                    f"{path}: a zip file, but not one of torch.save (no "
                    f"data.pkl in it, but {', '.join(names[:3])}): {REMEDY}")
            root = pickles[0].removesuffix("data.pkl")
            if (root + "byteorder" in names
                    and archive.read(root + "byteorder") != b"little"):
                raise InputError(f"{path}: big-endian checkpoints are not "
                                 "supported; save it again on a common PC")
            content = archive.read(pickles[0])
    except InputError:
        raise
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(misplaced(
            path, "a PyTorch", "a PyTorch checkpoint", f"{REMEDY}; what a "
            "torch older than 1.6 wrote is to be saved again with a newer one")
            or f"{path}: is no PyTorch checkpoint, or damaged ({error}): "
            "fetch it again") from error
    try:
        return _Reader(content, path, root).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise InputError(f"{path}: data.pkl cannot be read ({error})"
                         f"{_DAMAGED}") from error


class _Reader(pickle.Unpickler):
    """Unpickles without importing anything."""

    def __init__(self, content: bytes, path: Path, root: str):
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self._path, self._root = path, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage") and name in _STORAGE_DTYPES:
            return _Storage(np.dtype(_STORAGE_DTYPES[name]))
        if module == "torch._utils":
            if name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
                return self._rebuild_tensor
            if name == "_rebuild_parameter":
                return lambda data, *_: data
        return _UnknownType("_Unknown", (_Unknown,), {
            "full_name": f"{module}.{name}", "path": self._path})

    def persistent_load(self, reference: Any) -> Any:
        tag, storage, key, _location, _count = reference
        if tag != "storage" or not isinstance(storage, _Storage):
            raise InputError(f"{self._path}: unknown storage {reference!r}; "
                             "quantized or special tensors are not supported")
        return f"{self._root}data/{key}", storage.dtype

    def _rebuild_tensor(self, storage: Any, offset: int, shape: tuple,
                        strides: tuple, *_rest: Any) -> Tensor:
        numbers = (offset, *shape, *strides)
        # A negative stride would read memory outside the tensor.
        if len(shape) != len(strides) or any(
                type(number) is not int or number < 0 for number in numbers):
            raise InputError(f"{self._path}: a tensor of shape {shape} with "
                             f"strides {strides} at {offset} makes no sense"
                             f"{_DAMAGED}")
        entry, dtype = storage
        read = functools.partial(_read_entry, self._path, entry, dtype, offset,
                                 shape, strides)
        return Tensor(self._path, tuple(shape), dtype, read)


def _read_entry(path: Path, entry: str, dtype: np.dtype, offset: int,
                shape: tuple, strides: tuple) -> np.ndarray:
    """Returns a contiguous array; strides and offset count elements."""
    count = 0 if 0 in shape else 1 + sum(
        (size - 1) * stride
        for size, stride in zip(shape, strides, strict=True))
    try:
        with (zipfile.ZipFile(path) as archive,
              archive.open(entry) as file):
            file.seek(offset * dtype.itemsize)
            data = file.read(count * dtype.itemsize)
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(f"{path}: the data of entry {entry} cannot be read "
                         f"({error}){_DAMAGED}") from error
    if len(data) < count * dtype.itemsize:
        raise InputError(f"{path}: entry {entry} is cut short{_DAMAGED}")
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(
        np.frombuffer(data, dtype), shape,
        tuple(stride * dtype.itemsize for stride in strides)))
