"""What a video file holds, and whether it can be read to its end.

Headers lie: they count pictures that are not there, or say nothing, and the
header of a file that was cut off is as good as new. `probe_video` finds out
at the price of a look at both ends where that is safe, else by decoding.
The time model is that of `losa_jax.data.video.decode`.
"""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from losa_jax.data.records import VideoInfo
from losa_jax.data.video.container import (
    MEND,
    decode_packets,
    error_reason,
    open_video,
    quarter_turns,
    stamp_seconds,
)
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

CHECKS = ("none", "ends", "full")
# In these every packet is one picture. VP8 hides pictures and MPEG-4 packs
# two into one packet: only decoding tells how many there are.
_ONE_PICTURE_A_PACKET = {"h264", "hevc", "vp9", "av1"}
# Headers round, and the streams of a file end a little apart. A file that
# lacks more than this of the length in its header, or more than the share of
# it in a short file, has lost its end.
_LOST_SECONDS = 1.0
_LOST_SHARE = 0.1
# The rate in the header is kept while it misplaces the end of the video by
# less than this share of a frame; in Matroska it is sometimes a guess.
_RATE_SLACK_FRAMES = 0.25
# A video alone in its file ends when the header says, within this.
_END_SLACK_FRAMES = 0.75


class _Pictures(NamedTuple):
    """The pictures of a file on its own clock, in seconds."""

    num_pictures: int
    first_seconds: float
    last_seconds: float | None
    end_seconds: float
    is_timed: bool


class _Promise(NamedTuple):
    """What the header says: pictures stored, pictures to be shown, and
    seconds where all of them are the video's; 0 where it says nothing."""

    stored: int
    shown: int
    seconds: float


def probe_video(path: str | Path,
                check: str = "ends"
                ) -> VideoInfo:
    """Finds out what a video file holds and whether it can be read.

    Args:
      path: the file.
      check: "ends" decodes the first picture and all after the last key
        frame, which finds a file that was cut off; where packets do not tell
        the number of pictures (AVI, old codecs, odd time stamps) it decodes
        the whole file. "full" always decodes the whole file. "none" believes
        the header, wrong though it may be, and decodes one picture only
        because rotation is written nowhere else.

    Where header and pictures disagree and the file may still be sound
    (variable rate, the old habits of AVI), a warning says so.

    Raises:
      InputError: the file is missing, empty, no video, or damaged.
    """
    if check not in CHECKS:
        raise ValueError(f"check={check!r}: choose one of {CHECKS}")
    path = Path(path)
    pictures = None
    with open_video(path) as (container, stream):
        first = _first_picture(path, container, stream)
        header_rate = _header_rate(stream)
        promise = _promise(container, stream)
        if check == "none":
            pictures = _pictures_by_header(container, stream, first)
        else:
            _refuse_lost_bytes(path, container, stream)
    if pictures is None:
        pictures = _pictures_by_packets(path, first)
    if pictures is None or check == "full":
        decoded = _pictures_by_decoding(path)
        # Where both agree, the packets know better how long the last picture
        # is shown.
        if pictures is None or pictures[:3] != decoded[:3]:
            pictures = decoded
    fps = _choose_rate(path, pictures, header_rate)
    if check != "none":
        _tell_doubts(path, pictures, promise, header_rate)
    is_turned = quarter_turns(first) % 2 == 1
    return VideoInfo(
        path=path,
        fps=fps,
        frame_count=pictures.num_pictures,
        duration_seconds=pictures.num_pictures / fps,
        height=first.width if is_turned else first.height,
        width=first.height if is_turned else first.width,
        first_seconds=pictures.first_seconds,
        last_seconds=pictures.last_seconds,
        is_timed=pictures.is_timed,
    )


def _first_picture(path: Path, container: InputContainer,
                   stream: VideoStream) -> VideoFrame:
    try:
        picture = next(decode_packets(container.demux(stream)), None)
    except FFmpegError as error:
        raise InputError(f"{path}: the first picture cannot be decoded "
                         f"({error_reason(error)}): {MEND}") from error
    if picture is None:
        raise InputError(f"{path}: no picture can be decoded: {MEND}")
    return picture


def _refuse_lost_bytes(path: Path, container: InputContainer,
                       stream: VideoStream) -> None:
    """Raises if the index of an MP4 file names bytes past its end."""
    if not _is_mp4(container):
        return
    promised = max((entry.pos + entry.size
                    for entry in stream.index_entries), default=0)
    size = path.stat().st_size
    if promised > size:
        raise InputError(
            f"{path}: the file is cut off: its index needs {promised} bytes "
            f"and it has {size}: {MEND}")


def _refuse_lost_seconds(path: Path, container: InputContainer,
                         stream: VideoStream,
                         reached_seconds: float) -> None:
    """Raises if all streams end well before the length in the header."""
    promised_seconds = (container.duration or 0) / av.time_base
    rate = _header_rate(stream)
    if _is_avi(container) and rate:
        # FFmpeg shortens the duration of a cut AVI to what is left.
        promised_seconds = max(promised_seconds, stream.frames / rate)
    slack_seconds = min(_LOST_SECONDS, _LOST_SHARE * promised_seconds)
    if reached_seconds < promised_seconds - slack_seconds:
        raise InputError(
            f"{path}: the file is cut off: its header promises "
            f"{promised_seconds:.1f} s and it ends after "
            f"{reached_seconds:.1f} s: {MEND}")


def _promise(container: InputContainer, stream: VideoStream) -> _Promise:
    shown = stream.frames
    if shown and _is_mp4(container):  # an edit list may hide some
        shown = sum(not entry.is_discard for entry in stream.index_entries)
    # Sound may last longer. Other pictures do not, and damage may double the
    # video's own entry.
    is_alone = all(each.type == "video" for each in container.streams)
    return _Promise(stream.frames, shown, (container.duration or 0)
                    / av.time_base if is_alone else 0.0)


def _tell_doubts(path: Path, pictures: _Pictures, promise: _Promise,
                 header_rate: float) -> None:
    """Warns where pictures may be missing, or be there twice."""
    count, doubt = pictures.num_pictures, ""
    length = pictures.end_seconds - pictures.first_seconds
    if promise.shown:
        if count != promise.shown:
            doubt = f"its header tells of {promise.shown}"
        elif 2 * count < promise.stored:
            doubt = f"its header hides the rest of {promise.stored}"
    # Pictures hidden in the middle leave gaps, others shorten the video.
    if not doubt and header_rate and (
            not promise.shown or promise.shown < promise.stored):
        if not pictures.is_timed:
            length = count / header_rate
        elif abs(length * header_rate - count) >= _RATE_SLACK_FRAMES:
            doubt = (f"there is time for {length * header_rate:.1f} at the "
                     f"header's {header_rate:.6g} a second")
        lacks = abs(promise.seconds - length)
        if promise.seconds and lacks * header_rate >= _END_SLACK_FRAMES:
            doubt = (f"they last {length:.3f} s, its header says "
                     f"{promise.seconds:.3f} s")
    if doubt:
        logger.warning("%s: %d pictures can be read, but %s: some are lost, "
                       "or the file is odd", path, count, doubt)


def _is_mp4(container: InputContainer) -> bool:
    return "mp4" in container.format.name.split(",")


def _is_avi(container: InputContainer) -> bool:
    return container.format.name == "avi"


def _add(stamps: list[int], stamp: int | None) -> bool:
    """Whether there was a stamp to add."""
    if stamp is not None:
        stamps.append(stamp)
    return stamp is not None


def _is_rising(stamps: Sequence[int]) -> bool:
    return all(before < after for before, after in itertools.pairwise(stamps))


def _header_rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or 0)


def _end_seconds(last: Packet | VideoFrame, rate: float) -> float:
    """When the last packet or picture ends; its length may be unknown."""
    unit = float(last.time_base or 0)
    length = last.duration * unit if last.duration else (
        1 / rate if rate else 0.0)
    return (last.pts or 0) * unit + length


def _pictures_by_header(container: InputContainer, stream: VideoStream,
                        first: VideoFrame) -> _Pictures:
    if stream.duration:
        shown_seconds = stamp_seconds(stream.duration, stream)
    else:
        shown_seconds = (container.duration or 0) / av.time_base
    count = stream.frames or round(shown_seconds * _header_rate(stream))
    if first.pts is None or _is_avi(container):
        return _Pictures(max(1, count), 0.0, None, shown_seconds, False)
    start = stamp_seconds(first.pts, stream)
    return _Pictures(max(1, count), start, None, start + shown_seconds, True)


def _pictures_by_packets(path: Path, first: VideoFrame) -> _Pictures | None:
    """Counts without decoding, but for the end; None if that is not safe.

    An MP4 file has a list of all its packets; any other is read through.
    """
    if first.pts is None:
        return None
    with open_video(path) as (container, stream):
        codec = stream.codec_context.codec.canonical_name
        if codec not in _ONE_PICTURE_A_PACKET or _is_avi(container):
            return None
        listed = [entry for entry in stream.index_entries
                  if not entry.is_discard]
        keys = [entry.timestamp for entry in listed if entry.is_keyframe]
        if (_is_mp4(container) and len(listed) == stream.frames and keys
                and stream.start_time == first.pts and stream.duration):
            count = stream.frames
            end_seconds = stamp_seconds(
                stream.start_time + stream.duration, stream)
        else:
            packets = _read_packets(path, container, stream, first.pts)
            keys = [packet.stamp for packet in packets if packet.is_key]
            if not keys:
                return None
            count = len(packets)
            end_seconds = packets[-1].end_seconds
        last = _last_stamp(path, container, stream, keys[-1])
        if last is None:
            return None
        return _Pictures(count, stamp_seconds(first.pts, stream),
                         stamp_seconds(last, stream), end_seconds, True)


class _Packet(NamedTuple):
    stamp: int
    is_key: bool
    end_seconds: float


def _read_packets(path: Path, container: InputContainer,
                  stream: VideoStream, first_stamp: int) -> list[_Packet]:
    """Packets of pictures in order of display; none if stamps are useless."""
    packets = []
    reached_seconds = 0.0
    rate = _header_rate(stream)
    try:
        for packet in container.demux():
            if not packet.size:  # the demuxer's sign for the end
                continue
            is_picture = packet.stream is stream and not packet.is_discard
            if packet.pts is not None:
                end_seconds = _end_seconds(packet, rate)
                reached_seconds = max(reached_seconds, end_seconds)
                if is_picture and packet.pts >= first_stamp:
                    packets.append(
                        _Packet(packet.pts, packet.is_keyframe, end_seconds))
            elif is_picture:
                return []
    except FFmpegError as error:
        raise InputError(
            f"{path}: cannot be read after {reached_seconds:.1f} s "
            f"({error_reason(error)}): {MEND}") from error
    _refuse_lost_seconds(path, container, stream, reached_seconds)
    packets.sort()
    return packets if _is_rising([each.stamp for each in packets]) else []


def _last_stamp(path: Path, container: InputContainer, stream: VideoStream,
                key: int) -> int | None:
    """Time stamp of the last picture, with all from the key frame decoded.

    None if the pictures are not those that the packets promise.
    """
    promised: list[int] = []
    decoded: list[int] = []
    is_timed = True
    try:
        container.seek(key, stream=stream)
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                is_timed &= _add(promised, packet.pts)
            for picture in packet.decode():
                is_timed &= _add(decoded, picture.pts)
    except FFmpegError as error:
        raise InputError(
            f"{path}: the end of the video cannot be decoded "
            f"({error_reason(error)}): {MEND}") from error
    if not promised or not is_timed:
        return None
    # Pictures from before a key frame may lean on others not decoded.
    due = sorted(stamp for stamp in promised if stamp >= promised[0])
    given = [stamp for stamp in decoded if stamp >= promised[0]]
    return given[-1] if given == due and _is_rising(given) else None


def _pictures_by_decoding(path: Path) -> _Pictures:
    stamps: list[int] = []
    num_pictures = 0
    end_seconds = reached_seconds = 0.0
    with open_video(path) as (container, stream):
        rate = _header_rate(stream)
        try:
            for packet in container.demux():
                if packet.size and packet.pts is not None:
                    reached_seconds = max(reached_seconds,
                                          _end_seconds(packet, rate))
                if packet.stream is not stream:
                    continue
                for picture in decode_packets([packet]):
                    num_pictures += 1
                    if _add(stamps, picture.pts):
                        end_seconds = _end_seconds(picture, rate)
        except FFmpegError as error:
            raise InputError(
                f"{path}: the video cannot be decoded after {num_pictures} "
                f"pictures ({error_reason(error)}): {MEND}") from error
        _refuse_lost_seconds(path, container, stream, reached_seconds)
        if len(stamps) < num_pictures or not _is_rising(stamps):
            return _Pictures(num_pictures, 0.0, None, 0.0, False)
        return _Pictures(num_pictures, stamp_seconds(stamps[0], stream),
                         stamp_seconds(stamps[-1], stream), end_seconds, True)


def _choose_rate(path: Path, pictures: _Pictures,
                 header_rate: float) -> float:
    """Frames a second: the header's rate unless the pictures belie it."""
    shown_seconds = pictures.end_seconds - pictures.first_seconds
    if header_rate:
        expected = shown_seconds * header_rate
        if (not pictures.is_timed
                or abs(expected - pictures.num_pictures) < _RATE_SLACK_FRAMES):
            return header_rate
    if shown_seconds <= 0:
        raise InputError(f"{path}: neither the header nor the pictures tell "
                         "how many frames a second: encode it anew")
    return pictures.num_pictures / shown_seconds
