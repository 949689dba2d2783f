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

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from losa_jax.data.video_file import (
    MEND,
    EncodedVideo,
    decode_packets,
    error_reason,
    open_video,
    quarter_turns,
    stamp_seconds,
)
from losa_jax.data.video_probe import VideoInfo, probe_video
from losa_jax.errors import InputError

# Seeks to ever earlier key frames before decoding from the start.
_SEEK_TRIES = 3


class VideoDecodeError(InputError):
    """A frame that the file promises cannot be decoded."""


def read_frames(path: str | Path | EncodedVideo,
                frame_indices: Sequence[int], *,
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
      VideoDecodeError: a frame cannot be decoded.
      InputError: the file is missing or no video.
    """
    path, info = _probed(path, info)
    indices = np.asarray(frame_indices, np.int64)
    wanted = np.unique(indices)
    frames = np.empty(
        (len(indices), height or info.height, width or info.width, 3),
        np.uint8)
    pixels = iterate_frames(path, wanted, height=height, width=width,
                            info=info)
    for frame_index, shown in zip(wanted, pixels, strict=True):
        frames[indices == frame_index] = shown
    return frames


def iterate_frames(path: str | Path | EncodedVideo,
                   frame_indices: Sequence[int], *,
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
    if not 0 <= wanted[0] <= wanted[-1] < info.frame_count:
        raise ValueError(
            f"{path}: frames {wanted[0]} to {wanted[-1]} asked for, the "
            f"video has 0 to {info.frame_count - 1}")
    if info.is_timed:
        moments = info.first_seconds + (wanted + 0.5) / info.fps
        last_moment = info.last_seconds
        pictures = _timed_pictures(path, moments[0], threads)
    else:
        moments = wanted + 0.5
        last_moment = info.frame_count - 1
        pictures = _counted_pictures(path, threads)
    done = 0
    # One for all frames: each holds buffers of some megabytes.
    reformatter = VideoReformatter()
    size = height or info.height, width or info.width
    with contextlib.closing(pictures):
        try:
            for picture, shown in _shown_at(pictures, moments, last_moment):
                pixels = upright_rgb(picture, reformatter, *size)
                for _ in range(shown):
                    yield pixels
                done += shown
        except FFmpegError as error:
            raise _lost_frame(path, info, wanted[done], error) from error
    if done < len(wanted):
        raise _lost_frame(path, info, wanted[done], "the file ends before it")


def _probed(path: str | Path | EncodedVideo, info: VideoInfo | None
            ) -> tuple[Path | EncodedVideo, VideoInfo]:
    if isinstance(path, EncodedVideo):
        if info is None:
            raise ValueError(f"{path}: bytes without info are not probed")
        return path, info
    path = Path(path)
    return path, info or probe_video(path)


def _lost_frame(path: Path | EncodedVideo, info: VideoInfo, frame_index: int,
                reason: object) -> VideoDecodeError:
    return VideoDecodeError(
        f"{path}: frame {frame_index} of {info.frame_count} (at "
        f"{(frame_index + 0.5) / info.fps:.2f} s) cannot be decoded "
        f"({error_reason(reason)}): {MEND}")


def upright_rgb(picture: VideoFrame, reformatter: VideoReformatter,
                 height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3] of a decoded picture."""
    turns = quarter_turns(picture)
    if turns % 2:
        height, width = width, height
    scaled = reformatter.reformat(
        picture, width=width, height=height, format="rgb24",
        interpolation="BILINEAR", threads=1)
    return np.rot90(scaled.to_ndarray(), turns)


def _counted_pictures(path: Path | EncodedVideo, threads: int
                      ) -> Iterator[tuple[float, VideoFrame]]:
    """(number, picture) from the start."""
    with open_video(path, threads) as (container, stream):
        yield from enumerate(decode_packets(container.demux(stream)))


def _timed_pictures(path: Path | EncodedVideo, moment: float,
                    threads: int
                    ) -> Iterator[tuple[float, VideoFrame]]:
    """(time stamp in seconds, picture), from one shown by `moment` on."""
    with open_video(path, threads) as (container, stream):
        pictures = _decode_from(container, stream, moment)
        for picture in pictures or ():
            yield stamp_seconds(picture.pts, stream), picture
    if pictures is None:
        with open_video(path, threads) as (container, stream):
            for picture in decode_packets(container.demux(stream)):
                if picture.pts is not None:
                    yield stamp_seconds(picture.pts, stream), picture


def _decode_from(container: InputContainer, stream: VideoStream,
                 moment: float) -> Iterator[VideoFrame] | None:
    """Seeks; None if no key frame is found that begins by `moment`."""
    goal = latest = int(moment / stream.time_base)
    for _ in range(_SEEK_TRIES):
        try:
            container.seek(goal, stream=stream)
            packets = container.demux(stream)
            key = next(packets)
            if key.dts is None:
                return None
            if key.is_keyframe and key.pts is not None:
                # Pictures from before the key frame (open groups) may lean
                # on others that were not decoded.
                decoded = decode_packets(itertools.chain([key], packets))
                pictures = (
                    picture for picture in decoded
                    if picture.pts is not None and picture.pts >= key.pts)
                first = next(pictures, None)
                # A seek may land late, and some key frames only begin a
                # gradual refresh.
                if first is not None and first.pts <= latest:
                    return itertools.chain([first], pictures)
            goal = key.dts - 1
        except FFmpegError:
            return None
    return None


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
    done = 0
    current, since = None, -np.inf
    for start, picture in pictures:
        if current is not None:
            shown = int(np.searchsorted(moments, start)) - done
            if shown > 0:
                yield current, shown
                done += shown
            if done == len(moments):
                return
        current, since = picture, start
    is_whole = last_moment is None or since >= last_moment
    if current is not None and is_whole:
        yield current, len(moments) - done
