"""Parts of video files for a browser, and frames where it cannot play them."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2

from losa_jax.data.records import VideoInfo
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.frame import DecodedFrame
from losa_jax.data.video.probe import probe_video

# Python reads no numbers of thousands of digits.
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
# Frames are for looking at: larger ones are scaled down.
_MAX_SIDE_PIXELS, _JPEG_QUALITY = 960, 82
# Up to this distance, decoding on is faster than a seek.
_SEEK_BEYOND_FRAMES = 60


class ByteRange(NamedTuple):
    """A part of a file; `is_part` is False without a request for one."""

    first: int
    last: int  # included
    is_part: bool


def byte_range(header: str | None, num_bytes: int) -> ByteRange | None:
    """Returns the part that a Range header asks for; None where the file has
    no such part. Several parts, and other units, are answered by the whole
    file, which HTTP allows."""
    whole = ByteRange(0, num_bytes - 1, False)
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return whole
    first, last = match.groups()
    if not first:  # the last bytes
        count = min(int(last), num_bytes)
        return ByteRange(num_bytes - count, num_bytes - 1, True) if (
            count) else None
    if int(first) >= num_bytes or (last and int(last) < int(first)):
        return None
    return ByteRange(int(first), min(int(last or num_bytes), num_bytes - 1),
                     True)


class FrameReader:
    """Decodes frames of videos one at a time, for any thread.

    It keeps the last video open, so that frames in a row need no seek.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._infos: dict[Path, VideoInfo] = {}
        self._path: Path | None = None
        self._frames: Iterator[DecodedFrame] = iter(())
        self._next = 0  # index of the frame that `_frames` yields next
        self._last: DecodedFrame | None = None

    def check(self, path: Path) -> None:
        """Raises InputError unless a file is a video; does not wait for a
        frame that is being decoded."""
        self._info(path)

    def _info(self, path: Path) -> VideoInfo:
        if path not in self._infos:
            self._infos[path] = probe_video(path, check="none")
        return self._infos[path]

    def jpeg(self, path: Path, seconds: float) -> bytes:
        """Returns the frame shown at a time, or the nearest one; InputError
        where it cannot be decoded."""
        with self._lock:
            info = self._info(path)
            # At the end of a frame the next one is shown.
            index = min(max(int(seconds * info.fps + 1e-3), 0),
                        info.frame_count - 1)
            frame = self._frame(path, index, info)
            scale = min(_MAX_SIDE_PIXELS / max(info.width, info.height), 1.0)
            pixels = cv2.resize(
                cv2.cvtColor(frame.rgb(), cv2.COLOR_RGB2BGR),
                (max(1, round(info.width * scale)),
                 max(1, round(info.height * scale))),
                interpolation=cv2.INTER_AREA)
        _, encoded = cv2.imencode(
            ".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        return encoded.tobytes()

    def _frame(self, path: Path, index: int, info: VideoInfo) -> DecodedFrame:
        ahead = index - self._next
        if path == self._path and ahead == -1 and self._last is not None:
            return self._last
        if path != self._path or not 0 <= ahead <= _SEEK_BEYOND_FRAMES:
            self._path, self._next = path, index
            self._frames = iterate_frames(
                path, range(index, info.frame_count), info)
        self._path = None  # if the decoder fails
        while self._next <= index:
            frame = next(self._frames)
            self._next += 1
        self._path, self._last = path, frame.copy()
        return self._last
