"""Tensors that stay on the disk until asked for, and safetensors files.

A safetensors file is the length of a JSON header (8 bytes, little-endian),
the header, then every tensor's bytes without holes. Written here rather than
by the library, because the library wants all tensors in memory at once.
Source: https://github.com/huggingface/safetensors, section "Format".
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from losa_jax.errors import InputError

SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in SAFETENSORS_DTYPES.items()}
# The format's own limit.
MAX_HEADER_BYTES = 100_000_000
# Data starts on a cache line, so that memory-mapped tensors are aligned.
ALIGNMENT_BYTES = 64


class LazyTensor(NamedTuple):
    """Where a tensor's values lie in a file.

    A tuple and not a class with attributes: it is made while a stranger's
    pickle is read, and a pickle can rewrite the attributes of objects.

    Attributes:
      path: file that holds the values.
      start_byte: of the first element.
      shape: any rank.
      strides: in elements, as in torch; not necessarily contiguous.
      dtype: little-endian.
    """

    path: Path
    start_byte: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the values, each counted once."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """The values, read from the disk now and kept nowhere.

        Raises:
          InputError: the file ends before the tensor does.
        """
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        extent = 1 + sum((size - 1) * stride for size, stride
                         in zip(self.shape, self.strides, strict=True))
        count = extent * self.dtype.itemsize
        raw = np.fromfile(self.path, np.uint8, count, offset=self.start_byte)
        if raw.size != count:
            raise InputError(f"{self.path} is truncated: it ends inside a "
                             f"tensor. Copy or download it again")
        steps = tuple(stride * self.dtype.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(
            raw.view(self.dtype), self.shape, steps)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements of a dense row-major array."""
    return tuple(math.prod(shape[axis + 1:]) for axis in range(len(shape)))


def read_safetensors(path: Path
                     ) -> tuple[dict[str, LazyTensor], dict[str, str]]:
    """The tensors of a .safetensors file, unread, and its metadata.

    Raises:
      InputError: not such a file, a truncated one, or one whose header
        contradicts itself.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        first = file.read(8)
        header_bytes = int.from_bytes(first, "little")
        if len(first) < 8 or header_bytes > MAX_HEADER_BYTES:
            raise InputError(
                f"{path} is no safetensors file: it starts with {first!r}")
        raw = file.read(header_bytes)
    if len(raw) < header_bytes:
        raise InputError(f"{path} is truncated: it ends inside its header. "
                         f"Copy or download it again")
    data_start = 8 + header_bytes
    try:
        header = json.loads(raw)
        metadata = dict(header.pop("__metadata__", {}))
        tensors = {name: _entry(path, data_start, entry)
                   for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no safetensors file: its header is "
                         f"broken ({error!r})") from error
    for name, tensor in tensors.items():
        if tensor.start_byte + tensor.nbytes > size:
            raise InputError(
                f"{path} is truncated: {name} ends at byte "
                f"{tensor.start_byte + tensor.nbytes}, the file at {size}. "
                f"Copy or download it again")
    return tensors, metadata


def _entry(path: Path, data_start: int, entry: dict) -> LazyTensor:
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = entry["data_offsets"]
    dtype = SAFETENSORS_DTYPES[entry["dtype"]]
    tensor = LazyTensor(path, data_start + begin, shape,
                        contiguous_strides(shape), dtype)
    if begin < 0 or min(shape, default=0) < 0 or end - begin != tensor.nbytes:
        raise ValueError(f"{entry} contradicts itself")
    return tensor


def file_order(dtypes: Mapping[str, np.dtype]) -> list[str]:
    """Names in the order to write them: wide elements first.

    So every tensor starts at a multiple of its own element size.
    """
    return sorted(dtypes, key=lambda name: -dtypes[name].itemsize)


def write_safetensors(
    path: Path,
    layout: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    pieces: Iterable[np.ndarray],
    metadata: Mapping[str, str],
) -> str:
    """Writes tensors piece by piece; returns the file's sha256.

    Args:
      path: to create; the caller renames it into place.
      layout: name to shape and dtype, in the order of the data.
      pieces: the data in that order, cut anywhere: a piece may be a whole
        tensor or a slice of one along its first axis.
      metadata: text for the header.

    Raises:
      ValueError: the pieces do not add up to the layout.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (shape, dtype) in layout.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape),
                        "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT_BYTES)
    digest = hashlib.sha256()
    written = 0
    with open(path, "xb") as file:
        for chunk in (len(text).to_bytes(8, "little"), text):
            file.write(chunk)
            digest.update(chunk)
        for piece in pieces:
            chunk = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
            file.write(chunk)
            digest.update(chunk)
            written += chunk.size
    if written != end:
        raise ValueError(f"{written} bytes of data for a layout of {end}")
    return digest.hexdigest()
