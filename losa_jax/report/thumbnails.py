"""Small pictures of moments of a video.

For people to look at: a picture may be some frames off where time stamps are
broken, and a moment that cannot be decoded has none. (Exact frames, for
models, are read by `losa_jax.data.video.decode`.)
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from losa_jax.report.document import data_uri

logger = logging.getLogger(__name__)

WIDTH_PIXELS, MAX_HEIGHT_PIXELS = 192, 192
JPEG_QUALITY = 78
# Decoding on is cheaper than a seek to a moment so close.
_SEEK_BEYOND_SECONDS = 2.0


def read_thumbnails(video: Path, moments: Sequence[float]) -> list[str]:
    """JPEG data URIs of the pictures shown at `moments` (seconds).

    Moments count from the first picture. An empty string stands for a
    picture that cannot be had; the log says why.
    """
    found = [""] * len(moments)
    order = sorted(range(len(moments)), key=lambda index: moments[index])
    try:
        # FFmpeg would take the relative path "12:30.mp4" for an address.
        with av.open(os.path.abspath(video), metadata_errors="ignore"
                     ) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            pictures = _Pictures(container, stream)
            for index in order:
                picture = pictures.at(moments[index])
                if picture is not None:
                    found[index] = data_uri(_jpeg(picture), "image/jpeg")
    except (FFmpegError, OSError, IndexError, ValueError) as error:
        logger.warning("%s: no more thumbnails (%s)", video, error)
    return found


class _Pictures:
    """Decodes forward, and seeks where the next moment is far ahead."""

    def __init__(self, container: InputContainer, stream: VideoStream):
        self._container, self._stream = container, stream
        self._decoded = container.decode(stream)
        self._shown: VideoFrame | None = None
        self._next = next(self._decoded, None)
        first = self._next.time if self._next is not None else None
        self._first_seconds = first or 0.0

    def at(self, moment: float) -> VideoFrame | None:
        """The picture on screen; `moment` never falls."""
        goal = moment + self._first_seconds
        upcoming = self._next
        if upcoming is None or upcoming.time is None:
            return self._shown or upcoming
        if goal - upcoming.time > _SEEK_BEYOND_SECONDS:
            self._container.seek(
                int(goal / (self._stream.time_base or 1)),
                stream=self._stream)
            self._decoded = self._container.decode(self._stream)
            self._next = next(self._decoded, None)
        # Half a frame's grace: a moment on a boundary is the later picture.
        while (self._next is not None and self._next.time is not None
               and self._next.time <= goal + 1e-3):
            self._shown, self._next = self._next, next(self._decoded, None)
        return self._shown or self._next


def _jpeg(picture: VideoFrame) -> bytes:
    height, width = picture.height, picture.width
    scale = min(WIDTH_PIXELS / width, MAX_HEIGHT_PIXELS / height, 1.0)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pixels = cv2.resize(picture.to_ndarray(format="bgr24"), size,
                        interpolation=cv2.INTER_AREA)
    upright = np.ascontiguousarray(
        np.rot90(pixels, round(picture.rotation / 90)))
    done, encoded = cv2.imencode(
        ".jpg", upright, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError("a picture that JPEG cannot hold")
    return encoded.tobytes()
