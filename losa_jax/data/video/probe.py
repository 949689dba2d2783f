"""Finds out what a video file holds, and whether it can be read to its end.

Headers may be wrong: they count frames that do not exist, or give no number,
and the header of a file that was cut off looks intact.
"""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError

from losa_jax.data.records import VideoInfo
from losa_jax.data.video import asf, matroska
from losa_jax.data.video.container import (
    damaged,
    header_fps,
    open_video,
    stamp_seconds,
)
from losa_jax.data.video.frame import upright_size
from losa_jax.data.video.transport_stream import ends_inside_frame
from losa_jax.errors import InputError
from losa_jax.utils import player_clock

logger = logging.getLogger(__name__)

CHECKS = ("none", "ends", "full")
# Codecs in which every packet is one frame. VP8 hides frames and MPEG-4 packs
# two into one packet: only decoding shows how many there are.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1"}
# Formats whose header gives the time stamp of the end, not the length.
_END_FORMATS = {"matroska,webm", "nut", "asf"}
# Formats without a length in the header, which FFmpeg estimates, or of which
# it makes a wrong one where the streams start apart (ASF).
_NO_LENGTH_FORMATS = {"mpegts", "mpeg", "asf"}
# Codecs that decode alike from any key frame. Others keep more than that, as
# the palette that only the first packet brings; a test compares all of them.
_SEEKABLE_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg1video",
                    "mpeg2video", "mpeg4", "mjpeg", "prores", "dnxhd", "ffv1",
                    "wmv2", "vc1", "wmv3", "theora", "flv1"}
# What a packet may bring for those after it.
_LASTING_SIDE_DATA: tuple[
    Literal["palette", "new_extradata", "param_change"], ...] = (
        "palette", "new_extradata", "param_change")
# FFmpeg derives the time stamps of reordered frames from those before; and
# those of a bare stream from the number of its frames (AVFMT_NOTIMESTAMPS).
_UNSEEKABLE_FORMATS = {"asf"}
_NO_TIME_STAMPS = 0x80
# Formats without presentation times, or that seek by decoding times: with
# reordered frames a seek to the last key frame would mostly end after it.
_DECODED_FORMATS = {"avi", "mpegts", "mpeg"}
# A file that lacks more than this of the length in its header, or than the
# share of it in a short file, has lost its end. Headers round, and the streams
# of a file end a little apart.
_LOST_SECONDS = 1.0
_LOST_SHARE = 0.1
# The rate in the header is used while it misplaces the end of the video by
# less than this share of a frame; in Matroska it is sometimes a guess.
_RATE_SLACK_FRAMES = 0.25
# A video alone in its file ends when the header says, within this.
_END_SLACK_FRAMES = 0.75


class _FrameTimes(NamedTuple):
    """The number of frames of a file, and their times on its own clock."""

    num_frames: int
    first_seconds: float
    last_seconds: float | None
    end_seconds: float
    is_timed: bool


class _Count(NamedTuple):
    """The frames of a file by its packets, or by the index of an MP4."""

    num_frames: int
    first_stamp: int
    last_key_stamp: int
    end_seconds: float


def probe_video(path: str | Path, check: str = "ends") -> VideoInfo:
    """Finds out what a video file holds and whether it can be read.

    Warns where header and frames disagree and the file may still be sound.

    "ends" decodes the first frame and all after the last key frame, which
    reveals a file that was cut off; where packets do not show the number of
    frames (AVI, MPEG, old codecs, odd time stamps) it decodes the whole file.
    "full" always decodes the whole file. "none" believes the header and
    decodes one frame, because only frames give the rotation.

    Raises:
      VideoDecodeError: the file is missing, empty, no video, or damaged.
    """
    if check not in CHECKS:
        raise ValueError(f"check={check!r}: choose one of {CHECKS}")
    path = Path(path)
    with open_video(path) as opened:
        scan = _Scan(path, *opened)
        first = scan.first_frame()
        if check == "none":
            times: _FrameTimes | None = scan.times_by_header(first)
        else:
            scan.require_all_bytes()
            times = (scan.decode_all() if check == "full"
                     else scan.frame_times())
    if times is None:
        with open_video(path) as opened:
            times = _Scan(path, *opened).decode_all()
    fps = scan.choose_fps(times)
    if check != "none":
        scan.warn_of_doubts(times)
    lead = 0 if not times.is_timed else player_clock.lead_frames(
        path, scan.zero_seconds, times.first_seconds, fps)
    frame_count = lead + times.num_frames
    return VideoInfo(
        path, fps, frame_count, frame_count / fps, *upright_size(first),
        first_seconds=times.first_seconds, last_seconds=times.last_seconds,
        is_timed=times.is_timed, lead_frames=lead,
        is_seekable=scan.is_seekable)


class _Scan:
    """One pass over an open file from its start, by packets or, where these
    may be wrong, by the decoder."""

    def __init__(self, path: Path, container: InputContainer,
                 stream: av.VideoStream):
        """Takes a path for messages, and an open file not yet read."""
        self._path, self._container, self._stream = path, container, stream
        # Read first: the index of a fragmented file grows during the pass.
        is_mp4 = "mp4" in container.format.name.split(",")
        self._entries = list(stream.index_entries) if is_mp4 else []
        # An edit list may hide some.
        shown = [one for one in self._entries if not one.is_discard]
        self._index = self._count_by_index(shown)
        self._fps = header_fps(stream)
        self._num_stored = self._num_shown = stream.frames
        if is_mp4 and stream.frames:
            self._num_shown = len(shown)
        self.zero_seconds = player_clock.start_seconds(container)
        self._start = self.zero_seconds or 0.0
        self._header_seconds = self._length_in_header()
        # Whether decoding may begin at any key frame.
        self.is_seekable = not (
            container.format.flags & _NO_TIME_STAMPS
            or container.format.name in _UNSEEKABLE_FORMATS) and (
            stream.codec_context.codec.canonical_name in _SEEKABLE_CODECS)
        self._is_alone = all(one.type == "video" for one in container.streams)
        self._stream_ids = [one.id for one in container.streams
                            if one.type in ("video", "audio")]
        self._left = container.demux()
        # Time stamp, whether it is a key frame, and end in seconds.
        self._packets: list[tuple[int, bool, float]] = []
        self._is_stamped = True
        # When the packets of all streams end, from the start of the first;
        # when the last of them begins; how many are incomplete.
        self._reached_seconds = self._last_seconds = 0.0
        self._num_incomplete = 0
        self._first_packet_byte: int | None = None
        self._decoded_stamps: list[Any] = []  # int, or None
        self._decoded_end_seconds = 0.0
        self._is_last_incomplete = False

    def first_frame(self) -> av.VideoFrame:
        """Reads until a frame is decoded; InputError if none can be."""
        try:
            for packet in self._left:
                self._note(packet)
                for frame in self._decode(packet):
                    return frame
        except FFmpegError as error:
            raise damaged(self._path, "the first frame cannot be decoded",
                          error) from error
        raise damaged(self._path, "no frame can be decoded")

    def frame_times(self) -> _FrameTimes | None:
        """Counts the packets, or decodes all where they cannot be trusted;
        None if they turn out to be wrong, InputError if damaged."""
        first_stamp = self._decoded_stamps[0]
        codec = self._stream.codec_context.codec.canonical_name
        if first_stamp is None or codec not in _ONE_FRAME_PER_PACKET or (
                self._container.format.name in _DECODED_FORMATS):
            return self.decode_all()
        count = self._index
        if count is None or count.first_stamp != first_stamp:
            count = self._count_packets(first_stamp)
        return None if count is None else self._decode_end(count)

    def decode_all(self) -> _FrameTimes:
        """Decodes the rest of the file; InputError if it is damaged."""
        error: FFmpegError | None = None
        try:
            for packet in self._left:
                self._note(packet)
                try:
                    if error is None:
                        self._decode(packet)
                except FFmpegError as decode_error:
                    error = decode_error
        except FFmpegError as read_error:
            error = error or read_error
        self._require_all_seconds()
        stamps = self._decoded_stamps
        if error is not None:
            raise damaged(
                self._path, "the video cannot be decoded after "
                f"{len(stamps)} frames", error) from error
        if None in stamps or not _is_rising(stamps):
            return _FrameTimes(len(stamps), 0.0, None, 0.0, False)
        # Index and packets know better how long the last frame is shown.
        ends = {stamp: end for stamp, _, end in self._packets}
        end_seconds = ends.get(stamps[-1], self._decoded_end_seconds)
        if self._index and self._index[:2] == (len(stamps), stamps[0]):
            end_seconds = self._index.end_seconds
        return _FrameTimes(
            len(stamps), stamp_seconds(stamps[0], self._stream),
            stamp_seconds(stamps[-1], self._stream), end_seconds, True)

    def _note(self, packet: av.Packet) -> None:
        if not packet.size:  # the demuxer's sign for the end
            return
        self._num_incomplete += packet.is_corrupt
        if self._first_packet_byte is None:
            self._first_packet_byte = packet.pos
        is_frame = packet.stream is self._stream and not packet.is_discard
        if is_frame and self._packets and any(
                packet.has_sidedata(name) for name in _LASTING_SIDE_DATA):
            self.is_seekable = False
        if packet.pts is None:
            self._is_stamped &= not is_frame
            return
        end_seconds = _end_seconds(packet, self._fps)
        self._reached_seconds = max(self._reached_seconds,
                                    end_seconds - self._start)
        self._last_seconds = max(
            self._last_seconds,
            packet.pts * float(packet.time_base or 0) - self._start)
        if is_frame:
            self._packets.append(
                (packet.pts, packet.is_keyframe, end_seconds))

    def _decode(self, packet: av.Packet) -> list[av.VideoFrame]:
        if packet.stream is not self._stream:
            return []
        frames = packet.decode()
        for frame in frames:
            self._decoded_stamps.append(frame.pts)
            self._decoded_end_seconds = _end_seconds(frame, self._fps)
            self._is_last_incomplete = frame.is_corrupt
        return frames

    def _count_packets(self, first_stamp: int) -> _Count | None:
        """None if the stamps cannot be used or there is no key frame."""
        try:
            for packet in self._left:
                self._note(packet)
        except FFmpegError as error:
            raise damaged(
                self._path,
                f"cannot be read after {self._reached_seconds:.1f} s",
                error) from error
        self._require_all_seconds()
        packets = sorted(packet for packet in self._packets
                         if packet[0] >= first_stamp)
        keys = [stamp for stamp, is_key, _ in packets if is_key]
        if not self._is_stamped or not keys or not _is_rising(
                [packet[0] for packet in packets]):
            return None
        return _Count(len(packets), first_stamp, keys[-1], packets[-1][2])

    def _decode_end(self, count: _Count) -> _FrameTimes | None:
        """Decodes from the last key frame on; None if the frames are not those
        that the packets promise."""
        promised: list[Any] = []
        decoded: list[Any] = []
        try:
            self._container.seek(count.last_key_stamp, stream=self._stream)
            for packet in self._container.demux(self._stream):
                if packet.size and not packet.is_discard:
                    promised.append(packet.pts)
                decoded += [frame.pts for frame in packet.decode()]
        except FFmpegError as error:
            raise damaged(
                self._path, "the end of the video cannot be decoded", error
            ) from error
        if not promised or None in promised or None in decoded:
            return None
        # Frames before a key frame may refer to others that were not decoded.
        due = sorted(stamp for stamp in promised if stamp >= promised[0])
        given = [stamp for stamp in decoded if stamp >= promised[0]]
        if given != due or not _is_rising(given):
            return None
        return _FrameTimes(
            count.num_frames, stamp_seconds(count.first_stamp, self._stream),
            stamp_seconds(given[-1], self._stream), count.end_seconds, True)

    def _require_all_seconds(self) -> None:
        """Raises if all streams end well before the length in the header."""
        promised_seconds = self._header_seconds
        if self._container.format.name == "avi" and self._fps:
            # FFmpeg shortens the duration of a cut AVI to what is left.
            promised_seconds = max(promised_seconds,
                                   self._stream.frames / self._fps)
        slack_seconds = min(_LOST_SECONDS, _LOST_SHARE * promised_seconds)
        if self._reached_seconds < promised_seconds - slack_seconds:
            raise damaged(
                self._path, "the file is cut off. Its header promises "
                f"{promised_seconds:.1f} s and it ends after "
                f"{self._reached_seconds:.1f} s")

    def _length_in_header(self) -> float:
        """Returns the seconds from the first stream's start to the end of the
        file that its header gives, 0 if it gives none."""
        name = self._container.format.name
        seconds = (self._container.duration or 0) / av.time_base
        if name in _NO_LENGTH_FORMATS:
            return 0.0
        if name in _END_FORMATS and seconds > self._start:
            seconds -= self._start
        return seconds

    def require_all_bytes(self) -> None:
        """Raises if index or header name bytes past the end of the file."""
        promised, part = max((one.pos + one.size for one in self._entries),
                             default=0), "index"
        if self._container.format.name == "asf":
            promised, part = asf.promised_bytes(self._path), "header"
        size = self._path.stat().st_size
        if promised > size:
            raise damaged(self._path, f"the file is cut off. Its {part} needs "
                          f"{promised} bytes and it has {size}")

    def _count_by_index(self, shown: Sequence[Any]) -> _Count | None:
        """None if packets must be counted."""
        stream = self._stream
        keys = [one.timestamp for one in shown if one.is_keyframe]
        if (len(shown) != stream.frames or not keys
                or stream.start_time is None or not stream.duration):
            return None
        return _Count(
            stream.frames, stream.start_time, keys[-1],
            stamp_seconds(stream.start_time + stream.duration, stream))

    def times_by_header(self, first: av.VideoFrame) -> _FrameTimes:
        """Returns the times of frames that are not counted."""
        is_timed = not (first.pts is None
                        or self._container.format.name == "avi")
        start = stamp_seconds(first.pts or 0, self._stream)
        if self._stream.duration:
            seconds = stamp_seconds(self._stream.duration, self._stream)
            if self._container.format.name in _END_FORMATS:
                seconds -= start
        else:
            seconds = self._header_seconds or (
                (self._container.duration or 0) / av.time_base)
            if is_timed and self.zero_seconds is not None:
                seconds -= start - self._start
        count = max(1, self._num_stored or round(seconds * self._fps))
        if not is_timed:
            return _FrameTimes(count, 0.0, None, seconds, False)
        return _FrameTimes(count, start, None, start + seconds, True)

    def choose_fps(self, times: _FrameTimes) -> float:
        """Returns the header's rate unless the frames contradict it."""
        shown_seconds = times.end_seconds - times.first_seconds
        if self._fps and (not times.is_timed or abs(
                shown_seconds * self._fps - times.num_frames
                ) < _RATE_SLACK_FRAMES):
            return self._fps
        if shown_seconds <= 0:
            raise InputError(f"{self._path}: neither header nor frames give "
                             "the frame rate. Encode it again.")
        return times.num_frames / shown_seconds

    def warn_of_doubts(self, times: _FrameTimes) -> None:
        """Warns where frames may be missing, or stored twice."""
        count, shown, fps = times.num_frames, self._num_shown, self._fps
        length, doubt = times.end_seconds - times.first_seconds, ""
        name = self._container.format.name
        if self._num_incomplete:
            doubt = f"{self._num_incomplete} packets are incomplete"
        elif self._is_last_incomplete:
            doubt = "the last one is incomplete"
        elif name == "mpegts" and ends_inside_frame(
                self._path, self._stream_ids):
            doubt = "the file ends inside a frame"
        elif name == "matroska,webm" and self._start > 1 / (fps or 25) and (
                matroska.lost_start(self._path, self._first_packet_byte)):
            doubt = "its beginning is damaged"
        elif name == "nut" and self._last_seconds - self._header_seconds > (
                _END_SLACK_FRAMES / (fps or 1)):
            # The index at the end of the file gives the last time stamp.
            doubt = "the file has no index, which would be its end"
        elif shown:
            if count != shown:
                doubt = f"its header promises {shown}"
            elif 2 * count < self._num_stored:
                doubt = f"its header hides the rest of {self._num_stored}"
        # Frames lost in the middle leave gaps, others shorten the video.
        if not doubt and fps and (not shown or shown < self._num_stored):
            if not times.is_timed:
                length = count / fps
            elif abs(length * fps - count) >= _RATE_SLACK_FRAMES:
                doubt = (f"there is time for {length * fps:.1f} at the "
                         f"header's {fps:.6g} per second")
            # Sound may last longer. Other videos do not, and damage may
            # double the video's own entry.
            if self._is_alone and self._header_seconds and name != "nut" and (
                    abs(self._header_seconds - length) * fps
                    >= _END_SLACK_FRAMES):
                doubt = (f"they last {length:.3f} s, its header says "
                         f"{self._header_seconds:.3f} s")
        if doubt:
            logger.warning("%s: %d frames can be read, but %s. If some "
                           "are lost, get the file again.", self._path, count,
                           doubt)


def _is_rising(stamps: Sequence[int]) -> bool:
    return all(before < after for before, after in itertools.pairwise(stamps))


def _end_seconds(last: av.Packet | av.VideoFrame, fps: float) -> float:
    """When a packet or frame ends; its length may be unknown."""
    unit = float(last.time_base or 0)
    length = last.duration * unit if last.duration else (
        1 / fps if fps else 0.0)
    return (last.pts or 0) * unit + length
