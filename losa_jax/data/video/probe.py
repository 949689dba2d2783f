"""What a video file holds, and whether it can be read to its end.

Headers lie: they count frames that are not there, or say nothing, and the
header of a file that was cut off is as good as new. `probe_video` reads both
ends of a file where that is safe, else it decodes all of it; either way it
opens the file once. The time model is that of `losa_jax.data.video.decode`.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from losa_jax.data.records import VideoInfo
from losa_jax.data.video.container import (
    MEND,
    header_rate,
    is_avi,
    is_mp4,
    open_video,
    quarter_turns,
    stamp_seconds,
)
from losa_jax.data.video.packet_scan import Frames, Reading
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

CHECKS = ("none", "ends", "full")
# The rate in the header is kept while it misplaces the end of the video by
# less than this share of a frame; in Matroska it is sometimes a guess.
_RATE_SLACK_FRAMES = 0.25
# A video alone in its file ends when the header says, within this.
_END_SLACK_FRAMES = 0.75


class _Promise(NamedTuple):
    """What the header says: frames stored, frames to be shown, and seconds
    where all of them are the video's; 0 where it says nothing."""

    stored: int
    shown: int
    seconds: float


def probe_video(path: str | Path,
                check: str = "ends"
                ) -> VideoInfo:
    """Finds out what a video file holds and whether it can be read.

    The file is opened once. Only under "ends", and only where packets that
    were read without decoding turn out not to tell the truth, it is opened
    again and decoded from its start.

    Args:
      path: the file.
      check: "ends" decodes the first frame and all after the last key
        frame, which reveals a file that was cut off; where packets do not
        tell the number of frames (AVI, old codecs, odd time stamps) it
        decodes the whole file. "full" always decodes the whole file. "none"
        believes the header, wrong though it may be, and decodes one frame
        only because rotation is written nowhere else.

    Where header and frames disagree and the file may still be sound
    (variable rate, the old habits of AVI), a warning says so.

    Raises:
      InputError: the file is missing, empty, no video, or damaged.
    """
    if check not in CHECKS:
        raise ValueError(f"check={check!r}: choose one of {CHECKS}")
    path = Path(path)
    with open_video(path) as (container, stream):
        reading = Reading(path, container, stream)
        first = reading.first_frame()
        rate = header_rate(stream)
        promise = _promise(container, stream)
        if check == "none":
            frames: Frames | None = _frames_by_header(container, stream,
                                                      first)
        else:
            _refuse_lost_bytes(path, container, stream)
            frames = reading.frames(decode=check == "full")
    if frames is None:
        with open_video(path) as (container, stream):
            frames = Reading(path, container, stream).decode_all()
    fps = _choose_rate(path, frames, rate)
    if check != "none":
        _tell_doubts(path, frames, promise, rate)
    is_turned = quarter_turns(first) % 2 == 1
    return VideoInfo(
        path=path,
        fps=fps,
        frame_count=frames.num_frames,
        duration_seconds=frames.num_frames / fps,
        height=first.width if is_turned else first.height,
        width=first.height if is_turned else first.width,
        first_seconds=frames.first_seconds,
        last_seconds=frames.last_seconds,
        is_timed=frames.is_timed,
    )


def _refuse_lost_bytes(path: Path, container: InputContainer,
                       stream: VideoStream) -> None:
    """Raises if the index of an MP4 file names bytes past its end."""
    if not is_mp4(container):
        return
    promised = max((entry.pos + entry.size
                    for entry in stream.index_entries), default=0)
    size = path.stat().st_size
    if promised > size:
        raise InputError(
            f"{path}: the file is cut off: its index needs {promised} bytes "
            f"and it has {size}: {MEND}")


def _promise(container: InputContainer, stream: VideoStream) -> _Promise:
    shown = stream.frames
    if shown and is_mp4(container):  # an edit list may hide some
        shown = sum(not entry.is_discard for entry in stream.index_entries)
    # Sound may last longer. Other videos do not, and damage may double the
    # video's own entry.
    is_alone = all(each.type == "video" for each in container.streams)
    return _Promise(stream.frames, shown, (container.duration or 0)
                    / av.time_base if is_alone else 0.0)


def _tell_doubts(path: Path, frames: Frames, promise: _Promise,
                 rate: float) -> None:
    """Warns where frames may be missing, or be there twice."""
    count, doubt = frames.num_frames, ""
    length = frames.end_seconds - frames.first_seconds
    if promise.shown:
        if count != promise.shown:
            doubt = f"its header tells of {promise.shown}"
        elif 2 * count < promise.stored:
            doubt = f"its header hides the rest of {promise.stored}"
    # Frames hidden in the middle leave gaps, others shorten the video.
    if not doubt and rate and (
            not promise.shown or promise.shown < promise.stored):
        if not frames.is_timed:
            length = count / rate
        elif abs(length * rate - count) >= _RATE_SLACK_FRAMES:
            doubt = (f"there is time for {length * rate:.1f} at the "
                     f"header's {rate:.6g} a second")
        lacks = abs(promise.seconds - length)
        if promise.seconds and lacks * rate >= _END_SLACK_FRAMES:
            doubt = (f"they last {length:.3f} s, its header says "
                     f"{promise.seconds:.3f} s")
    if doubt:
        logger.warning("%s: %d pictures can be read, but %s: some are lost, "
                       "or the file is odd", path, count, doubt)


def _frames_by_header(container: InputContainer, stream: VideoStream,
                      first: VideoFrame) -> Frames:
    if stream.duration:
        shown_seconds = stamp_seconds(stream.duration, stream)
    else:
        shown_seconds = (container.duration or 0) / av.time_base
    count = stream.frames or round(shown_seconds * header_rate(stream))
    if first.pts is None or is_avi(container):
        return Frames(max(1, count), 0.0, None, shown_seconds, False)
    start = stamp_seconds(first.pts, stream)
    return Frames(max(1, count), start, None, start + shown_seconds, True)


def _choose_rate(path: Path, frames: Frames, rate: float) -> float:
    """Frames a second: the header's rate unless the frames belie it."""
    shown_seconds = frames.end_seconds - frames.first_seconds
    if rate:
        expected = shown_seconds * rate
        if (not frames.is_timed
                or abs(expected - frames.num_frames) < _RATE_SLACK_FRAMES):
            return rate
    if shown_seconds <= 0:
        raise InputError(f"{path}: neither the header nor the pictures tell "
                         "how many frames a second: encode it anew")
    return frames.num_frames / shown_seconds
