"""A video file as a row of frames: how many there are, and their pixels.

Time model. A video is read on a constant grid of `fps` frames a second that
starts with its first picture: frame i lasts from i / fps to (i + 1) / fps and
is the picture on screen in its middle, (i + 0.5) / fps after the time stamp
of the first picture. In a file of constant rate that is the i-th picture,
even where the container rounds time stamps to milliseconds. In a file of
variable rate `fps` is the average rate, and a frame is whatever is shown
then. `frame_count` is the number of pictures the decoder gives, and
`duration_seconds` is frame_count / fps, in both cases.

Time stamps that do not increase in order of display are useless (packed
B-frames in AVI files); there frame i is the i-th picture decoded.
"""

import collections
import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from losa_jax.data.records import EncodedVideo, VideoInfo
from losa_jax.data.video.container import (
    MEND,
    decode_packets,
    error_reason,
    open_video,
    stamp_seconds,
)
from losa_jax.data.video.frame import Picture, is_planar, upright_rgb
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError

# Seeks to ever earlier key frames before decoding from the start.
_SEEK_TRIES = 3


class VideoDecodeError(InputError):
    """A frame that the file promised cannot be had."""


class _SkippedTooMuch(Exception):
    """A decoder told to leave out what is not needed left out more."""


def read_frames(path: str | Path | EncodedVideo,
                frame_indices: Sequence[int] | np.ndarray, *,
                height: int | None = None, width: int | None = None,
                info: VideoInfo | None = None) -> np.ndarray:
    """Decodes frames of a video, exactly and upright, in one pass.

    Args:
      path: the file, or its bytes; these need `info`.
      frame_indices: [f] frames of the grid at the top of this file, in any
        order, repeats allowed.
      height, width: size of the pictures returned; None keeps the file's.
      info: what `probe_video` said of the file; None probes it now.

    Returns:
      uint8 [f, H, W, 3], RGB.

    Raises:
      ValueError: a frame index lies outside [0, frame_count).
      VideoDecodeError: a frame cannot be decoded, or the file that `info`
        tells of cannot be opened (any more).
      InputError: without `info`, the file is missing or no video.
    """
    path, info = _probed(path, info)
    size = height or info.height, width or info.width
    frames = np.empty((len(frame_indices), *size, 3), np.uint8)

    def write(frame: VideoFrame, places: np.ndarray) -> None:
        frames[places] = upright_rgb(frame, *size)

    _visit(path, frame_indices, info, write)
    return frames


def visit_pictures(path: str | Path | EncodedVideo,
                   frame_indices: Sequence[int] | np.ndarray,
                   visit: Callable[[Picture, int], None], *,
                   info: VideoInfo | None = None) -> None:
    """`read_frames` that shows each picture as soon as it is decoded, so
    that no window is ever in memory at the file's own size.

    Args:
      path, frame_indices, info: as `read_frames`.
      visit: called with the picture of each frame and the frame's place
        among the f. The picture is good until it returns (or `kept`). In
        rare files some are shown twice.

    Raises:
      as `read_frames`.
    """
    path, info = _probed(path, info)

    def show(frame: VideoFrame, places: np.ndarray) -> None:
        # A picture may change its size in the middle of a file.
        as_stored = is_planar(frame) and (
            (frame.height, frame.width) == (info.height, info.width))
        picture = Picture(frame if as_stored
                          else upright_rgb(frame, info.height, info.width))
        for place in places:
            visit(picture, int(place))

    _visit(path, frame_indices, info, show)


def _visit(path: Path | EncodedVideo,
           frame_indices: Sequence[int] | np.ndarray, info: VideoInfo,
           visit: Callable[[VideoFrame, np.ndarray], None]) -> None:
    """Shows each picture and the places of the frames that show it."""
    wanted, place_of = np.unique(np.asarray(frame_indices, np.int64),
                                 return_inverse=True)
    _refuse_outside(wanted, path, info)
    if not wanted.size:
        return
    # Those of wanted[i] are places[first[i]:first[i + 1]].
    places = np.argsort(place_of, kind="stable")
    first = [0, *np.cumsum(np.bincount(place_of)).tolist()]

    def show(skip: bool) -> None:
        done = 0
        for frame, shown in _shown(path, info, wanted, skip=skip):
            try:
                visit(frame, places[first[done]:first[done + shown]])
            except FFmpegError as error:  # cannot be turned into RGB
                raise _lost_frame(path, info, wanted[done], error) from error
            done += shown

    try:
        show(skip=info.is_timed)
    except _SkippedTooMuch:
        show(skip=False)
    except VideoDecodeError:
        raise
    except InputError as error:  # deleted or replaced since it was probed
        raise VideoDecodeError(str(error)) from error


def iterate_frames(path: str | Path | EncodedVideo,
                   frame_indices: Sequence[int] | np.ndarray, *,
                   height: int | None = None, width: int | None = None,
                   info: VideoInfo | None = None, threads: int = 1
                   ) -> Iterator[np.ndarray]:
    """The frames of `read_frames` one by one: memory for one picture.

    Args:
      path, height, width, info: as `read_frames`.
      frame_indices: [f] frames that never fall; repeats give the same array
        again.
      threads: of the decoder; more where nothing else is decoded meanwhile.

    Yields:
      uint8 [H, W, 3], RGB; not to be written to.

    Raises:
      as `read_frames`, when the frame is due.
    """
    path, info = _probed(path, info)
    wanted = np.asarray(frame_indices, np.int64)
    if not wanted.size:
        return
    if np.any(np.diff(wanted) < 0):
        raise ValueError("frame_indices fall")
    _refuse_outside(wanted, path, info)
    size = height or info.height, width or info.width
    done = 0
    try:
        for frame, shown in _shown(path, info, wanted, threads=threads):
            try:
                pixels = upright_rgb(frame, *size)
            except FFmpegError as error:
                raise _lost_frame(path, info, wanted[done], error) from error
            for _ in range(shown):
                yield pixels
            done += shown
    except VideoDecodeError:
        raise
    except InputError as error:  # deleted or replaced since it was probed
        raise VideoDecodeError(str(error)) from error


def _probed(path: str | Path | EncodedVideo, info: VideoInfo | None
            ) -> tuple[Path | EncodedVideo, VideoInfo]:
    if isinstance(path, EncodedVideo):
        if info is None:
            raise ValueError(f"{path}: bytes without info are not probed")
        return path, info
    path = Path(path)
    return path, info or probe_video(path)


def _refuse_outside(rising: np.ndarray, path: Path | EncodedVideo,
                    info: VideoInfo) -> None:
    if rising.size and not 0 <= rising[0] <= rising[-1] < info.frame_count:
        raise ValueError(
            f"{path}: frames {rising[0]} to {rising[-1]} asked for, the "
            f"video has 0 to {info.frame_count - 1}")


def _shown(path: Path | EncodedVideo, info: VideoInfo, wanted: np.ndarray,
           *, threads: int = 1, skip: bool = False
           ) -> Iterator[tuple[VideoFrame, int]]:
    """One pass over the file: (picture, how many of `wanted` show it next).

    Args:
      wanted: [f] frames that never fall.
      skip: see `_timed_pictures`; not with threads.
    """
    if info.is_timed:
        moments = info.first_seconds + (wanted + 0.5) / info.fps
        last_moment = info.last_seconds
        pictures = _timed_pictures(path, moments, threads, skip)
    else:
        moments = wanted + 0.5
        last_moment = info.frame_count - 1
        pictures = _counted_pictures(path, threads)
    done = 0
    with contextlib.closing(pictures):
        try:
            for picture, shown in _shown_at(pictures, moments, last_moment):
                yield picture, shown
                done += shown
        except FFmpegError as error:
            raise _lost_frame(path, info, wanted[done], error) from error
    if done < len(wanted):
        raise _lost_frame(path, info, wanted[done], "the file ends before it")


def _lost_frame(path: Path | EncodedVideo, info: VideoInfo, frame_index: int,
                reason: object) -> VideoDecodeError:
    return VideoDecodeError(
        f"{path}: frame {frame_index} of {info.frame_count} (at "
        f"{(frame_index + 0.5) / info.fps:.2f} s) cannot be decoded "
        f"({error_reason(reason)}): {MEND}")


def _counted_pictures(path: Path | EncodedVideo, threads: int
                      ) -> Generator[tuple[float, VideoFrame]]:
    """(number, picture) from the start."""
    with open_video(path, threads) as (container, stream):
        yield from enumerate(decode_packets(container.demux(stream)))


def _timed_pictures(path: Path | EncodedVideo, moments: np.ndarray,
                    threads: int, skip: bool
                    ) -> Generator[tuple[float, VideoFrame]]:
    """(time stamp in seconds, picture), from one shown by the first moment
    on.

    Raises:
      _SkippedTooMuch: only with `skip`, which leaves out pictures that are
        neither shown at a moment nor needed to decode others.
    """
    with open_video(path, threads) as (container, stream):
        pictures = _decode_from(container, stream, moments, skip)
        base = stream.time_base
        assert base is not None  # only before a file is read
        for picture in pictures or ():
            if picture.pts is not None:
                yield (picture.pts * base.numerator / base.denominator,
                       picture)
    if pictures is None:
        with open_video(path, threads) as (container, stream):
            for picture in decode_packets(container.demux(stream)):
                if picture.pts is not None:
                    yield stamp_seconds(picture.pts, stream), picture


def _decode_from(container: InputContainer, stream: VideoStream,
                 moments: np.ndarray, skip: bool
                 ) -> Iterator[VideoFrame] | None:
    """Seeks; None if no key frame is found that begins by the first
    moment."""
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
                           else decode_packets(packets))
                # Pictures from before the key frame (open groups) may lean
                # on others that were not decoded.
                pictures = (
                    picture for picture in decoded
                    if picture.pts is not None and picture.pts >= key.pts)
                first = next(pictures, None)
                # A seek may land late, and some key frames only begin a
                # gradual refresh.
                if (first is not None and first.pts is not None
                        and first.pts <= latest):
                    return itertools.chain([first], pictures)
            goal = key.dts - 1
        except FFmpegError:
            return None
    return None


def _decode_needed(packets: Iterator[Packet], stream: VideoStream,
                   moments: np.ndarray) -> Iterator[VideoFrame]:
    """Decodes without the pictures that nobody looks at or leans on.

    What is shown at the moments is known from the packets' time stamps
    before anything is decoded. Needs a decoder without threads, which obeys
    `skip_frame` packet by packet.
    """
    ahead, needed = _needed_stamps(packets, stream, moments)
    due = collections.deque(sorted(needed))
    last = max(needed, default=0)
    decoder, skips = stream.codec_context, False
    decoder.skip_frame = "DEFAULT"  # an earlier try may have left it
    for packet in itertools.chain(ahead, packets):
        # What follows the last one tells that it is not the file's last.
        is_idle = bool(due) and packet.size > 0 and packet.pts is not None and (
            packet.pts < last and packet.pts not in needed)
        if is_idle != skips:
            decoder.skip_frame = "NONREF" if is_idle else "DEFAULT"
            skips = is_idle
        for picture in packet.decode():
            if due and picture.pts is not None:
                if picture.pts > due[0]:
                    raise _SkippedTooMuch
                if picture.pts == due[0]:
                    due.popleft()
            yield picture


def _needed_stamps(packets: Iterator[Packet], stream: VideoStream,
                   moments: np.ndarray) -> tuple[list[Packet], set[int]]:
    """Packets up to the last moment, and the stamps of pictures shown at
    the moments: none where the packets do not tell."""
    ahead: list[Packet] = []
    last = moments[-1] / stream.time_base
    for packet in packets:
        ahead.append(packet)
        if packet.size == 0:  # the demuxer's sign for the end
            break
        if packet.pts is None or packet.dts is None or packet.is_discard:
            return ahead, set()
        if packet.dts > last:  # and so is when those to come are shown
            break
    stamps = sorted(packet.pts for packet in ahead
                    if packet.size and packet.pts is not None)
    seconds = [stamp_seconds(stamp, stream) for stamp in stamps]
    shown = np.searchsorted(seconds, moments, side="right") - 1
    if shown[0] < 0:  # this was no key frame to start from
        return ahead, set()
    return ahead, {stamps[number] for number in shown}


def _shown_at(pictures: Iterable[tuple[float, VideoFrame]],
              moments: np.ndarray, last_moment: float | None
              ) -> Iterator[tuple[VideoFrame, int]]:
    """Pictures on screen at the moments, and at how many of them each is.

    Args:
      pictures: (moment from which it is shown, picture), rising.
      moments: [f], rising.
      last_moment: from when the last picture of the file is shown: if the
        pictures end earlier, some are lost. None: not known.
    """
    left = collections.deque(moments.tolist())
    current, since = None, -np.inf
    for start, picture in pictures:
        if current is not None:
            shown = 0
            while left and left[0] < start:
                left.popleft()
                shown += 1
            if shown:
                yield current, shown
            if not left:
                return
        current, since = picture, start
    is_whole = last_moment is None or since >= last_moment
    if current is not None and is_whole:
        yield current, len(left)
