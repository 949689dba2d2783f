"""Opens video files and reads what their containers say."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from losa_jax.data.records import EncodedVideo
from losa_jax.errors import InputError
from losa_jax.utils.file_type import link_to_nothing, misplaced

# A "video" may be a playlist, or name a stream on the network.
BYTES_ONLY = {"protocol_whitelist": "none"}
FILES_ONLY = {"protocol_whitelist": "file"}
# What FFmpeg decodes to frames, though it is no video; and `*_pipe`.
_TEXT_FORMATS = ("tty", "bin", "xbin", "adf", "idf")
_PLAYLISTS = (".m3u8", ".m3u")


class VideoDecodeError(InputError):
    """A video, or a frame of it, cannot be read."""


@contextlib.contextmanager
def open_video(path: Path | EncodedVideo, threads: int = 1
               ) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """Opens a file and its first video stream; `threads` are the decoder's.
    VideoDecodeError if it is missing, empty, or no video."""
    if isinstance(path, EncodedVideo):
        file: io.BytesIO | str = io.BytesIO(path.content)
        options = BYTES_ONLY
    else:
        _require_file(path)
        # FFmpeg would take the relative path "12:30.mp4" for an address.
        file, options = os.path.abspath(path), FILES_ONLY
    try:
        # A title may be in any encoding.
        container = av.open(file, "r", metadata_errors="ignore",
                            options=options)
    except (FFmpegError, OSError) as error:
        if not isinstance(path, EncodedVideo) and (reason := misplaced(
                path, "a video", "a readable video",
                "give a file with frames")):
            raise VideoDecodeError(reason) from error
        raise damaged(path, "not a readable video", error) from error
    with container:
        stream = video_stream(container, str(path))
        if stream.codec_context is None:
            raise damaged(path, "no decoder is installed for its format")
        # Windows are decoded in parallel; more threads inside each decoder
        # would compete for the same cores.
        stream.thread_type = "AUTO" if threads > 1 else "NONE"
        stream.codec_context.thread_count = threads
        yield container, stream


def _require_file(path: Path) -> None:
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        if reason := link_to_nothing(path):
            raise VideoDecodeError(reason) from error
        raise VideoDecodeError(
            f"{path}: cannot be opened ({error_reason(error)}). Check the "
            "path and its permissions.") from error
    if not path.is_file():
        raise VideoDecodeError(f"{path}: not a file. Name one video file.")
    if not num_bytes:
        raise damaged(path, "the file is empty")
    if path.suffix.lower() in _PLAYLISTS and (
            b"#EXT-X-ENDLIST" not in path.read_bytes()):
        # FFmpeg would wait for the next entries for ever.
        raise VideoDecodeError(f"{path}: a playlist without an end. Give the "
                               "files that it lists.")


def video_stream(container: InputContainer, name: str) -> av.VideoStream:
    """Returns the first video stream that is no album cover; VideoDecodeError
    if there is none, or it is a text or a single image."""
    format_name = container.format.name
    for stream in container.streams.video:
        if format_name in _TEXT_FORMATS:
            raise VideoDecodeError(f"{name}: not a readable video but text. "
                                   "Give a file with frames.")
        if format_name == "image2" or format_name.endswith("_pipe") or (
                format_name == "gif" and stream.frames == 1):
            raise VideoDecodeError(f"{name}: not a readable video but an "
                                   "image. Give a file with several frames.")
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise VideoDecodeError(f"{name}: the file has no video stream, only sound "
                           "or data. Give a file with frames.")


def header_fps(stream: av.VideoStream) -> float:
    """Frames per second in the header; 0 where it gives none."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def stamp_seconds(stamp: int, stream: av.VideoStream) -> float:
    """Converts a time stamp to seconds on the clock of the file."""
    base = stream.time_base
    assert base is not None  # only before a file is read
    # As exact as Fraction, in a twentieth of the time.
    return stamp * base.numerator / base.denominator


def damaged(path: Path | EncodedVideo, problem: str,
            error: object = None) -> VideoDecodeError:
    """Returns the error of a damaged file."""
    reason = f" ({error_reason(error)})" if error is not None else ""
    return VideoDecodeError(f"{path}: {problem}{reason}. Copy it again from "
                            "its source or encode it again.")


def error_reason(error: object) -> str:
    """Returns an FFmpeg or system error without its number and file name."""
    return getattr(error, "strerror", None) or str(error)
