"""Decodes the frames of a video.

Time model. A video is read on a constant grid of `fps` frames per second that
starts where players show 0:00, with the first stream of the file: frame i
lasts from i / fps to (i + 1) / fps and shows the decoded frame that is on
screen in its middle. Usually the video starts there itself, and in a file of
constant rate that is the i-th decoded frame, even where the container rounds
time stamps. Before a video that starts later (`lead_frames`, rounded to whole
frames), its first frame is shown. In a file of variable rate `fps` is the
average.

Where time stamps do not increase in display order (packed B-frames in AVI
files), frame i is the i-th decoded frame.
"""

import collections
import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError

from losa_jax.data.records import EncodedVideo, VideoInfo
from losa_jax.data.video.container import (
    VideoDecodeError,
    damaged,
    error_reason,
    open_video,
    stamp_seconds,
)
from losa_jax.data.video.frame import DecodedFrame, is_planar, upright_rgb

__all__ = ["VideoDecodeError", "iterate_frames"]

# Seeks to ever earlier key frames before decoding from the start.
_SEEK_TRIES = 3


class _SkippedTooMuch(Exception):
    """The decoder skipped a frame that is needed."""


def iterate_frames(path: Path | EncodedVideo,
                   frame_indices: Sequence[int] | np.ndarray,
                   info: VideoInfo, *, threads: int = 1,
                   skip_unneeded: bool = False) -> Iterator[DecodedFrame]:
    """Decodes frames of a video in one pass, exactly and upright.

    Yields one frame for each index, the same object for equal ones. It holds
    the decoder's memory: copy it to keep it.

    Args:
      path: the file, or its bytes.
      frame_indices: [f] indices that do not decrease.
      info: the result of `probe_video`; has the size of every frame.
      threads: of the decoder.
      skip_unneeded: do not decode frames that are neither asked for nor
        references of others. Holds the packets up to the last frame in
        memory; needs one thread.

    Raises:
      ValueError: the indices decrease or lie outside [0, frame_count).
      VideoDecodeError: the file or a frame cannot be read (any more).
    """
    wanted = np.asarray(frame_indices, np.int64)
    if not wanted.size:
        return
    if np.any(np.diff(wanted) < 0):
        raise ValueError("frame_indices must not decrease")
    if not 0 <= wanted[0] <= wanted[-1] < info.frame_count:
        raise ValueError(
            f"{path}: frames {wanted[0]} to {wanted[-1]} asked for, the "
            f"video has 0 to {info.frame_count - 1}")
    done = 0
    try:
        for frame in _frames(path, info, wanted, threads,
                             skip=skip_unneeded and info.is_timed):
            yield frame
            done += 1
    except _SkippedTooMuch:
        yield from itertools.islice(
            _frames(path, info, wanted, threads, skip=False), done, None)


def _frames(path: Path | EncodedVideo, info: VideoInfo, wanted: np.ndarray,
            threads: int, *, skip: bool) -> Iterator[DecodedFrame]:
    moments = np.maximum(wanted - info.lead_frames, 0) + 0.5
    last_moment: float | None = info.frame_count - 1
    if info.is_timed:
        moments = info.first_seconds + moments / info.fps
        last_moment = info.last_seconds
    done, reason = 0, "the file ends before it"
    with contextlib.closing(_stamped_frames(
            path, moments, threads, is_timed=info.is_timed,
            may_seek=info.is_timed and info.is_seekable,
            skip=skip)) as decoded:
        try:
            for frame, count in _shown_at(decoded, moments, last_moment):
                # The size may change in the middle of a file.
                as_stored = is_planar(frame) and (
                    (frame.height, frame.width) == (info.height, info.width))
                shown = DecodedFrame(
                    frame if as_stored
                    else upright_rgb(frame, info.height, info.width))
                yield from itertools.repeat(shown, count)
                done += count
        except FFmpegError as error:
            reason = error_reason(error)
    if done < len(wanted):
        raise damaged(
            path, f"frame {wanted[done]} of {info.frame_count} (at "
            f"{(wanted[done] + 0.5) / info.fps:.2f} s) cannot be decoded",
            reason)


def _stamped_frames(path: Path | EncodedVideo, moments: np.ndarray,
                    threads: int, *, is_timed: bool, may_seek: bool, skip: bool
                    ) -> Generator[tuple[float, av.VideoFrame]]:
    """Yields (time stamp in seconds, frame) from a frame that is on screen at
    the first moment or before; (number, frame) from the start if not timed."""
    for seeks in (True, False) if may_seek else (False,):
        with open_video(path, threads) as (container, stream):
            frames = (_decode_from(container, stream, moments, skip) if seeks
                      else container.decode(stream))
            if frames is None:
                continue
            for number, frame in enumerate(frames):
                if not is_timed:
                    yield number, frame
                elif frame.pts is not None:
                    yield stamp_seconds(frame.pts, stream), frame
            return


def _decode_from(container: InputContainer, stream: av.VideoStream,
                 moments: np.ndarray, skip: bool
                 ) -> Iterator[av.VideoFrame] | None:
    """Decodes from a key frame before the first moment; None without one."""
    goal = latest = int(moments[0] / stream.time_base)
    for _ in range(_SEEK_TRIES):
        try:
            container.seek(goal, stream=stream)
            packets = container.demux(stream)
            key = next(packets)
            if key.dts is None:
                return None
            if key.is_keyframe and key.pts is not None:
                packets = itertools.chain([key], packets)
                decoded = (_decode_needed(packets, stream, moments) if skip
                           else (frame for packet in packets
                                 for frame in packet.decode()))
                # In open GOPs, frames before the key frame may refer to
                # others that were not decoded.
                frames = (frame for frame in decoded
                          if frame.pts is not None and frame.pts >= key.pts)
                first = next(frames, None)
                # A seek may land late, and some key frames only begin a
                # gradual refresh.
                if (first is not None and first.pts is not None
                        and first.pts <= latest):
                    return itertools.chain([first], frames)
            goal = key.dts - 1
        except FFmpegError:
            return None
    return None


def _decode_needed(packets: Iterator[av.Packet], stream: av.VideoStream,
                   moments: np.ndarray) -> Iterator[av.VideoFrame]:
    """Decodes the frames on screen at the moments and their references. (Only
    a decoder without threads obeys `skip_frame` packet by packet.)"""
    ahead, needed = _needed_stamps(packets, stream, moments)
    due = collections.deque(sorted(needed))
    last = max(needed, default=0)
    decoder = stream.codec_context
    for packet in itertools.chain(ahead, packets):
        # Frames after the last needed one are decoded: they show that the
        # file does not end with it.
        skips = bool(due) and packet.size > 0 and packet.pts is not None and (
            packet.pts < last and packet.pts not in needed)
        decoder.skip_frame = "NONREF" if skips else "DEFAULT"
        for frame in packet.decode():
            if due and frame.pts is not None:
                if frame.pts > due[0]:
                    raise _SkippedTooMuch
                if frame.pts == due[0]:
                    due.popleft()
            yield frame


def _needed_stamps(packets: Iterator[av.Packet], stream: av.VideoStream,
                   moments: np.ndarray) -> tuple[list[av.Packet], set[int]]:
    """Returns the packets up to the last moment, and the stamps of the frames
    on screen at the moments (none if the packets do not show them)."""
    ahead: list[av.Packet] = []
    last = moments[-1] / stream.time_base
    for packet in packets:
        ahead.append(packet)
        if packet.size == 0:  # the demuxer's sign for the end
            break
        if packet.pts is None or packet.dts is None or packet.is_discard:
            return ahead, set()
        if packet.dts > last:  # so are the time stamps of all that follow
            break
    stamps = sorted(packet.pts for packet in ahead
                    if packet.size and packet.pts is not None)
    seconds = [stamp_seconds(stamp, stream) for stamp in stamps]
    shown = np.searchsorted(seconds, moments, side="right") - 1
    if shown[0] < 0:  # the seek landed too late
        return ahead, set()
    return ahead, {stamps[number] for number in shown}


def _shown_at(frames: Iterable[tuple[float, av.VideoFrame]],
              moments: np.ndarray, last_moment: float | None
              ) -> Iterator[tuple[av.VideoFrame, int]]:
    """Yields the frames on screen at the moments, and at how many each is.

    Takes (moment from which it is shown, frame), rising. If these end before
    `last_moment`, when the last frame of the file appears, some are lost.
    """
    done = 0
    current, since = None, -np.inf
    for start, frame in frames:
        if current is not None:
            end = int(np.searchsorted(moments, start))
            if end > done:
                yield current, end - done
                done = end
            if done == len(moments):
                return
        current, since = frame, start
    if current is not None and (last_moment is None or since >= last_moment):
        yield current, len(moments) - done
