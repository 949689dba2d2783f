"""RandAugment's operations on uint8 frames, drawn once for a window.

Cubuk et al., "RandAugment" (arXiv 1909.13719), with the fifteen operations and
the strengths, magnitude 9 of 10, that AdaTAD trains with: mmaction2's `ImgAug`
by imgaug's augmenters. Differs in that signs are drawn for each window, there
once for a run, and that a shear by an angle moves pixels by its tangent.
"""

from collections.abc import Callable

import cv2
import numpy as np

Operation = Callable[[np.ndarray], np.ndarray]
# Draws what is random of an operation for square frames of so many pixels.
Maker = Callable[[np.random.Generator, int], Operation]

SHEAR_DEGREES = 15.47
SHIFT_SHARE = 0.18  # of the side
ROTATE_DEGREES = 27.0
# Of color, contrast, brightness and sharpness; 1 changes nothing.
ENHANCE_FACTOR = 1.72
SOLARIZE_FROM = 230
POSTERIZE_BITS = 3
CUTOUT_SHARE = 0.18  # of the side
CUTOUT_GRAY = 128

_LEVELS = np.arange(256)
_GRAY = np.array([[0.299, 0.587, 0.114]])
# Pillow's filter SMOOTH.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def random_operations(rng: np.random.Generator, count: int, size: int
                      ) -> list[Operation]:
    """Draws `count` different operations for square frames of `size` pixels,
    to be applied in this order."""
    makers = list(OPERATIONS.values())
    chosen = rng.choice(len(makers), count, replace=False)
    return [makers[index](rng, size) for index in sorted(chosen)]


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _warp(matrix: list[list[float]], size: int) -> Operation:
    """Maps affinely about the center; black where nothing was."""
    full = np.array([*matrix, [0.0, 0.0, 1.0]])
    center = (size - 1) / 2
    shift = np.array([[1, 0, center], [0, 1, center], [0, 0, 1.0]])
    about = (shift @ full @ np.linalg.inv(shift))[:2]
    return lambda frame: cv2.warpAffine(
        frame, about, (size, size), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0))


def _shear_x(rng: np.random.Generator, size: int) -> Operation:
    slope = _sign(rng) * np.tan(np.deg2rad(SHEAR_DEGREES))
    return _warp([[1, slope, 0], [0, 1, 0]], size)


def _shear_y(rng: np.random.Generator, size: int) -> Operation:
    slope = _sign(rng) * np.tan(np.deg2rad(SHEAR_DEGREES))
    return _warp([[1, 0, 0], [slope, 1, 0]], size)


def _shift_x(rng: np.random.Generator, size: int) -> Operation:
    return _warp([[1, 0, _sign(rng) * round(SHIFT_SHARE * size)], [0, 1, 0]],
                 size)


def _shift_y(rng: np.random.Generator, size: int) -> Operation:
    return _warp([[1, 0, 0], [0, 1, _sign(rng) * round(SHIFT_SHARE * size)]],
                 size)


def _rotate(rng: np.random.Generator, size: int) -> Operation:
    angle = _sign(rng) * np.deg2rad(ROTATE_DEGREES)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    return _warp([[cosine, -sine, 0], [sine, cosine, 0]], size)


def _cutout(rng: np.random.Generator, size: int) -> Operation:
    """Covers a square whose center is anywhere in the frame."""
    half = CUTOUT_SHARE * size / 2
    top, bottom, left, right = (
        min(max(int(edge), 0), size) for center in size * rng.random(2)
        for edge in (center - half, center + half))

    def cover(frame: np.ndarray) -> np.ndarray:
        frame = frame.copy()
        frame[top:bottom, left:right] = CUTOUT_GRAY
        return frame

    return cover


def _table(values: np.ndarray) -> np.ndarray:
    """Returns the table for cv2.LUT of 256 values, for all channels or in a
    column for each."""
    table = np.clip(np.round(values), 0, 255).astype(np.uint8)
    return table.reshape(1, 256, -1)


def _saturate(frame: np.ndarray) -> np.ndarray:
    return cv2.transform(frame, ENHANCE_FACTOR * np.eye(3)
                         + (1 - ENHANCE_FACTOR) * _GRAY)


def _contrast(frame: np.ndarray) -> np.ndarray:
    mean = round(float(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).mean()))
    return cv2.LUT(frame, _table(mean + ENHANCE_FACTOR * (_LEVELS - mean)))


def _sharpen(frame: np.ndarray) -> np.ndarray:
    kernel = (1 - ENHANCE_FACTOR) * _SMOOTH
    kernel[1, 1] += ENHANCE_FACTOR
    return cv2.filter2D(frame, -1, kernel)


def _auto_contrast(frame: np.ndarray) -> np.ndarray:
    """Stretches each channel to 0 .. 255."""
    ends = [cv2.minMaxLoc(channel)[:2] for channel in cv2.split(frame)]
    return cv2.LUT(frame, _table(np.stack([
        (_LEVELS - low) * 255 / (high - low) if high > low else _LEVELS
        for low, high in ends], axis=-1)))


def _equalize(frame: np.ndarray) -> np.ndarray:
    return cv2.merge([cv2.equalizeHist(channel)
                      for channel in cv2.split(frame)])


def _fixed(operation: Operation) -> Maker:
    return lambda rng, size: operation


def _by_table(values: np.ndarray) -> Maker:
    table = _table(values)
    return _fixed(lambda frame: cv2.LUT(frame, table))


OPERATIONS: dict[str, Maker] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "shift_x": _shift_x,
    "shift_y": _shift_y,
    "rotate": _rotate,
    "posterize": _by_table(
        _LEVELS >> 8 - POSTERIZE_BITS << 8 - POSTERIZE_BITS),
    "solarize": _by_table(np.where(
        _LEVELS < SOLARIZE_FROM, _LEVELS, 255 - _LEVELS)),
    "saturation": _fixed(_saturate),
    "contrast": _fixed(_contrast),
    "brightness": _by_table(ENHANCE_FACTOR * _LEVELS),
    "sharpness": _fixed(_sharpen),
    "auto_contrast": _fixed(_auto_contrast),
    "equalize": _fixed(_equalize),
    "invert": _fixed(cv2.bitwise_not),
    "cutout": _cutout,
}
