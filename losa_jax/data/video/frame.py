"""A decoded frame, converted to RGB as late and as small as possible.

A crop is resized as it is stored, plane by plane, and converted to RGB
afterwards. That takes less time than FFmpeg's conversion to RGB followed by a
resize, and is closer to the frame before it was encoded, because chroma is
interpolated and not repeated (benchmarks/augment_speed.py measures both).
"""

import functools
import threading

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, VideoReformatter

# Planes of bytes, chroma at full or half size.
_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p",
           "yuvj444p"}
# Weights of red and blue in luma by FFmpeg's number of the color space: ITU-R
# BT.709, unspecified (BT.601, as in FFmpeg), and BT.601 under two names.
_RED_BLUE = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114),
             6: (0.299, 0.114)}
# Multiples of this lie on pixels of every plane.
CROP_STEP = 2

# Each reformatter holds some megabytes of buffers: one for each thread.
_thread = threading.local()


def resize_method(height: int, width: int, new_height: int, new_width: int
                  ) -> int:
    """Returns OpenCV's bilinear interpolation, as in the published recipes, or
    the mean over the area below half the size, where it would skip pixels."""
    shrinks = 2 * new_height < height or 2 * new_width < width
    return cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR


def resize_frame(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 [H, W, 3] to [height, width, 3]."""
    old_height, old_width = pixels.shape[:2]
    if (old_height, old_width) == (height, width):
        return pixels
    return cv2.resize(
        pixels, (width, height), interpolation=resize_method(
            old_height, old_width, height, width))


class DecodedFrame:
    """An upright frame, stored as decoded planes or as RGB."""

    def __init__(self, stored: av.VideoFrame | np.ndarray):
        """Takes uint8 [H, W, 3], RGB, or a frame for which `is_planar`."""
        self._stored = stored

    def rgb(self) -> np.ndarray:
        """Returns uint8 [H, W, 3]."""
        if isinstance(self._stored, np.ndarray):
            return self._stored
        return _converted(self._stored).to_ndarray()

    def crop(self, top: int, left: int, height: int, width: int, size: int
             ) -> np.ndarray:
        """Resizes a box, in pixels and multiples of `CROP_STEP`, to
        uint8 [size, size, 3]."""
        stored = self._stored
        if isinstance(stored, np.ndarray):
            return resize_frame(
                stored[top:top + height, left:left + width], size, size)
        method = resize_method(height, width, size, size)
        resized = []
        for plane in map(_pixels, stored.planes):
            down = 1 if plane.shape[0] == stored.height else 2
            across = 1 if plane.shape[1] == stored.width else 2
            resized.append(cv2.resize(
                plane[top // down:(top + height) // down,
                      left // across:(left + width) // across],
                (size, size), interpolation=method))
        is_full_range = (stored.color_range == ColorRange.JPEG
                         or stored.format.name.startswith("yuvj"))
        return cv2.transform(cv2.merge(resized), _to_rgb(
            stored.colorspace, is_full_range))

    def copy(self) -> "DecodedFrame":
        """Returns the frame in memory of its own, not the decoder's."""
        stored = self._stored
        if isinstance(stored, np.ndarray):
            return DecodedFrame(stored.copy())
        new = av.VideoFrame(stored.width, stored.height, stored.format.name)
        new.colorspace, new.color_range = stored.colorspace, stored.color_range
        for plane, target in zip(stored.planes, new.planes, strict=True):
            _pixels(target)[:] = _pixels(plane)
        return DecodedFrame(new)


def is_planar(frame: av.VideoFrame) -> bool:
    """Whether a `DecodedFrame` can hold the frame without conversion."""
    return (frame.format.name in _PLANAR and not frame.rotation
            and frame.colorspace in _RED_BLUE
            and frame.planes[0].line_size > 0)  # else stored upside down


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Returns height and width of a stored frame once it is upright."""
    is_turned = round(frame.rotation / 90) % 2 == 1
    return ((frame.width, frame.height) if is_turned
            else (frame.height, frame.width))


def upright_rgb(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    """Converts a decoded frame to uint8 [height, width, 3]."""
    turns = round(frame.rotation / 90)  # counterclockwise
    if turns % 2:
        height, width = width, height
    # OpenCV accepts no negative strides.
    return np.ascontiguousarray(np.rot90(
        _converted(frame, height, width).to_ndarray(), turns))


def _converted(frame: av.VideoFrame, height: int | None = None,
               width: int | None = None) -> av.VideoFrame:
    reformatter = getattr(_thread, "reformatter", None)
    if reformatter is None:
        reformatter = _thread.reformatter = VideoReformatter()
    return reformatter.reformat(
        frame, width=width, height=height, format="rgb24",
        interpolation="BILINEAR", threads=1)


def _pixels(plane: VideoPlane) -> np.ndarray:
    """uint8 [height, width] in the memory of a plane."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(
        -1, plane.line_size)[:plane.height, :plane.width]


@functools.cache
def _to_rgb(colorspace: int, is_full_range: bool) -> np.ndarray:
    """[3, 4], from bytes of luma, two chromas, and 1, to RGB."""
    red, blue = _RED_BLUE[colorspace]
    green = 1 - red - blue
    # Limited range: luma from 16 to 235, chroma from 16 to 240.
    luma, chroma, black = ((1, 1, 0) if is_full_range
                           else (255 / 219, 255 / 224, 16))
    matrix = np.array([
        [luma, 0, 2 * (1 - red) * chroma],
        [luma, -2 * blue * (1 - blue) / green * chroma,
         -2 * red * (1 - red) / green * chroma],
        [luma, 2 * (1 - blue) * chroma, 0]])
    offset = matrix @ [-black, -128, -128]
    return np.concatenate([matrix, offset[:, None]], axis=1)
