"""Checks of the numbers in features."""

from pathlib import Path

import ml_dtypes
import numpy as np

from losa_jax.errors import InputError
from losa_jax.utils.numpy_file import AGAIN

_SHOWN_ROWS = 8
_SAMPLED_NUMBERS = 4096


def require_finite(rows: np.ndarray, path: Path, first_row: int = 0) -> None:
    """Raises InputError, which names the rows, unless all numbers of [t, c]
    are finite as float32; `first_row` is the row of the file."""
    with np.errstate(over="ignore", invalid="ignore"):
        is_finite = np.isfinite(np.asarray(rows, np.float32)).all(axis=1)
    if is_finite.all():
        return
    wrong = first_row + np.flatnonzero(~is_finite)
    more = ", ..." if len(wrong) > _SHOWN_ROWS else ""
    raise InputError(
        f"{path}: {len(wrong)} of {len(rows)} rows read are not finite (rows "
        f"{', '.join(map(str, wrong[:_SHOWN_ROWS]))}{more}, counted from 0): "
        "extract it again")


def all_finite(array: np.ndarray) -> bool:
    """Returns whether all numbers are finite; fast for bfloat16 too."""
    if array.dtype == ml_dtypes.bfloat16:
        return not np.any(~array.view(np.uint16) & 0x7F80 == 0)
    return bool(np.isfinite(array).all())


def require_byte_order(rows: np.ndarray, path: Path) -> None:
    """Raises InputError if the numbers make sense only with their bytes in
    the opposite order: one flipped bit of a header exchanges them."""
    sample = np.array(rows[:_SAMPLED_NUMBERS]).ravel()[:_SAMPLED_NUMBERS]
    center, spread = _logarithms(sample)
    other_center, other_spread = _logarithms(
        sample.view(sample.dtype.newbyteorder()))
    is_likely, other_is_likely = abs(center) < 40, abs(other_center) < 40
    if other_is_likely and (not is_likely or (
            spread > 6 and spread > 2.5 * other_spread)):
        raise InputError(
            f"{path}: the header gives the byte order of its numbers wrong: "
            f"{AGAIN}, or save array.view(array.dtype.newbyteorder())")


def _logarithms(numbers: np.ndarray) -> tuple[float, float]:
    """Returns median and standard deviation of the exponents to base 2."""
    with np.errstate(all="ignore"):
        exponents = np.log2(np.abs(numbers.astype(np.float64)))
    exponents = exponents[np.isfinite(exponents)]
    if not exponents.size:
        return np.inf, 0.0
    return float(np.median(exponents)), float(np.std(exponents))
