"""Small copies of videos: what training reads, and no more.

A copy has the grid of its source (`losa_jax.data.video.decode`) at a constant
rate from time 0, upright, without sound: seconds mean the same in both.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from losa_jax.data.records import VideoInfo
from losa_jax.data.video.container import error_reason
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError

# While it is written; never taken for a video.
PARTIAL = ".partial"
# 30000/1001 and its kind are met exactly.
_MAX_DENOMINATOR = 1001


def copy_size(info: VideoInfo, short_side: int) -> tuple[int, int]:
    """Height and width of a copy: even, and never larger than its source."""
    scale = min(1.0, short_side / min(info.height, info.width))
    return (max(2, round(info.height * scale / 2) * 2),
            max(2, round(info.width * scale / 2) * 2))


def copy_frames(info: VideoInfo, fps: float) -> np.ndarray:
    """Frames of the source that a copy of `fps` shows, rising."""
    count = max(1, round(info.duration_seconds * fps))
    middles = (np.arange(count) + 0.5) / fps
    frames = np.floor(middles * info.fps + 1e-9).astype(np.int64)
    return np.minimum(frames, info.frame_count - 1)


def transcode_video(info: VideoInfo, target: Path, *, short_side: int,
                    fps: float, gop: int, quality: int,
                    on_frame: Callable[[], None] = lambda: None) -> VideoInfo:
    """Writes a copy; a copy with its final name is whole.

    Args:
      info: of the source.
      target: the copy, an .mp4.
      short_side: pixels.
      fps: frames a second; 0 keeps the source's.
      gop: frames from key frame to key frame.
      quality: x264's constant rate factor.
      on_frame: called for every frame; what it raises ends the work.

    Raises:
      VideoDecodeError: a frame of the source cannot be decoded.
      InputError: the copy cannot be written, or came out wrong.
    """
    height, width = copy_size(info, short_side)
    rate = Fraction(fps or info.fps).limit_denominator(_MAX_DENOMINATOR)
    indices = (copy_frames(info, float(rate)) if fps
               else np.arange(info.frame_count))
    partial = target.with_name(target.name + PARTIAL)
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.height, stream.width = height, width
            stream.pix_fmt = "yuv420p"
            # Videos are copied side by side.
            stream.codec_context.thread_count = 1
            stream.codec_context.options = {
                "preset": "faster", "tune": "fastdecode",
                "crf": str(quality), "g": str(gop)}
            for pixels in iterate_frames(info.path, indices, height=height,
                                         width=width, info=info):
                on_frame()
                frame = VideoFrame.from_ndarray(pixels, "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        made = probe_video(partial)
        if made.frame_count != len(indices):
            raise InputError(
                f"{target}: the copy has {made.frame_count} frames, not "
                f"{len(indices)}: is the disk full?")
        os.replace(partial, target)
    except (OSError, FFmpegError) as error:
        raise _unwritable(target, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return made


def _unwritable(target: Path, error: Exception) -> InputError:
    return InputError(f"{target}: cannot be written ({error_reason(error)})")
