"""Pixels of a window: resize, crop, flip, colour; uint8 in, uint8 out.

One draw of the parameters serves all frames of a window (or of each clip,
as configured): an object must not jump between frames. Normalisation happens
on the device, where it is free.
"""

import math
from typing import Any

import cv2
import numpy as np

from losa_jax.errors import InputError

# Grain decodes several windows in parallel threads; OpenCV's own threads
# would fight them for the same cores.
cv2.setNumThreads(1)

TEST_RESIZES = ("short_crop", "squash")


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear (area when shrinking) resize of uint8 [f, H, W, 3]."""
    if frames.shape[1:3] == (height, width):
        return frames
    shrinks = height < frames.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (width, height), interpolation=method)
                     for frame in frames])


def test_view(frames: np.ndarray, size: int, resize: str) -> np.ndarray:
    """What testing sees: uint8 [f, size, size, 3].

    Args:
      frames: uint8 [f, H, W, 3].
      size: side in pixels.
      resize: "short_crop" scales the short side to `size` and cuts the
        centre (AdaTAD); "squash" scales both sides, so nothing at the border
        is lost but shapes are distorted.
    """
    if resize == "squash":
        return resize_frames(frames, size, size)
    if resize != "short_crop":
        raise InputError(f"config.augment.test_resize={resize!r}: choose one "
                         f"of {', '.join(TEST_RESIZES)}")
    _, height, width, _ = frames.shape
    scale = size / min(height, width)
    frames = resize_frames(frames, max(size, round(height * scale)),
                           max(size, round(width * scale)))
    top = (frames.shape[1] - size) // 2
    left = (frames.shape[2] - size) // 2
    return frames[:, top:top + size, left:left + size]


def train_view(frames: np.ndarray, rng: np.random.Generator,
               augment: Any) -> np.ndarray:
    """A random view of the frames, the same for all of them.

    Args:
      frames: uint8 [f, H, W, 3].
      rng: draws the parameters.
      augment: the config section `augment`.

    Returns:
      uint8 [f, size, size, 3].
    """
    size = augment.size
    if augment.random_crop:
        top, left, height, width = random_resized_crop(
            frames.shape[1], frames.shape[2], rng, tuple(augment.crop_area),
            tuple(augment.crop_ratio))
        frames = resize_frames(
            frames[:, top:top + height, left:left + width], size, size)
    else:
        frames = test_view(frames, size, augment.test_resize)
    if rng.random() < augment.flip_probability:
        frames = frames[:, :, ::-1]
    if augment.colour_jitter > 0:
        frames = jitter_colour(frames, rng, augment.colour_jitter)
    return np.ascontiguousarray(frames)


def random_resized_crop(height: int, width: int, rng: np.random.Generator,
                        area: tuple[float, float],
                        ratio: tuple[float, float]
                        ) -> tuple[int, int, int, int]:
    """A random box: top, left, height, width in pixels.

    Its share of the picture's area lies in `area`, its aspect ratio
    (log-uniform) in `ratio`; after ten draws that do not fit, the whole
    picture. The rule that image and video recipes share since Inception.
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


def jitter_colour(frames: np.ndarray, rng: np.random.Generator,
                  strength: float) -> np.ndarray:
    """Random brightness, contrast and saturation, each within 1 +- strength.

    All three are linear in the pixel, so they are one 3 x 3 matrix and an
    offset, applied by OpenCV in one pass.
    """
    brightness, contrast, saturation = rng.uniform(
        1 - strength, 1 + strength, 3)
    grey = np.array([0.299, 0.587, 0.114])
    matrix = saturation * np.eye(3) + (1 - saturation) * grey[None, :]
    matrix = matrix * brightness * contrast
    # Contrast turns about the mean grey of the whole window.
    mean_grey = brightness * float(
        frames[:, ::4, ::4].mean(axis=(0, 1, 2)) @ grey)
    affine = np.concatenate(
        [matrix, np.full((3, 1), (1 - contrast) * mean_grey)], axis=1)
    flat = np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3)
    # The transform saturates to 0..255 by itself.
    return cv2.transform(flat, affine).reshape(frames.shape)
