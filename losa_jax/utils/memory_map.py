"""Copies memory-mapped arrays without keeping the file's pages in memory."""

import mmap
from typing import Any

import numpy as np
from numpy.typing import DTypeLike


def copied(array: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """Returns a copy in another dtype, made row by row.

    The pages of a mapped file are freed after each row, so that the largest
    stack of blocks is in memory once, and the file not at all.
    """
    copy = np.empty(array.shape, dtype)
    # Vectors and matrices are small: one "row".
    parts = (zip(copy, array, strict=True) if array.ndim > 2
             else [(copy, array)])
    for target, source in parts:
        target[...] = source
        _release_pages(array)
    return copy


def _release_pages(array: Any) -> None:
    """Frees the memory of a mapped file, which can be read again."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    if array is not None and hasattr(mmap, "MADV_DONTNEED"):
        array.madvise(mmap.MADV_DONTNEED)
