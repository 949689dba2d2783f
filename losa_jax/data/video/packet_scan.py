"""One pass over a video file: what its packets say, and its decoder.

Packets are quick to read and mostly tell how many frames there are; only the
decoder knows. `Reading` asks whichever is needed, in one pass.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from losa_jax.data.video.container import (
    MEND,
    decode_packets,
    error_reason,
    header_rate,
    is_avi,
    is_mp4,
    stamp_seconds,
)
from losa_jax.errors import InputError

# In these every packet is one frame. VP8 hides frames and MPEG-4 packs two
# into one packet: only decoding tells how many there are.
_ONE_FRAME_A_PACKET = {"h264", "hevc", "vp9", "av1"}
# These are searched by decoding time, so that where frames are reordered the
# search for the last key frame mostly ends behind it.
_SEARCHED_BY_DECODING_TIME = {"mpegts", "mpeg"}
# Headers round, and the streams of a file end a little apart. A file that
# lacks more than this of the length in its header, or more than the share of
# it in a short file, has lost its end.
_LOST_SECONDS = 1.0
_LOST_SHARE = 0.1


class Frames(NamedTuple):
    """The frames of a file on its own clock, in seconds."""

    num_frames: int
    first_seconds: float
    last_seconds: float | None
    end_seconds: float
    is_timed: bool


class _Packet(NamedTuple):
    stamp: int
    is_key: bool
    end_seconds: float


class _Index(NamedTuple):
    """What the list of all its packets in an MP4 file says."""

    num_frames: int
    first_stamp: int
    last_key_stamp: int
    end_seconds: float


class Reading:
    """One pass over an open file from its start.

    An error after the first frame is kept, for the packets may still be
    counted where the decoder fails: which one is raised depends on what is
    asked for.
    """

    def __init__(self, path: Path, container: InputContainer,
                 stream: VideoStream):
        """
        Args:
          path: of the file, for messages.
          container, stream: from `open_video`; nothing is read yet.
        """
        self._path, self._container, self._stream = path, container, stream
        self._rate = header_rate(stream)
        # Looked at now: that of a fragmented file grows while it is read.
        self._index = _complete_index(container, stream)
        self._left = container.demux()
        self._first_stamp: int | None = None
        self._packets: list[_Packet] = []
        self._is_stamped = True
        self._reached_seconds = 0.0  # by the packets of all streams
        self._read_error: FFmpegError | None = None
        self._num_decoded = 0
        self._decoded_stamps: list[int] = []
        self._decoded_end_seconds = 0.0
        self._decode_error: FFmpegError | None = None

    def first_frame(self) -> VideoFrame:
        """Reads until a frame is decoded.

        Raises:
          InputError: none can be.
        """
        try:
            for packet in self._left:
                self._note(packet)
                for frame in self._decode(packet):
                    self._first_stamp = frame.pts
                    return frame
        except FFmpegError as error:
            raise InputError(
                f"{self._path}: the first picture cannot be decoded "
                f"({error_reason(error)}): {MEND}") from error
        raise InputError(f"{self._path}: no picture can be decoded: {MEND}")

    def frames(self, *, decode: bool) -> Frames | None:
        """Counts the packets, or decodes all where they cannot be trusted.

        Args:
          decode: every file, and believe the decoder.

        Returns:
          None if only the packets that were read without decoding show that
          they do not tell the truth.

        Raises:
          InputError: the file is damaged.
        """
        codec = self._stream.codec_context.codec.canonical_name
        if self._first_stamp is None or codec not in _ONE_FRAME_A_PACKET or (
                is_avi(self._container)):
            return self.decode_all()
        index = self._index
        if index is not None and index.first_stamp != self._first_stamp:
            index = None
        decodes = decode or (self._container.format.name
                             in _SEARCHED_BY_DECODING_TIME)
        if decodes or index is None:
            self._finish(decode=decodes, count=index is None)
        counted = self._counted(self._first_stamp, index)
        if not decodes or (counted is not None and not decode):
            return counted
        decoded = self._decoded()
        # Where both agree, the packets know better how long the last frame
        # is shown.
        return (counted if counted is not None and counted[:3] == decoded[:3]
                else decoded)

    def decode_all(self) -> Frames:
        """Decodes what is left, and so the whole file.

        Raises:
          InputError: the file is damaged.
        """
        self._finish(decode=True, count=False)
        return self._decoded()

    def _finish(self, *, decode: bool, count: bool) -> None:
        """Reads what is left, or until the decoder fails if packets need not
        be counted."""
        try:
            for packet in self._left:
                self._note(packet)
                if decode and self._decode_error is None:
                    try:
                        self._decode(packet)
                    except FFmpegError as error:
                        self._decode_error = error
                        if not count:
                            return
        except FFmpegError as error:
            self._read_error = error

    def _note(self, packet: Packet) -> None:
        if not packet.size:  # the demuxer's sign for the end
            return
        is_frame = packet.stream is self._stream and not packet.is_discard
        if packet.pts is None:
            self._is_stamped &= not is_frame
            return
        end_seconds = _end_seconds(packet, self._rate)
        self._reached_seconds = max(self._reached_seconds, end_seconds)
        if is_frame:
            self._packets.append(
                _Packet(packet.pts, packet.is_keyframe, end_seconds))

    def _decode(self, packet: Packet) -> list[VideoFrame]:
        if packet.stream is not self._stream:
            return []
        frames = list(decode_packets([packet]))
        for frame in frames:
            self._num_decoded += 1
            if _add(self._decoded_stamps, frame.pts):
                self._decoded_end_seconds = _end_seconds(frame, self._rate)
        return frames

    def _counted(self, first_stamp: int, index: _Index | None
                 ) -> Frames | None:
        """Counts packets and decodes those from the last key frame on; None
        if that is not safe."""
        if index is not None:
            count, _, key, end_seconds = index
        else:
            packets = self._in_order_of_display(first_stamp)
            keys = [packet.stamp for packet in packets if packet.is_key]
            if not keys:
                return None
            count, key, end_seconds = (len(packets), keys[-1],
                                       packets[-1].end_seconds)
        last_stamp = self._last_stamp(key)
        if last_stamp is None:
            return None
        return Frames(count, stamp_seconds(first_stamp, self._stream),
                      stamp_seconds(last_stamp, self._stream), end_seconds,
                      True)

    def _in_order_of_display(self, first_stamp: int) -> list[_Packet]:
        """Packets of frames; none if their stamps are useless."""
        if not self._is_stamped:
            return []
        if self._read_error is not None:
            raise InputError(
                f"{self._path}: cannot be read after "
                f"{self._reached_seconds:.1f} s "
                f"({error_reason(self._read_error)}): {MEND}"
            ) from self._read_error
        self._refuse_lost_seconds()
        packets = sorted(packet for packet in self._packets
                         if packet.stamp >= first_stamp)
        return packets if _is_rising([each.stamp for each in packets]) else []

    def _last_stamp(self, key: int) -> int | None:
        """Time stamp of the last frame, with all from the key frame decoded.

        None if the frames are not those that the packets promise.
        """
        promised: list[int] = []
        decoded: list[int] = []
        is_timed = True
        try:
            self._container.seek(key, stream=self._stream)
            for packet in self._container.demux(self._stream):
                if packet.size and not packet.is_discard:
                    is_timed &= _add(promised, packet.pts)
                for frame in packet.decode():
                    is_timed &= _add(decoded, frame.pts)
        except FFmpegError as error:
            raise InputError(
                f"{self._path}: the end of the video cannot be decoded "
                f"({error_reason(error)}): {MEND}") from error
        if not promised or not is_timed:
            return None
        # Frames from before a key frame may lean on others not decoded.
        due = sorted(stamp for stamp in promised if stamp >= promised[0])
        given = [stamp for stamp in decoded if stamp >= promised[0]]
        return given[-1] if given == due and _is_rising(given) else None

    def _decoded(self) -> Frames:
        error = self._decode_error or self._read_error
        if error is not None:
            raise InputError(
                f"{self._path}: the video cannot be decoded after "
                f"{self._num_decoded} pictures ({error_reason(error)}): "
                f"{MEND}") from error
        self._refuse_lost_seconds()
        stamps = self._decoded_stamps
        if len(stamps) < self._num_decoded or not _is_rising(stamps):
            return Frames(self._num_decoded, 0.0, None, 0.0, False)
        return Frames(len(stamps), stamp_seconds(stamps[0], self._stream),
                      stamp_seconds(stamps[-1], self._stream),
                      self._decoded_end_seconds, True)

    def _refuse_lost_seconds(self) -> None:
        """Raises if all streams end well before the length in the header."""
        promised_seconds = (self._container.duration or 0) / av.time_base
        if is_avi(self._container) and self._rate:
            # FFmpeg shortens the duration of a cut AVI to what is left.
            promised_seconds = max(promised_seconds,
                                   self._stream.frames / self._rate)
        slack_seconds = min(_LOST_SECONDS, _LOST_SHARE * promised_seconds)
        if self._reached_seconds < promised_seconds - slack_seconds:
            raise InputError(
                f"{self._path}: the file is cut off: its header promises "
                f"{promised_seconds:.1f} s and it ends after "
                f"{self._reached_seconds:.1f} s: {MEND}")


def _complete_index(container: InputContainer, stream: VideoStream
                    ) -> _Index | None:
    """None where the packets must be read to know them all."""
    if not is_mp4(container):
        return None
    listed = [entry for entry in stream.index_entries if not entry.is_discard]
    keys = [entry.timestamp for entry in listed if entry.is_keyframe]
    if (len(listed) != stream.frames or not keys
            or stream.start_time is None or not stream.duration):
        return None
    return _Index(
        stream.frames, stream.start_time, keys[-1],
        stamp_seconds(stream.start_time + stream.duration, stream))


def _add(stamps: list[int], stamp: int | None) -> bool:
    """Whether there was a stamp to add."""
    if stamp is not None:
        stamps.append(stamp)
    return stamp is not None


def _is_rising(stamps: Sequence[int]) -> bool:
    return all(before < after for before, after in itertools.pairwise(stamps))


def _end_seconds(last: Packet | VideoFrame, rate: float) -> float:
    """When the last packet or frame ends; its length may be unknown."""
    unit = float(last.time_base or 0)
    length = last.duration * unit if last.duration else (
        1 / rate if rate else 0.0)
    return (last.pts or 0) * unit + length
