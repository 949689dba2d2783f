"""One pass over a video file: its packets, and its decoder where needed.

Packets are quick to read and mostly show how many frames there are; only the
decoder knows.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.error import FFmpegError

from losa_jax.data.video.container import (
    damaged,
    header_fps,
    is_format,
    stamp_seconds,
)

# Codecs in which every packet is one frame. VP8 hides frames and MPEG-4 packs
# two into one packet: only decoding shows how many there are.
_ONE_FRAME_PER_PACKET = {"h264", "hevc", "vp9", "av1"}
# In these formats a seek goes by decoding time, so that with reordered frames
# a seek to the last key frame mostly ends after it.
_SEEK_BY_DECODING_TIME = {"mpegts", "mpeg"}
# Headers round, and the streams of a file end a little apart. A file that
# lacks more than this of the length in its header, or more than the share of
# it in a short file, has lost its end.
_LOST_SECONDS = 1.0
_LOST_SHARE = 0.1


class FrameTimes(NamedTuple):
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


class PacketScan:
    """One pass over an open file from its start.

    Errors after the first frame are stored, because packets may still be
    counted where the decoder fails.
    """

    def __init__(self, path: Path, container: InputContainer,
                 stream: av.VideoStream):
        """Takes a path for messages, and an open file not yet read."""
        self._path, self._container, self._stream = path, container, stream
        self._fps = header_fps(stream)
        # Read first: the index of a fragmented file grows during the pass.
        self._index = _complete_index(container, stream)
        self._left = container.demux()
        # Time stamp, whether it is a key frame, and end in seconds.
        self._packets: list[tuple[int, bool, float]] = []
        self._is_stamped = True
        self._reached_seconds = 0.0  # by the packets of all streams
        self._read_error: FFmpegError | None = None
        self._decoded_stamps: list[Any] = []  # int, or None
        self._decoded_end_seconds = 0.0
        self._decode_error: FFmpegError | None = None

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

    def frame_times(self, *, decode: bool) -> FrameTimes | None:
        """Counts the packets, or decodes all where they cannot be trusted.

        Args:
          decode: decode every file, and believe the decoder.

        Returns:
          None if packets that were read without decoding turn out to be
          wrong.

        Raises:
          InputError: the file is damaged.
        """
        first_stamp = self._decoded_stamps[0]
        codec = self._stream.codec_context.codec.canonical_name
        if first_stamp is None or codec not in _ONE_FRAME_PER_PACKET or (
                is_format(self._container, "avi")):
            return self.decode_all()
        count = self._index
        if count is not None and count.first_stamp != first_stamp:
            count = None
        decodes = decode or (
            self._container.format.name in _SEEK_BY_DECODING_TIME)
        if decodes or count is None:
            self._finish(decode=decodes, needs_packets=count is None)
        if count is None:
            count = self._count_packets(first_stamp)
        counted = None if count is None else self._decode_end(count)
        if not decodes or (counted is not None and not decode):
            return counted
        decoded = self._decoded_times()
        # Where both agree, the packets know better how long the last frame
        # is shown.
        return (counted if counted is not None and counted[:3] == decoded[:3]
                else decoded)

    def decode_all(self) -> FrameTimes:
        """Decodes the rest of the file; InputError if it is damaged."""
        self._finish(decode=True, needs_packets=False)
        return self._decoded_times()

    def _finish(self, *, decode: bool, needs_packets: bool) -> None:
        try:
            for packet in self._left:
                self._note(packet)
                if decode and self._decode_error is None:
                    try:
                        self._decode(packet)
                    except FFmpegError as error:
                        self._decode_error = error
                        if not needs_packets:
                            return
        except FFmpegError as error:
            self._read_error = error

    def _note(self, packet: av.Packet) -> None:
        if not packet.size:  # the demuxer's sign for the end
            return
        is_frame = packet.stream is self._stream and not packet.is_discard
        if packet.pts is None:
            self._is_stamped &= not is_frame
            return
        end_seconds = _end_seconds(packet, self._fps)
        self._reached_seconds = max(self._reached_seconds, end_seconds)
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
        return frames

    def _count_packets(self, first_stamp: int) -> _Count | None:
        """None if the stamps cannot be used or there is no key frame."""
        if not self._is_stamped:
            return None
        if self._read_error is not None:
            raise damaged(
                self._path,
                f"cannot be read after {self._reached_seconds:.1f} s",
                self._read_error) from self._read_error
        self._require_all_seconds()
        packets = sorted(packet for packet in self._packets
                         if packet[0] >= first_stamp)
        keys = [stamp for stamp, is_key, _ in packets if is_key]
        if not keys or not _is_rising([packet[0] for packet in packets]):
            return None
        return _Count(len(packets), first_stamp, keys[-1], packets[-1][2])

    def _decode_end(self, count: _Count) -> FrameTimes | None:
        """Decodes the frames from the last key frame on; None if they are not
        those that the packets promise."""
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
        return FrameTimes(
            count.num_frames, stamp_seconds(count.first_stamp, self._stream),
            stamp_seconds(given[-1], self._stream), count.end_seconds, True)

    def _decoded_times(self) -> FrameTimes:
        stamps = self._decoded_stamps
        error = self._decode_error or self._read_error
        if error is not None:
            raise damaged(
                self._path, "the video cannot be decoded after "
                f"{len(stamps)} frames", error) from error
        self._require_all_seconds()
        if None in stamps or not _is_rising(stamps):
            return FrameTimes(len(stamps), 0.0, None, 0.0, False)
        return FrameTimes(len(stamps), stamp_seconds(stamps[0], self._stream),
                          stamp_seconds(stamps[-1], self._stream),
                          self._decoded_end_seconds, True)

    def _require_all_seconds(self) -> None:
        """Raises if all streams end well before the length in the header."""
        promised_seconds = (self._container.duration or 0) / av.time_base
        if is_format(self._container, "avi") and self._fps:
            # FFmpeg shortens the duration of a cut AVI to what is left.
            promised_seconds = max(promised_seconds,
                                   self._stream.frames / self._fps)
        slack_seconds = min(_LOST_SECONDS, _LOST_SHARE * promised_seconds)
        if self._reached_seconds < promised_seconds - slack_seconds:
            raise damaged(
                self._path, "the file is cut off. Its header promises "
                f"{promised_seconds:.1f} s and it ends after "
                f"{self._reached_seconds:.1f} s")


def _complete_index(container: InputContainer, stream: av.VideoStream
                    ) -> _Count | None:
    """The frames by the index of an MP4; None if packets must be counted."""
    if not is_format(container, "mp4"):
        return None
    listed = [entry for entry in stream.index_entries if not entry.is_discard]
    keys = [entry.timestamp for entry in listed if entry.is_keyframe]
    if (len(listed) != stream.frames or not keys
            or stream.start_time is None or not stream.duration):
        return None
    return _Count(
        stream.frames, stream.start_time, keys[-1],
        stamp_seconds(stream.start_time + stream.duration, stream))


def _is_rising(stamps: Sequence[int]) -> bool:
    return all(before < after for before, after in itertools.pairwise(stamps))


def _end_seconds(last: av.Packet | av.VideoFrame, fps: float) -> float:
    """When a packet or frame ends; its length may be unknown."""
    unit = float(last.time_base or 0)
    length = last.duration * unit if last.duration else (
        1 / fps if fps else 0.0)
    return (last.pts or 0) * unit + length
