"""Samples of a video that has no end yet: a camera, a pipe, a growing file.

The time model is that of `losa_jax.data.video.decode`, at the rate that the
stream announces.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import ExitError, FFmpegError

from losa_jax import timeline
from losa_jax.data.video import container
from losa_jax.data.video.frame import upright_rgb, upright_size
from losa_jax.data.windows import augment
from losa_jax.errors import InputError
from losa_jax.utils import player_clock
from losa_jax.utils.file_type import link_to_nothing

logger = logging.getLogger(__name__)

STDIN, _CAMERAS = "-", "/dev/video"
# The frame count of a stream: more than any will have.
ENDLESS = 2 ** 53
# The shortest time to wait for an address: a camera may have to wake up.
_OPENING_SECONDS = 30.0
# How often a growing file is checked.
_LOOK_SECONDS = 0.2


class GrowingFile:
    """A file that is complete after some seconds without growth."""

    def __init__(self, path: Path, idle_seconds: float):
        """Opens the file."""
        self._file = open(path, "rb")
        self._idle_seconds, self._waited_seconds = idle_seconds, 0.0

    def read(self, size: int) -> bytes:
        """Returns the next bytes, at least one; none at the end."""
        while not (data := self._file.read(size)) and (
                self._waited_seconds < self._idle_seconds):
            time.sleep(_LOOK_SECONDS)
            self._waited_seconds += _LOOK_SECONDS
        if data:
            self._waited_seconds = 0.0
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class LiveVideo:
    """An open source of `fps` frames per second, which it announces. `grid` is
    endless; `seconds` is the length of what has been read."""

    def __init__(self, source: str, config: Any, *,
                 idle_seconds: float = 10.0):
        """Opens "-" (standard input), a device (/dev/video0), an address
        (rtsp://...), or a file, for a whole config.

        A file that does not grow, or an address that is silent, for
        `idle_seconds` has ended. InputError if it cannot be opened, or does
        not announce its rate.
        """
        window = config.window
        if window.sampling == "resize":
            raise InputError(
                "This run needs whole videos (config.window.sampling=resize), "
                "and this one has no end. Take a run with "
                "config.window.sampling=stride or fps.")
        self._name, self._settings = source, config.augment
        with contextlib.ExitStack() as closing:
            self._container = _open(source, idle_seconds, closing)
            self._stream = container.video_stream(self._container, source)
            self.fps = container.header_fps(self._stream)
            if not self.fps:
                raise InputError(f"{source}: announces no frame rate. Give a "
                                 "file or stream that does, as MPEG-TS or "
                                 "Matroska.")
            self._closing = closing.pop_all()
        self.grid = timeline.sample_grid(
            self.fps, ENDLESS, sampling=window.sampling,
            frame_stride=window.frame_stride, sample_fps=window.sample_fps)
        self.seconds = 0.0

    def samples(self) -> Iterator[np.ndarray]:
        """Yields test views, uint8 [size, size, 3], as they come; a stream
        that breaks off ends there, without an error."""
        first = current = view = None
        index = 0
        for seconds, frame in self._frames():
            if first is None:
                start = player_clock.start_seconds(self._container)
                first = seconds - player_clock.lead_frames(
                    self._name, start, seconds, self.fps) / self.fps
            # `current` is on screen until this frame comes.
            while current is not None and (
                    self.grid.frame_indices(np.array(index)) + 0.5
                    ) / self.fps < seconds - first:
                view = self._view(current) if view is None else view
                yield view
                index += 1
            current, view = frame, None
            self.seconds = seconds - first + 1 / self.fps
        if current is None:
            return
        frame_count = max(1, round(self.seconds * self.fps))
        complete = timeline.SampleGrid(self.fps, frame_count,
                                       self.grid.frames_per_sample)
        for _ in range(index, complete.num_samples):
            view = self._view(current) if view is None else view
            yield view

    def _frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yields (seconds, frame), rising; leaves out those out of order."""
        last = -np.inf
        try:
            for number, frame in enumerate(
                    self._container.decode(self._stream)):
                seconds = number / self.fps
                if frame.pts is not None:
                    seconds = container.stamp_seconds(frame.pts, self._stream)
                if seconds > last:
                    last = seconds
                    yield seconds, frame
        except FFmpegError as error:
            if last == -np.inf:
                raise _unreadable(self._name, error) from error
            if isinstance(error, ExitError):
                logger.info("%s: nothing more came", self._name)
            else:
                logger.warning("%s: broke off after %.1f s (%s)", self._name,
                               self.seconds, container.error_reason(error))

    def _view(self, frame: av.VideoFrame) -> np.ndarray:
        return augment.test_view(upright_rgb(frame, *upright_size(frame)),
                                 self._settings.size,
                                 self._settings.test_resize)

    def close(self) -> None:
        """Closes the source."""
        self._closing.close()


def check_source(source: str) -> None:
    """Raises InputError for the path of a file that does not exist."""
    path = Path(source)
    if source == STDIN or "://" in source or source.startswith(_CAMERAS) or (
            path.is_file()):
        return
    raise InputError(link_to_nothing(path) or (
        f"{source}: is a folder: name one video" if source and path.is_dir()
        else f"{source or 'an empty name'}: no such file: check the path"))


def _open(source: str, idle_seconds: float, closing: contextlib.ExitStack
          ) -> InputContainer:
    check_source(source)
    options: dict[str, Any] = {}
    target: Any = source
    if source == STDIN:
        target, options = sys.stdin.buffer, {"options": container.BYTES_ONLY}
    elif source.startswith(_CAMERAS):
        options = {"format": "v4l2"}
    elif "://" in source:
        # Without timeouts a datagram stream has no end.
        options = {"timeout": (max(_OPENING_SECONDS, idle_seconds),
                               max(_LOOK_SECONDS, idle_seconds))}
    else:
        target = closing.enter_context(contextlib.closing(
            GrowingFile(Path(source), idle_seconds)))
        options = {"options": container.BYTES_ONLY}
    try:
        return closing.enter_context(
            av.open(target, metadata_errors="ignore", **options))
    except (FFmpegError, OSError, ValueError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str, error: Exception) -> InputError:
    reason = ("nothing came" if isinstance(error, ExitError)
              else container.error_reason(error))
    remedy = ("Check the address and its sender; --idle_seconds waits longer."
              if "://" in source else
              "Give a stream, or a container that can be read from front to "
              "back (MPEG-TS, Matroska, fragmented MP4).")
    return InputError(f"{source}: cannot be read as it comes ({reason}). "
                      f"{remedy}")
