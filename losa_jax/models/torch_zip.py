"""PyTorch's zip checkpoints, read without torch and without running them.

A `.pth` file is a zip archive: `<name>/data.pkl`, a pickle of the saved
object in which every tensor names a storage, and `<name>/data/<key>`, the
storages as raw uncompressed bytes. Source: `torch.save` (format since 1.6).

Why it is safe. A pickle is a program, but all it can do is call what
`find_class` hands out, and `find_class` here imports nothing. It knows
OrderedDict and, for torch's functions that rebuild tensors, functions of ours
that only note where the values lie. Every other name becomes an empty
class made on the spot, which has the name and nothing else. So a
checkpoint with an `argparse.Namespace`, a scheduler or a numpy scalar beside
its weights can be read: those become inert objects. Making an object
of an unknown class is harmless and allowed; *calling* an unknown name is what
an attack does, and while it would run nothing here, it is refused, except
for the few calls in `INERT_CALLS` that honest checkpoints contain.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from losa_jax.errors import InputError
from losa_jax.models.tensor_file import LazyTensor

STORAGE_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
# Calls that honest checkpoints ask for. None is carried out: each gives an
# inert object.
INERT_CALLS = frozenset((
    "__builtin__.bytearray", "__builtin__.complex", "__builtin__.frozenset",
    "__builtin__.set", "__builtin__.slice",
    "_codecs.encode",
    "builtins.bytearray", "builtins.complex", "builtins.frozenset",
    "builtins.set", "builtins.slice",
    "collections.defaultdict", "collections.deque",
    "copy_reg._reconstructor", "copyreg._reconstructor",
    "datetime.date", "datetime.datetime", "datetime.timedelta",
    "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "pathlib.PosixPath", "pathlib.WindowsPath",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "torch.Size", "torch.device", "torch._utils._rebuild_tensor_v3",
))
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
RESAVE = ("Where you trust the file, load it with torch and save only its "
          "weights: torch.save(torch.load(FILE)['model'], NEW_FILE)")


def read_torch(path: Path) -> Any:
    """The object that `torch.save` wrote, with `LazyTensor`s for tensors.

    Dictionaries, lists, tuples, numbers and strings are themselves; objects
    of any other class are inert placeholders (see the module's docstring).

    Raises:
      InputError: not a zip checkpoint, a truncated or compressed one, or one
        whose pickle is broken or asks to call something.
    """
    _check_is_zip(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            roots = [name[:-len("data.pkl")] for name in names
                     if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(roots) != 1:
                raise InputError(
                    f"{path} is a zip file but no PyTorch checkpoint: it "
                    f"has {len(roots)} data.pkl, and starts with {names[:3]}")
            root = roots[0]
            if f"{root}byteorder" in names and (
                    archive.read(f"{root}byteorder") != b"little"):
                raise InputError(f"{path} was written on a big-endian "
                                 f"machine. {RESAVE}")
            with archive.open(f"{root}data.pkl") as file:
                return _Unpickler(file, path, archive, root).load()
    except InputError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise InputError(f"{path}: its contents are broken ({error!r}). Copy "
                         f"or download it again") from error


def _check_is_zip(path: Path) -> None:
    if zipfile.is_zipfile(path):
        return
    with open(path, "rb") as file:
        first = file.read(32)
    if first.startswith(b"PK"):
        raise InputError(f"{path} is truncated: a zip file whose end, with "
                         f"its directory, is missing. Copy or download it "
                         f"again")
    if first.startswith(LEGACY_START):
        raise InputError(
            f"{path} is in the format of PyTorch before 1.6, which is not "
            f"read here because that takes running its pickle. {RESAVE}")
    raise InputError(f"{path} is no PyTorch checkpoint: it starts with "
                     f"{first!r}")


class _Storage(NamedTuple):
    start_byte: int
    count: int
    dtype: np.dtype


class _StorageType(NamedTuple):
    dtype: np.dtype


class _InertType(type):
    """Class of the placeholder classes; decides whether they are callable."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.global_name not in INERT_CALLS:
            raise InputError(
                f"{cls.file}: its pickle asks to call {cls.global_name}, "
                f"which reading weights does not need. Nothing was run. "
                f"{RESAVE}")
        return cls.__new__(cls)


class Inert(metaclass=_InertType):
    """Stands for an object of a class that is not imported; ignores all."""

    global_name = ""
    file = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return object.__new__(cls)

    def _ignore(self, *args: Any) -> None:
        """Whatever a pickle does to fill an object."""

    __setstate__ = __setitem__ = append = extend = add = _ignore


class _Unpickler(pickle.Unpickler):
    """See the module's docstring."""

    def __init__(self, file: Any, path: Path, archive: zipfile.ZipFile,
                 root: str):
        super().__init__(file, encoding="utf-8")
        self._path, self._archive, self._root = path, archive, root

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return OrderedDict
        if full == "torch._utils._rebuild_tensor_v2":
            return self._tensor
        if full in ("torch._utils._rebuild_parameter",
                    "torch._utils._rebuild_parameter_with_state"):
            return self._parameter
        if module == "torch" and name in STORAGE_DTYPES:
            return _StorageType(np.dtype(STORAGE_DTYPES[name]))
        return _InertType("Inert", (Inert,), {
            "global_name": full, "file": str(self._path)})

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: ("storage", type, key, device, number of elements)."""
        kind, storage_type, key, _, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise InputError(f"{self._path}: storage {pid!r} is of a kind "
                             f"that is not read here. {RESAVE}")
        name = f"{self._root}data/{key}"
        entry = self._archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{self._path}: {name} is compressed, which "
                             f"torch.save never does. {RESAVE}")
        if not 0 <= count * storage_type.dtype.itemsize <= entry.file_size:
            raise InputError(
                f"{self._path}: {name} has {entry.file_size} bytes, not the "
                f"{count} elements of {storage_type.dtype} it should have. "
                f"Copy or download it again")
        return _Storage(self._data_start(entry), count, storage_type.dtype)

    def _data_start(self, entry: zipfile.ZipInfo) -> int:
        """Where the bytes lie: behind a header of 30 bytes, name, padding."""
        with open(self._path, "rb") as file:
            file.seek(entry.header_offset)
            header = file.read(30)
        name_bytes = int.from_bytes(header[26:28], "little")
        extra_bytes = int.from_bytes(header[28:30], "little")
        return entry.header_offset + 30 + name_bytes + extra_bytes

    def _tensor(self, storage: _Storage, offset: int, shape: tuple[int, ...],
                strides: tuple[int, ...], *_: Any) -> LazyTensor:
        """torch's _rebuild_tensor_v2, with every number checked."""
        numbers = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or len(shape) != len(strides) or (
                any(type(x) is not int or x < 0 for x in numbers)):
            raise InputError(f"{self._path}: a tensor with shape {shape!r} "
                             f"and strides {strides!r} makes no sense")
        extent = 0 if 0 in shape else 1 + sum(
            (size - 1) * stride
            for size, stride in zip(shape, strides, strict=True))
        if offset + extent > storage.count:
            raise InputError(
                f"{self._path}: a tensor of shape {shape} reaches beyond its "
                f"storage of {storage.count} elements. Copy or download it "
                f"again")
        start = storage.start_byte + offset * storage.dtype.itemsize
        return LazyTensor(self._path, start, tuple(shape), tuple(strides),
                          storage.dtype)

    def _parameter(self, data: Any, *_: Any) -> Any:
        """torch's _rebuild_parameter: the tensor inside."""
        return data
