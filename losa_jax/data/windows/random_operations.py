"""RandAugment's operations on uint8 pictures, drawn once for a window.

Cubuk et al., "RandAugment" (arXiv 1909.13719), as video recipes have it: a
number of operations, each drawn anew, all at one magnitude of ten. The sign
of those that have one is drawn with every window; AdaTAD's public code draws
it once, when the pipeline is built, so that its pictures only ever lean to
one side.
"""

from collections.abc import Callable

import cv2
import numpy as np

from losa_jax.errors import InputError

Operation = Callable[[np.ndarray], np.ndarray]

MAX_MAGNITUDE = 10.0
# At magnitude 10: shear, share of the side, degrees, change of a factor.
_SHEAR, _SHIFT, _DEGREES, _CHANGE = 0.3, 0.45, 30.0, 0.9
_GREY = (128, 128, 128)


def random_operations(rng: np.random.Generator, count: int,
                      magnitude: float, size: int) -> list[Operation]:
    """Draws `count` operations for square pictures of `size` pixels.

    Raises:
      InputError: a magnitude outside 0 to 10, or a negative count.
    """
    if count < 0 or not 0 <= magnitude <= MAX_MAGNITUDE:
        raise InputError(
            f"config.augment.random_operations={count} must not be negative "
            f"and config.augment.operation_magnitude={magnitude} lie in 0 "
            f"to {MAX_MAGNITUDE:g}")
    names = list(OPERATIONS)
    operations = []
    for _ in range(count):
        make = OPERATIONS[names[int(rng.integers(len(names)))]]
        sign = 1.0 if rng.random() < 0.5 else -1.0
        operations.append(make(magnitude / MAX_MAGNITUDE, sign, size))
    return operations


def _warp(matrix: list[list[float]], size: int) -> Operation:
    """An affine map about the picture's center; gray where nothing was."""
    full = np.array([*matrix, [0.0, 0.0, 1.0]])
    center = (size - 1) / 2
    shift = np.array([[1, 0, center], [0, 1, center], [0, 0, 1.0]])
    about = (shift @ full @ np.linalg.inv(shift))[:2]
    return lambda picture: cv2.warpAffine(
        picture, about, (size, size), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=_GREY)


def _table(values: np.ndarray) -> Operation:
    """Every channel through one table of 256."""
    table = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return lambda picture: cv2.LUT(picture, table)


def _shear_x(strength: float, sign: float, size: int) -> Operation:
    return _warp([[1, sign * _SHEAR * strength, 0], [0, 1, 0]], size)


def _shear_y(strength: float, sign: float, size: int) -> Operation:
    return _warp([[1, 0, 0], [sign * _SHEAR * strength, 1, 0]], size)


def _shift_x(strength: float, sign: float, size: int) -> Operation:
    return _warp([[1, 0, sign * _SHIFT * strength * size], [0, 1, 0]], size)


def _shift_y(strength: float, sign: float, size: int) -> Operation:
    return _warp([[1, 0, 0], [0, 1, sign * _SHIFT * strength * size]], size)


def _rotate(strength: float, sign: float, size: int) -> Operation:
    angle = np.deg2rad(sign * _DEGREES * strength)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    return _warp([[cosine, -sine, 0], [sine, cosine, 0]], size)


def _identity(strength: float, sign: float, size: int) -> Operation:
    return lambda picture: picture


def _brightness(strength: float, sign: float, size: int) -> Operation:
    return _table(np.arange(256) * (1 + sign * _CHANGE * strength))


def _solarize(strength: float, sign: float, size: int) -> Operation:
    values = np.arange(256)
    return _table(np.where(values < 256 - 256 * strength, values,
                           255 - values))


def _posterize(strength: float, sign: float, size: int) -> Operation:
    step = 2 ** round(4 * strength)
    return _table(np.arange(256) // step * step)


def _contrast(strength: float, sign: float, size: int) -> Operation:
    factor = 1 + sign * _CHANGE * strength

    def apply(picture: np.ndarray) -> np.ndarray:
        mean = float(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).mean())
        return cv2.convertScaleAbs(
            np.clip(picture * np.float32(factor)
                    + np.float32((1 - factor) * mean), 0, 255))
    return apply


def _saturation(strength: float, sign: float, size: int) -> Operation:
    factor = 1 + sign * _CHANGE * strength
    matrix = (factor * np.eye(3)
              + (1 - factor) * np.array([[0.299, 0.587, 0.114]]))
    return lambda picture: cv2.transform(picture, matrix)


def _sharpness(strength: float, sign: float, size: int) -> Operation:
    factor = 1 + sign * _CHANGE * strength

    def apply(picture: np.ndarray) -> np.ndarray:
        return cv2.addWeighted(picture, factor,
                               cv2.blur(picture, (3, 3)), 1 - factor, 0)
    return apply


def _auto_contrast(strength: float, sign: float, size: int) -> Operation:
    def apply(picture: np.ndarray) -> np.ndarray:
        low = picture.min(axis=(0, 1)).astype(np.float32)
        spread = picture.max(axis=(0, 1)) - low
        scale = np.where(spread > 0, 255 / np.maximum(spread, 1), 1.0)
        tables = np.clip((np.arange(256)[:, None] - low) * scale, 0, 255)
        tables = np.where(spread > 0, tables, np.arange(256)[:, None])
        return cv2.LUT(picture, tables.round().astype(np.uint8)[None])
    return apply


def _equalize(strength: float, sign: float, size: int) -> Operation:
    return lambda picture: cv2.merge(
        [cv2.equalizeHist(channel) for channel in cv2.split(picture)])


OPERATIONS: dict[str, Callable[[float, float, int], Operation]] = {
    "identity": _identity, "shear_x": _shear_x, "shear_y": _shear_y,
    "shift_x": _shift_x, "shift_y": _shift_y, "rotate": _rotate,
    "brightness": _brightness, "contrast": _contrast,
    "saturation": _saturation, "sharpness": _sharpness,
    "solarize": _solarize, "posterize": _posterize,
    "auto_contrast": _auto_contrast, "equalize": _equalize}
