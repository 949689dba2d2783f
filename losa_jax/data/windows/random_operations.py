"""RandAugment's operations on uint8 frames, drawn once for a window.

Cubuk et al., "RandAugment" (arXiv 1909.13719). Differs from AdaTAD's public
code, which draws the sign once for a whole run.
"""

from collections.abc import Callable

import cv2
import numpy as np

from losa_jax.errors import InputError

Operation = Callable[[np.ndarray], np.ndarray]

MAX_MAGNITUDE = 10.0
# At magnitude 10: shear, share of the side, degrees, change of a factor.
_SHEAR, _SHIFT, _DEGREES, _CHANGE = 0.3, 0.45, 30.0, 0.9
_GRAY = (128, 128, 128)
_LEVELS = np.arange(256)


def random_operations(rng: np.random.Generator, count: int,
                      magnitude: float, size: int) -> list[Operation]:
    """Draws `count` operations for square frames of `size` pixels; InputError
    for a magnitude outside 0 to 10, or a negative count."""
    if count < 0 or not 0 <= magnitude <= MAX_MAGNITUDE:
        raise InputError(
            f"config.augment.random_operations={count} must not be negative "
            f"and config.augment.operation_magnitude={magnitude} lie in 0 "
            f"to {MAX_MAGNITUDE:g}")
    makers = list(OPERATIONS.values())
    operations = []
    for _ in range(count):
        make = makers[int(rng.integers(len(makers)))]
        sign = 1.0 if rng.random() < 0.5 else -1.0
        operations.append(make(sign * magnitude / MAX_MAGNITUDE, size))
    return operations


def _warp(matrix: list[list[float]], size: int) -> Operation:
    """Maps affinely about the center; gray where nothing was."""
    full = np.array([*matrix, [0.0, 0.0, 1.0]])
    center = (size - 1) / 2
    shift = np.array([[1, 0, center], [0, 1, center], [0, 0, 1.0]])
    about = (shift @ full @ np.linalg.inv(shift))[:2]
    return lambda frame: cv2.warpAffine(
        frame, about, (size, size), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=_GRAY)


def _rotate(strength: float, size: int) -> Operation:
    angle = np.deg2rad(_DEGREES * strength)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    return _warp([[cosine, -sine, 0], [sine, cosine, 0]], size)


def _table(values: np.ndarray) -> Operation:
    """Maps every channel through a table of 256 values."""
    table = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return lambda frame: cv2.LUT(frame, table)


def _posterize(strength: float, size: int) -> Operation:
    step = 2 ** round(4 * abs(strength))
    return _table(_LEVELS // step * step)


def _contrast(frame: np.ndarray, factor: float) -> np.ndarray:
    mean = float(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).mean())
    return cv2.convertScaleAbs(np.clip(
        frame * np.float32(factor) + np.float32((1 - factor) * mean), 0, 255))


def _saturation(frame: np.ndarray, factor: float) -> np.ndarray:
    return cv2.transform(frame, factor * np.eye(3) + (1 - factor) * np.array(
        [[0.299, 0.587, 0.114]]))


def _sharpness(frame: np.ndarray, factor: float) -> np.ndarray:
    return cv2.addWeighted(frame, factor, cv2.blur(frame, (3, 3)),
                           1 - factor, 0)


def _auto_contrast(frame: np.ndarray) -> np.ndarray:
    low = frame.min(axis=(0, 1)).astype(np.float32)
    spread = frame.max(axis=(0, 1)) - low
    scale = np.where(spread > 0, 255 / np.maximum(spread, 1), 1.0)
    tables = np.clip((_LEVELS[:, None] - low) * scale, 0, 255)
    tables = np.where(spread > 0, tables, _LEVELS[:, None])
    return cv2.LUT(frame, tables.round().astype(np.uint8)[None])


def _equalize(frame: np.ndarray) -> np.ndarray:
    return cv2.merge([cv2.equalizeHist(channel)
                      for channel in cv2.split(frame)])


def _by_factor(change: Callable[[np.ndarray, float], np.ndarray]
               ) -> Callable[[float, int], Operation]:
    return lambda strength, size: lambda frame: change(
        frame, 1 + _CHANGE * strength)


# Makes an operation from a strength in -1 to 1 and the side in pixels.
OPERATIONS: dict[str, Callable[[float, int], Operation]] = {
    "identity": lambda strength, size: lambda frame: frame,
    "shear_x": lambda strength, size: _warp(
        [[1, _SHEAR * strength, 0], [0, 1, 0]], size),
    "shear_y": lambda strength, size: _warp(
        [[1, 0, 0], [_SHEAR * strength, 1, 0]], size),
    "shift_x": lambda strength, size: _warp(
        [[1, 0, _SHIFT * strength * size], [0, 1, 0]], size),
    "shift_y": lambda strength, size: _warp(
        [[1, 0, 0], [0, 1, _SHIFT * strength * size]], size),
    "rotate": _rotate,
    "brightness": lambda strength, size: _table(
        _LEVELS * (1 + _CHANGE * strength)),
    "contrast": _by_factor(_contrast),
    "saturation": _by_factor(_saturation),
    "sharpness": _by_factor(_sharpness),
    "solarize": lambda strength, size: _table(np.where(
        _LEVELS < 256 - 256 * abs(strength), _LEVELS, 255 - _LEVELS)),
    "posterize": _posterize,
    "auto_contrast": lambda strength, size: _auto_contrast,
    "equalize": lambda strength, size: _equalize,
}
