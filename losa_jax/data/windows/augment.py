"""Pixels of a window: resize, crop, flip, color; uint8 in, uint8 out.

One draw of the parameters serves all frames of a window (or of each clip,
as configured): an object must not jump between frames. Normalization happens
on the device, where it is free.
"""

import math
from typing import Any

import cv2
import numpy as np

from losa_jax.data.video.frame import CUT_STEP, Picture, View, resize_picture
from losa_jax.data.windows.random_operations import random_operations
from losa_jax.errors import InputError

# Grain decodes several windows in parallel threads; OpenCV's own threads
# would fight them for the same cores.
cv2.setNumThreads(1)

TEST_RESIZES = ("short_crop", "squash")


def test_picture(picture: np.ndarray, size: int, resize: str) -> np.ndarray:
    """What testing sees of one picture: uint8 [size, size, 3].

    Args:
      picture: uint8 [H, W, 3].
      size: side in pixels.
      resize: "short_crop" scales the short side to `size` and cuts the
        center (AdaTAD); "squash" scales both sides, so nothing at the border
        is lost but shapes are distorted.
    """
    if resize == "squash":
        return resize_picture(picture, size, size)
    if resize != "short_crop":
        raise InputError(f"config.augment.test_resize={resize!r}: choose one "
                         f"of {', '.join(TEST_RESIZES)}")
    height, width, _ = picture.shape
    scale = size / min(height, width)
    picture = resize_picture(picture, max(size, round(height * scale)),
                             max(size, round(width * scale)))
    top = (picture.shape[0] - size) // 2
    left = (picture.shape[1] - size) // 2
    return picture[top:top + size, left:left + size]


def test_view(frames: np.ndarray, size: int, resize: str) -> np.ndarray:
    """`test_picture` of frames, uint8 [f, H, W, 3] to [f, size, size, 3]."""
    return np.stack([test_picture(frame, size, resize) for frame in frames])


def as_tested(size: int, resize: str) -> View:
    """`test_picture` as a view."""
    def view(picture: Picture, place: int, out: np.ndarray) -> None:
        out[:] = test_picture(picture.rgb(), size, resize)
    return view


class TrainView:
    """A random view, the same for all frames it is shown.

    `picture` is applied to each while it is decoded, `finish` to all of them
    together: contrast turns about the mean of a whole window.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator,
                 augment: Any):
        """
        Args:
          height, width: of the pictures.
          rng: draws the parameters.
          augment: the config section `augment`.
        """
        self._settings = augment
        self._box = None
        if augment.random_crop:
            self._box = _on_pixels_of_color(random_resized_crop(
                height, width, rng, tuple(augment.crop_area),
                tuple(augment.crop_ratio)))
        self._flips = rng.random() < augment.flip_probability
        self._operations = random_operations(
            rng, augment.random_operations, augment.operation_magnitude,
            augment.size)
        self._rng = rng

    def picture(self, picture: Picture, out: np.ndarray) -> None:
        """Writes it into `out`, uint8 [size, size, 3]."""
        size, is_done = self._settings.size, False
        if self._box is not None:
            is_done = not (self._flips or self._operations)
            pixels = picture.cut(*self._box, size, out if is_done else None)
        else:
            pixels = test_picture(picture.rgb(), size,
                                  self._settings.test_resize)
        if self._flips:
            is_done = not self._operations
            pixels = cv2.flip(pixels, 1, dst=out if is_done else None)
        for operation in self._operations:
            pixels = operation(pixels)
        if not is_done:
            out[:] = pixels

    def finish(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [f, size, size, 3], all frames of the view."""
        settings = self._settings
        if settings.color_jitter > 0 or settings.hue_jitter > 0:
            frames = jitter_color(frames, self._rng, settings.color_jitter,
                                   settings.hue_jitter)
        return frames


def train_view(frames: np.ndarray, rng: np.random.Generator,
               augment: Any) -> np.ndarray:
    """A `TrainView` of frames, uint8 [f, H, W, 3] to [f, size, size, 3]."""
    _, height, width, _ = frames.shape
    view = TrainView(height, width, rng, augment)
    views = np.empty((len(frames), augment.size, augment.size, 3), np.uint8)
    for frame, out in zip(frames, views, strict=True):
        view.picture(Picture(frame), out)
    return view.finish(views)


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


def _on_pixels_of_color(box: tuple[int, int, int, int]
                         ) -> tuple[int, int, int, int]:
    """The box (top, left, height, width) moved by a pixel at most: see
    `Picture.cut`."""
    top, left, height, width = box
    return (top - top % CUT_STEP, left - left % CUT_STEP,
            max(CUT_STEP, height - height % CUT_STEP),
            max(CUT_STEP, width - width % CUT_STEP))


def jitter_color(frames: np.ndarray, rng: np.random.Generator,
                  strength: float, hue: float = 0.0) -> np.ndarray:
    """Random brightness, contrast and saturation, each within 1 +- strength,
    and a turn of the hue within +- `hue` of a circle.

    All are linear in the pixel (the hue is turned in the YIQ plane), so they
    are one 3 x 3 matrix and an offset, applied by OpenCV in one pass.
    """
    brightness, contrast, saturation = rng.uniform(
        1 - strength, 1 + strength, 3)
    gray = np.array([0.299, 0.587, 0.114])
    matrix = saturation * np.eye(3) + (1 - saturation) * gray[None, :]
    if hue > 0:
        matrix = _hue_matrix(2 * math.pi * rng.uniform(-hue, hue)) @ matrix
    matrix = matrix * brightness * contrast
    # Contrast turns about the mean gray of the whole window.
    mean_gray = brightness * float(
        frames[:, ::4, ::4].mean(axis=(0, 1, 2)) @ gray)
    affine = np.concatenate(
        [matrix, np.full((3, 1), (1 - contrast) * mean_gray)], axis=1)
    flat = np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3)
    # The transform saturates to 0..255 by itself.
    return cv2.transform(flat, affine).reshape(frames.shape)


def _hue_matrix(angle: float) -> np.ndarray:
    """Turns the color plane of YIQ (NTSC's), brightness stays."""
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213],
                       [0.2115, -0.5227, 0.3112]])
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.linalg.inv(to_yiq) @ turn @ to_yiq
