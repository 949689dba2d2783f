"""Opening a video file, and the small facts about its pictures."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from losa_jax.errors import InputError

# What to do with a damaged file; ends the messages about one.
MEND = "copy it again from its source or encode it anew"


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and its first stream of moving pictures.

    Raises:
      InputError: the file is missing, empty, or no video.
    """
    try:
        facts = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error_reason(error)}): "
                         "check the path and its permissions") from error
    if not stat.S_ISREG(facts.st_mode):
        raise InputError(f"{path}: not a file; name one video file")
    if facts.st_size == 0:
        raise InputError(f"{path}: the file is empty: {MEND}")
    try:
        # A title may be in any encoding and must not stop us. FFmpeg would
        # take the relative path "12:30.mp4" for an address.
        container = av.open(os.path.abspath(path), metadata_errors="ignore")
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a readable video "
                         f"({error_reason(error)}): {MEND}") from error
    with container:
        stream = next(  # the picture on the cover of an album is none
            (stream for stream in container.streams.video
             if not stream.disposition & Disposition.attached_pic), None)
        if stream is None:
            raise InputError(f"{path}: the file has no video stream, only "
                             "sound or data: give a file with pictures")
        if stream.codec_context is None:
            raise InputError(f"{path}: its pictures are in no format that "
                             f"can be decoded here: {MEND}")
        # Several windows are decoded side by side; threads inside each
        # decoder would only fight for the same cores.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield container, stream


def quarter_turns(picture: VideoFrame) -> int:
    """Counterclockwise quarter turns that set a stored picture upright."""
    return round(picture.rotation / 90)


def stamp_seconds(stamp: int, stream: VideoStream) -> float:
    """A time stamp on the clock of the file."""
    return float(stamp * stream.time_base)


def decode_packets(packets: Iterable[Packet]) -> Iterator[VideoFrame]:
    """Pictures in order of display.

    Raises:
      FFmpegError: a packet is damaged.
    """
    for packet in packets:
        yield from packet.decode()


def error_reason(error: object) -> str:
    """An error of FFmpeg or the system without its number and file name."""
    return getattr(error, "strerror", None) or str(error)
