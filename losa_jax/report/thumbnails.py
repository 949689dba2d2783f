"""Small images of a video; some frames off where time stamps are broken."""

import base64
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

from losa_jax.errors import InputError
from losa_jax.utils import player_clock

logger = logging.getLogger(__name__)

MAX_SIDE_PIXELS, JPEG_QUALITY = 192, 78
# Up to this distance decoding is faster than a seek.
_SEEK_BEYOND_SECONDS = 2.0


def read_thumbnails(video: Path, moments: Sequence[float]) -> list[str]:
    """Returns JPEG data URIs of the frames shown at `moments`.

    Moments are seconds on the player's clock, in any order. From the first
    decoding error on, strings are empty; it is logged.
    """
    images = [""] * len(moments)
    order = sorted(range(len(moments)), key=lambda index: moments[index])
    try:
        # FFmpeg would take the relative path "12:30.mp4" for an address.
        with av.open(os.path.abspath(video), metadata_errors="ignore"
                     ) as container:
            frames = _Frames(container)
            for index in order:
                frame = frames.at(moments[index])
                if frame is not None:
                    images[index] = _jpeg_uri(frame)
    except (FFmpegError, OSError, IndexError, ValueError, InputError) as error:
        logger.warning("%s: no more thumbnails (%s)", video, error)
    return images


class _Frames:
    """Decodes forward, and seeks where the next moment is far ahead."""

    def __init__(self, container: InputContainer):
        self._container, self._stream = container, container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self._decoded = container.decode(self._stream)
        self._shown: VideoFrame | None = None
        self._next = next(self._decoded, None)
        first = self._next and self._next.time or 0.0
        fps = float(self._stream.average_rate or 1)
        start = player_clock.start_seconds(container)
        self._zero_seconds = first - player_clock.lead_frames(
            container.name, start, first, fps) / fps

    def at(self, moment: float) -> VideoFrame | None:
        """Returns the frame shown at `moment`, which never decreases."""
        goal = moment + self._zero_seconds
        if (self._next is not None and self._next.time is not None
                and goal - self._next.time > _SEEK_BEYOND_SECONDS):
            self._container.seek(int(goal / (self._stream.time_base or 1)),
                                 stream=self._stream)
            self._decoded = self._container.decode(self._stream)
            self._next = next(self._decoded, None)
        # With a tolerance: at a boundary the later frame is shown.
        while (self._next is not None and self._next.time is not None
               and self._next.time <= goal + 1e-3):
            self._shown, self._next = self._next, next(self._decoded, None)
        return self._shown or self._next


def _jpeg_uri(frame: VideoFrame) -> str:
    scale = min(MAX_SIDE_PIXELS / max(frame.width, frame.height), 1.0)
    size = (max(1, round(frame.width * scale)),
            max(1, round(frame.height * scale)))
    pixels = cv2.resize(frame.to_ndarray(format="bgr24"), size,
                        interpolation=cv2.INTER_AREA)
    upright = np.ascontiguousarray(
        np.rot90(pixels, round(frame.rotation / 90)))
    done, encoded = cv2.imencode(
        ".jpg", upright, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ValueError("a frame that cannot be encoded as JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.data).decode()}"
