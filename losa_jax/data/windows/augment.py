"""Pixels of a window: resize, crop, flip, color; uint8 in, uint8 out.

Random values are drawn once for all frames of a window, or of each clip.
Normalization happens on the device.
"""

import math
from typing import Any

import cv2
import numpy as np

from losa_jax.data.video.frame import CROP_STEP, DecodedFrame, resize_frame
from losa_jax.data.windows.random_operations import random_operations
from losa_jax.errors import InputError

# Windows are decoded in parallel; more threads would compete for the cores.
cv2.setNumThreads(1)

_GRAY = np.array([0.299, 0.587, 0.114])


def test_view(frame: np.ndarray, size: int, resize: str) -> np.ndarray:
    """Returns what testing sees of uint8 [H, W, 3]: uint8 [size, size, 3].

    "short_crop" scales the short side to `size` and crops the center
    (AdaTAD); "squash" scales both sides.
    """
    if resize == "squash":
        return resize_frame(frame, size, size)
    if resize != "short_crop":
        raise InputError(f"config.augment.test_resize={resize!r}: choose one "
                         "of short_crop, squash")
    height, width, _ = frame.shape
    scale = size / min(height, width)
    height = max(size, round(height * scale))
    width = max(size, round(width * scale))
    top, left = (height - size) // 2, (width - size) // 2
    return resize_frame(frame, height, width)[top:top + size, left:left + size]


class TrainView:
    """A random view, the same for all frames."""

    def __init__(self, height: int, width: int, rng: np.random.Generator,
                 augment: Any):
        """Takes the size of a frame in pixels and the config section
        `augment`."""
        self._settings = augment
        self._box = None
        if augment.random_crop:
            # Moved by a pixel at most, see `DecodedFrame.crop`.
            top, left, height, width = (
                side - side % CROP_STEP for side in random_resized_crop(
                    height, width, rng, tuple(augment.crop_area),
                    tuple(augment.crop_ratio)))
            self._box = (top, left, max(CROP_STEP, height),
                         max(CROP_STEP, width))
        self._flips = rng.random() < augment.flip_probability
        self._operations = random_operations(
            rng, augment.random_operations, augment.size)
        self._color = None
        if augment.color_jitter > 0 or augment.hue_jitter > 0:
            self._color = ColorJitter(rng, augment.color_jitter,
                                      augment.hue_jitter)

    def apply(self, frame: DecodedFrame) -> np.ndarray:
        """Returns the view of a frame, uint8 [size, size, 3]."""
        size = self._settings.size
        pixels = (test_view(frame.rgb(), size, self._settings.test_resize)
                  if self._box is None else frame.crop(*self._box, size))
        if self._flips:
            pixels = cv2.flip(pixels, 1)
        for operation in self._operations:
            pixels = operation(pixels)
        return pixels if self._color is None else self._color.apply(pixels)


def train_view(frames: np.ndarray, rng: np.random.Generator,
               augment: Any) -> np.ndarray:
    """Applies a `TrainView` to uint8 [f, H, W, 3]; returns
    [f, size, size, 3]."""
    _, height, width, _ = frames.shape
    view = TrainView(height, width, rng, augment)
    return np.stack([view.apply(DecodedFrame(frame)) for frame in frames])


def random_resized_crop(height: int, width: int, rng: np.random.Generator,
                        area: tuple[float, float],
                        ratio: tuple[float, float]
                        ) -> tuple[int, int, int, int]:
    """Draws a box: top, left, height, width in pixels (Inception's rule).

    Its share of the frame's area lies in `area`, its aspect ratio
    (log-uniform) in `ratio`; after ten draws that do not fit, it is the whole
    frame.
    """
    for _ in range(10):
        target = rng.uniform(*area) * height * width
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width = round(math.sqrt(target * aspect))
        box_height = round(math.sqrt(target / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(rng.integers(0, height - box_height + 1))
            left = int(rng.integers(0, width - box_width + 1))
            return top, left, box_height, box_width
    return 0, 0, height, width


class ColorJitter:
    """Random changes of brightness, contrast and saturation, by factors within
    1 +- `strength`, and of the hue, within +- `hue` of a circle (in the YIQ
    plane): one 3 x 3 matrix and an offset."""

    def __init__(self, rng: np.random.Generator, strength: float,
                 hue: float = 0.0):
        brightness, contrast, saturation = rng.uniform(
            1 - strength, 1 + strength, 3)
        matrix = saturation * np.eye(3) + (1 - saturation) * _GRAY[None, :]
        if hue > 0:
            matrix = _hue_matrix(
                2 * math.pi * rng.uniform(-hue, hue)) @ matrix
        self._matrix = matrix * brightness * contrast
        self._offset = (1 - contrast) * brightness

    def apply(self, frame: np.ndarray) -> np.ndarray:
        """Returns the changed frame, uint8 [H, W, 3]."""
        # Contrast scales the distance from the mean gray of the frame.
        mean_gray = float(frame[::4, ::4].mean(axis=(0, 1)) @ _GRAY)
        offset = np.full((3, 1), self._offset * mean_gray)
        return cv2.transform(frame, np.hstack([self._matrix, offset]))


def _hue_matrix(angle: float) -> np.ndarray:
    """Turns the chroma plane of YIQ (NTSC); luma stays."""
    to_yiq = np.array([_GRAY, [0.5959, -0.2746, -0.3213],
                       [0.2115, -0.5227, 0.3112]])
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(to_yiq) @ turn @ to_yiq
