"""A decoded picture, turned into RGB as late and as small as possible.

Most files hold brightness at full size and color at half of it. A cut is
resized as it is stored, plane by plane, and turned into RGB afterwards: that
takes less time than FFmpeg's quick way to RGB and a resize of it, and is
nearer to the picture before it was encoded, since color is interpolated and
not repeated (benchmarks/augment_speed.py measures both).
"""

import functools
import threading
from collections.abc import Callable

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, VideoReformatter

from losa_jax.data.video.container import quarter_turns

# Three planes of bytes, color at the full or half the size.
_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p",
           "yuvj444p"}
# Shares of red and blue in the brightness by FFmpeg's number: ITU-R BT.709,
# BT.601 where the file does not say (as FFmpeg), BT.601 by two names.
_RED_BLUE = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114),
             6: (0.299, 0.114)}
# Edges of a cut that lie on these pixels lie on pixels of every plane.
CUT_STEP = 2

# One for all pictures of a thread: each holds buffers of some megabytes.
_thread = threading.local()


def resize_method(height: int, width: int, new_height: int, new_width: int
                  ) -> int:
    """OpenCV's method to make a picture of another size.

    Bilinear, as the published recipes; the mean over the area below half
    the size, where bilinear would jump over pixels. (The mean takes five
    times as long: benchmarks/augment_speed.py.)
    """
    shrinks = 2 * new_height < height or 2 * new_width < width
    return cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR


def resize_picture(pixels: np.ndarray, height: int, width: int
                   ) -> np.ndarray:
    """uint8 [H, W, 3] to [height, width, 3]."""
    old_height, old_width = pixels.shape[:2]
    if (old_height, old_width) == (height, width):
        return pixels
    return cv2.resize(
        pixels, (width, height), interpolation=resize_method(
            old_height, old_width, height, width))


class Picture:
    """An upright picture of a video, or of RGB.

    Attributes:
      height, width: in pixels.
    """

    def __init__(self, stored: VideoFrame | np.ndarray):
        """
        Args:
          stored: uint8 [H, W, 3], RGB; or a frame for which `is_planar`.
        """
        self._stored = stored
        if isinstance(stored, VideoFrame):
            self.height, self.width = stored.height, stored.width
        else:
            self.height, self.width = stored.shape[:2]

    def rgb(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        if isinstance(self._stored, np.ndarray):
            return self._stored
        return _converted(self._stored).to_ndarray()

    def cut(self, top: int, left: int, height: int, width: int, size: int,
            out: np.ndarray | None = None) -> np.ndarray:
        """A box of the picture as uint8 [size, size, 3].

        Args:
          top, left, height, width: in pixels, multiples of `CUT_STEP`.
          size: side of the result in pixels.
          out: where it is written; None makes new memory.
        """
        if isinstance(self._stored, np.ndarray):
            box = self._stored[top:top + height, left:left + width]
            pixels = resize_picture(box, size, size)
            if out is None:
                return pixels
            out[:] = pixels
            return out
        method = resize_method(height, width, size, size)
        resized = []
        for plane in map(_pixels, self._stored.planes):
            down = 1 if plane.shape[0] == self.height else 2
            across = 1 if plane.shape[1] == self.width else 2
            resized.append(cv2.resize(
                plane[top // down:(top + height) // down,
                      left // across:(left + width) // across],
                (size, size), interpolation=method))
        return cv2.transform(cv2.merge(resized), _to_rgb(
            self._stored.colorspace, _is_full_range(self._stored)), dst=out)

    def kept(self) -> "Picture":
        """The same in memory of its own, not the decoder's."""
        if isinstance(self._stored, np.ndarray):
            return Picture(self._stored.copy())
        copy = _like(self._stored, self.height, self.width)
        for plane, target in zip(self._stored.planes, copy.planes,
                                 strict=True):
            _pixels(target)[:] = _pixels(plane)
        return Picture(copy)


# Writes what is to be seen of a picture at place i of a window into
# uint8 [size, size, 3].
View = Callable[[Picture, int, np.ndarray], None]


def is_planar(frame: VideoFrame) -> bool:
    """Whether a `Picture` can be made of it without turning it into RGB."""
    return (frame.format.name in _PLANAR and not frame.rotation
            and frame.colorspace in _RED_BLUE
            and frame.planes[0].line_size > 0)  # else stored upside down


def upright_rgb(frame: VideoFrame, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3] of a decoded frame."""
    turns = quarter_turns(frame)
    if turns % 2:
        height, width = width, height
    # OpenCV takes no pictures that are read backwards.
    return np.ascontiguousarray(np.rot90(
        _converted(frame, height, width).to_ndarray(), turns))


def _converted(frame: VideoFrame, height: int | None = None,
               width: int | None = None) -> VideoFrame:
    reformatter = getattr(_thread, "reformatter", None)
    if reformatter is None:
        reformatter = _thread.reformatter = VideoReformatter()
    return reformatter.reformat(
        frame, width=width, height=height, format="rgb24",
        interpolation="BILINEAR", threads=1)


def _pixels(plane: VideoPlane) -> np.ndarray:
    """uint8 [height, width] of a plane, the same memory."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(
        -1, plane.line_size)[:plane.height, :plane.width]


def _like(frame: VideoFrame, height: int, width: int) -> VideoFrame:
    """An empty frame of the same colors."""
    new = VideoFrame(width, height, frame.format.name)
    new.colorspace, new.color_range = frame.colorspace, frame.color_range
    return new


def _is_full_range(frame: VideoFrame) -> bool:
    return (frame.color_range == ColorRange.JPEG
            or frame.format.name.startswith("yuvj"))


@functools.cache
def _to_rgb(colorspace: int, is_full_range: bool) -> np.ndarray:
    """[3, 4] from bytes of brightness and two colors, and 1, to RGB."""
    red, blue = _RED_BLUE[colorspace]
    green = 1 - red - blue
    # Bytes run from 16 to 235, and colors to 240, or use all values.
    bright, color, black = ((1, 1, 0) if is_full_range
                             else (255 / 219, 255 / 224, 16))
    matrix = np.array([
        [bright, 0, 2 * (1 - red) * color],
        [bright, -2 * blue * (1 - blue) / green * color,
         -2 * red * (1 - red) / green * color],
        [bright, 2 * (1 - blue) * color, 0]])
    offset = matrix @ [-black, -128, -128]
    return np.concatenate([matrix, offset[:, None]], axis=1)
