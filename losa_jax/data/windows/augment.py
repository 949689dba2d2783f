"""Pixels of a window: resize, crop, flip, color; uint8 in, uint8 out.

Random values are drawn once for all frames of a window (or of each clip, as
configured): an object must not jump between frames. Normalization happens on
the device.
"""

import math
from typing import Any

import cv2
import numpy as np

from losa_jax.data.video.frame import CROP_STEP, DecodedFrame, resize_frame
from losa_jax.data.windows.random_operations import random_operations
from losa_jax.errors import InputError

# Windows are decoded in parallel threads; OpenCV's own threads would compete
# for the same cores.
cv2.setNumThreads(1)

TEST_RESIZES = ("short_crop", "squash")
_GRAY = np.array([0.299, 0.587, 0.114])


def test_view(frame: np.ndarray, size: int, resize: str) -> np.ndarray:
    """Returns what testing sees of a frame: uint8 [size, size, 3].

    Args:
      frame: uint8 [H, W, 3].
      resize: "short_crop" scales the short side to `size` and crops the
        center (AdaTAD); "squash" scales both sides, so nothing at the border
        is lost but shapes are distorted.
    """
    if resize == "squash":
        return resize_frame(frame, size, size)
    if resize != "short_crop":
        raise InputError(f"config.augment.test_resize={resize!r}: choose one "
                         f"of {', '.join(TEST_RESIZES)}")
    height, width, _ = frame.shape
    scale = size / min(height, width)
    frame = resize_frame(frame, max(size, round(height * scale)),
                         max(size, round(width * scale)))
    top = (frame.shape[0] - size) // 2
    left = (frame.shape[1] - size) // 2
    return frame[top:top + size, left:left + size]


class TrainView:
    """A random view, the same for all frames.

    `apply` handles each frame while the video is decoded, `finish` all of
    them together, because contrast depends on the mean of the window.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator,
                 augment: Any):
        """Draws the view of frames of a size in pixels, for the config section
        `augment`."""
        self._settings = augment
        self._box = None
        if augment.random_crop:
            top, left, height, width = random_resized_crop(
                height, width, rng, tuple(augment.crop_area),
                tuple(augment.crop_ratio))
            # Moved by a pixel at most, see `DecodedFrame.crop`.
            self._box = (top - top % CROP_STEP, left - left % CROP_STEP,
                         max(CROP_STEP, height - height % CROP_STEP),
                         max(CROP_STEP, width - width % CROP_STEP))
        self._flips = rng.random() < augment.flip_probability
        self._operations = random_operations(
            rng, augment.random_operations, augment.operation_magnitude,
            augment.size)
        self._rng = rng

    def apply(self, frame: DecodedFrame, out: np.ndarray) -> None:
        """Writes the view of a frame into `out`, uint8 [size, size, 3]."""
        # The last step writes into `out` itself where it can.
        size, is_done = self._settings.size, False
        if self._box is not None:
            is_done = not (self._flips or self._operations)
            pixels = frame.crop(*self._box, size, out if is_done else None)
        else:
            pixels = test_view(frame.rgb(), size, self._settings.test_resize)
        if self._flips:
            is_done = not self._operations
            pixels = cv2.flip(pixels, 1, dst=out if is_done else None)
        for operation in self._operations:
            pixels = operation(pixels)
        if not is_done:
            out[:] = pixels

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """Jitters the color of all frames, uint8 [f, size, size, 3]; returns
        the argument if there is nothing to do."""
        settings = self._settings
        if settings.color_jitter > 0 or settings.hue_jitter > 0:
            frames = jitter_color(frames, self._rng, settings.color_jitter,
                                  settings.hue_jitter)
        return frames


def train_view(frames: np.ndarray, rng: np.random.Generator,
               augment: Any) -> np.ndarray:
    """Applies a `TrainView` to uint8 [f, H, W, 3]; returns
    [f, size, size, 3]."""
    _, height, width, _ = frames.shape
    view = TrainView(height, width, rng, augment)
    views = np.empty((len(frames), augment.size, augment.size, 3), np.uint8)
    for frame, out in zip(frames, views, strict=True):
        view.apply(DecodedFrame(frame), out)
    return view.finish(views)


def random_resized_crop(height: int, width: int, rng: np.random.Generator,
                        area: tuple[float, float],
                        ratio: tuple[float, float]
                        ) -> tuple[int, int, int, int]:
    """Draws a box: top, left, height, width in pixels.

    Its share of the frame's area lies in `area`, its aspect ratio
    (log-uniform) in `ratio`; after ten draws that do not fit, it is the whole
    frame. Image and video recipes have used this rule since Inception.
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


def jitter_color(frames: np.ndarray, rng: np.random.Generator,
                 strength: float, hue: float = 0.0) -> np.ndarray:
    """Changes brightness, contrast and saturation by random factors within
    1 +- strength, and turns the hue within +- `hue` of a circle.

    All are linear in the pixel (the hue is turned in the YIQ plane), so they
    are one 3 x 3 matrix and an offset, applied by OpenCV in one pass.
    """
    brightness, contrast, saturation = rng.uniform(
        1 - strength, 1 + strength, 3)
    matrix = saturation * np.eye(3) + (1 - saturation) * _GRAY[None, :]
    if hue > 0:
        matrix = _hue_matrix(2 * math.pi * rng.uniform(-hue, hue)) @ matrix
    matrix = matrix * brightness * contrast
    # Contrast scales the distance from the mean gray of the whole window.
    mean_gray = brightness * float(
        frames[:, ::4, ::4].mean(axis=(0, 1, 2)) @ _GRAY)
    affine = np.concatenate(
        [matrix, np.full((3, 1), (1 - contrast) * mean_gray)], axis=1)
    flat = np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3)
    # The transform saturates to 0..255 by itself.
    return cv2.transform(flat, affine).reshape(frames.shape)


def _hue_matrix(angle: float) -> np.ndarray:
    """Turns the chroma plane of YIQ (NTSC); luma stays."""
    to_yiq = np.array([_GRAY, [0.5959, -0.2746, -0.3213],
                       [0.2115, -0.5227, 0.3112]])
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(to_yiq) @ turn @ to_yiq
