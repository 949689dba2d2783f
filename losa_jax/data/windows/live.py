"""Samples of a video that has no end yet: a camera, a pipe, a growing file.

The clock is that of `losa_jax.data.video.decode`, from the first picture on;
the rate is the one that the stream announces.
"""

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import ExitError, FFmpegError
from av.video.frame import VideoFrame

from losa_jax import timeline
from losa_jax.data.video.container import (
    BYTES_ONLY,
    decode_packets,
    error_reason,
    moving_pictures,
    quarter_turns,
    stamp_seconds,
)
from losa_jax.data.video.frame import upright_rgb
from losa_jax.data.windows import augment
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

STDIN = "-"
# A stream's frame count: more than any will have.
ENDLESS = 2 ** 53
# At least so long an address is waited for: a camera may have to wake up.
_OPENING_SECONDS = 30.0
# How often a file is looked at that may have grown.
_LOOK_SECONDS = 0.2


class GrowingFile:
    """A file that somebody writes; its end is where it stops growing."""

    def __init__(self, path: Path, idle_seconds: float,
                 sleep: Callable[[float], None] = time.sleep):
        """
        Args:
          path: must exist.
          idle_seconds: without growth, after which the file counts as whole.
          sleep: waits for so many seconds.
        """
        self._file = open(path, "rb")
        self._idle_seconds, self._sleep = idle_seconds, sleep
        self._is_whole = False

    def read(self, size: int) -> bytes:
        """The next bytes, at least one; none at the end."""
        waited = 0.0
        while not (data := self._file.read(size)):
            self._is_whole |= waited >= self._idle_seconds
            if self._is_whole:
                return b""
            self._sleep(_LOOK_SECONDS)
            waited += _LOOK_SECONDS
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class LiveVideo:
    """A source of pictures, opened.

    Attributes:
      name: what to call it.
      fps: that it announces.
      grid: its samples, as if it had no end.
    """

    def __init__(self, source: str, config: Any, *,
                 idle_seconds: float = 10.0):
        """
        Args:
          source: "-", a device (/dev/video0), an address (rtsp://...), or a
            file.
          config: the whole config (sections `window`, `augment`).
          idle_seconds: see `GrowingFile`; an address that is silent for so
            long is at its end too.

        Raises:
          InputError: it cannot be opened, or does not tell its rate.
        """
        if config.window.sampling == "resize":
            raise InputError(
                "this run looks at whole videos at once (config.window."
                "sampling=resize), and this one has no end: take a run "
                "with config.window.sampling=stride or fps")
        self.name = source
        self._settings = config.augment
        with contextlib.ExitStack() as closing:
            self._container = _open(source, idle_seconds, closing)
            self._stream = moving_pictures(self._container, source)
            self.fps = float(self._stream.average_rate
                             or self._stream.guessed_rate or 0)
            if not self.fps:
                raise InputError(f"{source}: does not tell how many frames "
                                 "a second it has: give a file or stream "
                                 "that does, as MPEG-TS or Matroska")
            self._closing = closing.pop_all()
        window = config.window
        self.grid = timeline.sample_grid(
            self.fps, ENDLESS, sampling=window.sampling,
            frame_stride=window.frame_stride, sample_fps=window.sample_fps)
        self.seconds = 0.0

    def samples(self) -> Iterator[np.ndarray]:
        """As testing sees them, uint8 [size, size, 3], as they come.

        A stream that breaks off ends there: what was seen counts.
        """
        first = current = view = None
        index, moment, since = 0, self._moment(0), 0.0
        for seconds, picture in self._pictures():
            first = seconds if first is None else first
            # `current` is on screen until this one comes.
            while current is not None and moment < seconds - first:
                if view is None:
                    view = self._view(current)
                yield view
                index += 1
                moment = self._moment(index)
            current, view, since = picture, None, seconds - first
            self.seconds = since + 1 / self.fps
        if current is None:
            return
        frame_count = max(1, round(self.seconds * self.fps))
        whole = timeline.SampleGrid(self.fps, frame_count,
                                    self.grid.frames_per_sample)
        for _ in range(index, whole.num_samples):
            view = self._view(current) if view is None else view
            yield view

    def _moment(self, sample_index: int) -> float:
        """When a sample is looked at, seconds from the first picture."""
        frame = math.floor(
            (sample_index + 0.5) * self.grid.frames_per_sample + 1e-6)
        return (frame + 0.5) / self.fps

    def _pictures(self) -> Iterator[tuple[float, VideoFrame]]:
        """(seconds, picture), rising; those out of order are left out."""
        last = -math.inf
        try:
            for number, picture in enumerate(
                    decode_packets(self._container.demux(self._stream))):
                seconds = (number / self.fps if picture.pts is None
                           else stamp_seconds(picture.pts, self._stream))
                if seconds > last:
                    last = seconds
                    yield seconds, picture
        except FFmpegError as error:
            if last == -math.inf:
                raise _unreadable(self.name, error) from error
            if isinstance(error, ExitError):
                logger.info("%s: nothing more came", self.name)
                return
            logger.warning("%s: broke off after %.1f s (%s)", self.name,
                           self.seconds, error_reason(error))

    def _view(self, picture: VideoFrame) -> np.ndarray:
        height, width = picture.height, picture.width
        if quarter_turns(picture) % 2:
            height, width = width, height
        pixels = upright_rgb(picture, height, width)
        return augment.test_view(pixels[None], self._settings.size,
                                 self._settings.test_resize)[0]

    def close(self) -> None:
        """Closes the source."""
        self._closing.close()


def _open(source: str, idle_seconds: float, closing: contextlib.ExitStack
          ) -> InputContainer:
    options: dict[str, Any] = {}
    target: Any = source
    if source == STDIN:
        target, options = sys.stdin.buffer, {"options": BYTES_ONLY}
    elif source.startswith("/dev/video"):
        options = {"format": "v4l2"}
    elif "://" in source:
        # Else a datagram stream has no end, and one that hangs hears no
        # signal.
        options = {"timeout": (max(_OPENING_SECONDS, idle_seconds),
                               max(_LOOK_SECONDS, idle_seconds))}
    else:
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{source}: no such file: check the path")
        target = GrowingFile(path, idle_seconds)
        options = {"options": BYTES_ONLY}
        closing.callback(target.close)
    try:
        return closing.enter_context(
            av.open(target, metadata_errors="ignore", **options))
    except (FFmpegError, OSError, ValueError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str, error: Exception) -> InputError:
    reason = error_reason(error)
    if "://" in source:
        if isinstance(error, ExitError):
            reason = "nothing came"
        return InputError(
            f"{source}: cannot be read as it comes ({reason}): check the "
            "address and its sender; --idle_seconds waits longer")
    return InputError(
        f"{source}: cannot be read as it comes ({reason}): give "
        "a stream, or a container that can be read from front to back "
        "(MPEG-TS, Matroska, fragmented MP4)")
