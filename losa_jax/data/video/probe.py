"""Finds out what a video file holds, and whether it can be read to its end.

Headers may be wrong: they count frames that do not exist, or give no number,
and the header of a file that was cut off looks intact. The time model is that
of `losa_jax.data.video.decode`.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer

from losa_jax.data.records import VideoInfo
from losa_jax.data.video.container import (
    damaged,
    header_fps,
    is_format,
    open_video,
    stamp_seconds,
)
from losa_jax.data.video.frame import upright_size
from losa_jax.data.video.packet_scan import FrameTimes, PacketScan
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

CHECKS = ("none", "ends", "full")
# The rate in the header is used while it misplaces the end of the video by
# less than this share of a frame; in Matroska it is sometimes a guess.
_RATE_SLACK_FRAMES = 0.25
# A video alone in its file ends when the header says, within this.
_END_SLACK_FRAMES = 0.75


class _Header(NamedTuple):
    """What the header says; 0 where it says nothing."""

    fps: float
    num_stored: int
    num_shown: int
    seconds: float  # where the file holds nothing but video


def probe_video(path: str | Path, check: str = "ends") -> VideoInfo:
    """Finds out what a video file holds and whether it can be read.

    Where header and frames disagree and the file may still be sound
    (variable rate, AVI), a warning says so.

    Args:
      path: the file. It is opened once; under "ends" a second time, to be
        decoded from its start, if its packets turn out to be wrong.
      check: "ends" decodes the first frame and all after the last key
        frame, which reveals a file that was cut off; where packets do not
        show the number of frames (AVI, old codecs, odd time stamps) it
        decodes the whole file. "full" always decodes the whole file. "none"
        believes the header and decodes one frame, because only frames give
        the rotation.

    Raises:
      InputError: the file is missing, empty, no video, or damaged.
    """
    if check not in CHECKS:
        raise ValueError(f"check={check!r}: choose one of {CHECKS}")
    path = Path(path)
    with open_video(path) as (container, stream):
        scan = PacketScan(path, container, stream)
        first = scan.first_frame()
        header = _header(container, stream)
        if check == "none":
            times: FrameTimes | None = _times_by_header(container, stream,
                                                        first)
        else:
            _require_all_bytes(path, container, stream)
            times = scan.frame_times(decode=check == "full")
    if times is None:
        with open_video(path) as (container, stream):
            times = PacketScan(path, container, stream).decode_all()
    fps = _choose_fps(path, times, header.fps)
    if check != "none":
        _warn_of_doubts(path, times, header)
    return VideoInfo(
        path, fps, times.num_frames, times.num_frames / fps,
        *upright_size(first), first_seconds=times.first_seconds,
        last_seconds=times.last_seconds, is_timed=times.is_timed)


def _require_all_bytes(path: Path, container: InputContainer,
                       stream: av.VideoStream) -> None:
    """Raises if the index of an MP4 file names bytes past its end."""
    if not is_format(container, "mp4"):
        return
    promised = max((entry.pos + entry.size
                    for entry in stream.index_entries), default=0)
    size = path.stat().st_size
    if promised > size:
        raise damaged(path, "the file is cut off. Its index needs "
                      f"{promised} bytes and it has {size}")


def _header(container: InputContainer, stream: av.VideoStream) -> _Header:
    shown = stream.frames
    if shown and is_format(container, "mp4"):  # an edit list may hide some
        shown = sum(not entry.is_discard for entry in stream.index_entries)
    # Sound may last longer. Other videos do not, and damage may double the
    # video's own entry.
    is_alone = all(each.type == "video" for each in container.streams)
    return _Header(header_fps(stream), stream.frames, shown,
                   (container.duration or 0) / av.time_base if is_alone
                   else 0.0)


def _warn_of_doubts(path: Path, times: FrameTimes, header: _Header) -> None:
    """Warns where frames may be missing, or stored twice."""
    count, fps, doubt = times.num_frames, header.fps, ""
    length = times.end_seconds - times.first_seconds
    if header.num_shown:
        if count != header.num_shown:
            doubt = f"its header promises {header.num_shown}"
        elif 2 * count < header.num_stored:
            doubt = f"its header hides the rest of {header.num_stored}"
    # Frames that are lost in the middle leave gaps, others shorten the video.
    if not doubt and fps and (
            not header.num_shown or header.num_shown < header.num_stored):
        if not times.is_timed:
            length = count / fps
        elif abs(length * fps - count) >= _RATE_SLACK_FRAMES:
            doubt = (f"there is time for {length * fps:.1f} at the "
                     f"header's {fps:.6g} per second")
        lacks = abs(header.seconds - length)
        if header.seconds and lacks * fps >= _END_SLACK_FRAMES:
            doubt = (f"they last {length:.3f} s, its header says "
                     f"{header.seconds:.3f} s")
    if doubt:
        logger.warning("%s: %d frames can be read, but %s. Some are lost, or "
                       "the file is unusual.", path, count, doubt)


def _times_by_header(container: InputContainer, stream: av.VideoStream,
                     first: av.VideoFrame) -> FrameTimes:
    if stream.duration:
        shown_seconds = stamp_seconds(stream.duration, stream)
    else:
        shown_seconds = (container.duration or 0) / av.time_base
    count = max(1, stream.frames or round(
        shown_seconds * header_fps(stream)))
    if first.pts is None or is_format(container, "avi"):
        return FrameTimes(count, 0.0, None, shown_seconds, False)
    start = stamp_seconds(first.pts, stream)
    return FrameTimes(count, start, None, start + shown_seconds, True)


def _choose_fps(path: Path, times: FrameTimes, fps: float) -> float:
    """Returns the header's rate unless the frames contradict it."""
    shown_seconds = times.end_seconds - times.first_seconds
    if fps and (not times.is_timed or abs(
            shown_seconds * fps - times.num_frames) < _RATE_SLACK_FRAMES):
        return fps
    if shown_seconds <= 0:
        raise InputError(f"{path}: neither header nor frames give the frame "
                         "rate. Encode it again.")
    return times.num_frames / shown_seconds
