"""Opening a video file, and the small facts about its pictures."""

import contextlib
import io
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

from losa_jax.data.records import EncodedVideo
from losa_jax.errors import InputError

# What to do with a damaged file; ends the messages about one.
MEND = "copy it again from its source or encode it anew"


# A "video" may be a playlist, or the description of a stream that FFmpeg
# would then wait for on the network. What lies in memory may open nothing,
# a file may name other files.
BYTES_ONLY = {"protocol_whitelist": "none"}
FILES_ONLY = {"protocol_whitelist": "file"}


@contextlib.contextmanager
def open_video(path: Path | EncodedVideo, threads: int = 1
               ) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and its first stream of moving pictures.

    Args:
      path: the file, or its bytes.
      threads: of the decoder.

    Raises:
      InputError: the file is missing, empty, or no video.
    """
    # FFmpeg would take the relative path "12:30.mp4" for an address.
    file = (io.BytesIO(path.content) if isinstance(path, EncodedVideo)
            else os.path.abspath(path))
    if isinstance(path, Path):
        _refuse_no_file(path)
    try:
        # A title may be in any encoding and must not stop us.
        container = av.open(
            file, "r", metadata_errors="ignore", options=(
                BYTES_ONLY if isinstance(path, EncodedVideo)
                else FILES_ONLY))
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a readable video "
                         f"({error_reason(error)}): {MEND}") from error
    with container:
        stream = moving_pictures(container, str(path))
        if stream.codec_context is None:
            raise InputError(f"{path}: its pictures are in no format that "
                             f"can be decoded here: {MEND}")
        set_threads(stream, threads)
        yield container, stream


def _refuse_no_file(path: Path) -> None:
    try:
        facts = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error_reason(error)}): "
                         "check the path and its permissions") from error
    if not stat.S_ISREG(facts.st_mode):
        raise InputError(f"{path}: not a file; name one video file")
    if facts.st_size == 0:
        raise InputError(f"{path}: the file is empty: {MEND}")


def moving_pictures(container: InputContainer, name: str) -> VideoStream:
    """The first stream of moving pictures.

    Raises:
      InputError: there is none.
    """
    for stream in container.streams.video:
        # The picture on the cover of an album is none.
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise InputError(f"{name}: the file has no video stream, only sound or "
                     "data: give a file with pictures")


def set_threads(stream: VideoStream, threads: int) -> None:
    """How many threads the decoder of a stream takes."""
    # Several windows are decoded side by side; threads inside each decoder
    # would only fight for the same cores.
    stream.thread_type = "AUTO" if threads > 1 else "NONE"
    stream.codec_context.thread_count = threads


def is_mp4(container: InputContainer) -> bool:
    """Whether the layout is MP4's, which MOV shares."""
    return "mp4" in container.format.name.split(",")


def is_avi(container: InputContainer) -> bool:
    """Whether the layout is AVI, whose time stamps are made up."""
    return container.format.name == "avi"


def header_rate(stream: VideoStream) -> float:
    """Frames a second by the header; 0 where it does not say."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def quarter_turns(picture: VideoFrame) -> int:
    """Counterclockwise quarter turns that set a stored picture upright."""
    return round(picture.rotation / 90)


def stamp_seconds(stamp: int, stream: VideoStream) -> float:
    """A time stamp on the clock of the file."""
    base = stream.time_base
    assert base is not None  # only before a file is read
    # Whole numbers round once, as Fraction does at twenty times the price.
    return stamp * base.numerator / base.denominator


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
