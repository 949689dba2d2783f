"""Videos in pieces that an encoder turns into rows of features.

Two ways: overlapping clips, each a row (how VideoMAEv2's, I3D's and others'
files of features are made), and the test windows of a run, whose tokens are
the rows. Each video is decoded once, from its start, a few pictures at a
time; memory does not grow with its length.
"""

import dataclasses
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np

from losa_jax.data.records import Video
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows import augment, sampling
from losa_jax.data.windows.stream import iterate_views


@dataclasses.dataclass(frozen=True)
class Piece:
    """What is encoded at once.

    Attributes:
      video: that it is of.
      inputs: of the encoder, the same shapes for every piece.
      take: int [m], rows of the encoder's output ...
      put: int [m], ... and which rows of the video's features they are.
      is_last: of the video.
      error: why the video ends here; there are no inputs then.
    """

    video: Video
    inputs: dict[str, np.ndarray]
    take: np.ndarray
    put: np.ndarray
    is_last: bool = False
    error: VideoDecodeError | None = None


def num_clips(num_samples: int, clip_frames: int, stride_frames: int) -> int:
    """Clips that lie inside a video, as VideoMAEv2 counts them; at least
    one, which repeats the last picture of a video that is shorter."""
    return max(1, (num_samples - clip_frames) // stride_frames + 1)


def clip_pieces(video: Video, *, clip_frames: int, stride_frames: int,
                batch_clips: int, size: int, resize: str
                ) -> Iterator[Piece]:
    """A video's clips, `clips` uint8 [batch_clips, f, size, size, 3].

    Args:
      clip_frames: samples of a clip.
      stride_frames: samples from one clip to the next.
      batch_clips: of a piece; the last one repeats a clip to be full.
      size, resize: see `augment.test_view`.

    Raises:
      VideoDecodeError: a frame cannot be decoded.
    """
    count = num_clips(video.grid.num_samples, clip_frames, stride_frames)
    starts = stride_frames * np.arange(count)
    samples = np.unique(starts[:, None] + np.arange(clip_frames))
    views = iterate_views(video, samples, size, resize)
    held: deque[np.ndarray] = deque()
    first_held = 0
    for first in range(0, count, batch_clips):
        rows = np.arange(first, min(first + batch_clips, count))
        # A place in `samples` for each frame of each clip.
        places = np.searchsorted(
            samples, starts[rows, None] + np.arange(clip_frames))
        while first_held < places[0, 0] and held:
            held.popleft()
            first_held += 1
        while first_held + len(held) <= places[-1, -1]:
            held.append(next(views))
        block = np.stack(held)
        full = np.pad(places, ((0, batch_clips - len(rows)), (0, 0)), "edge")
        yield Piece(video, {"clips": block[full - first_held]},
                    np.arange(len(rows)), rows,
                    is_last=first + batch_clips >= count)


def num_tokens(num_samples: int, tubelet: int) -> int:
    """Tokens that cover a video."""
    return -(-num_samples // tubelet)


def window_pieces(video: Video, window: Any, *, tubelet: int,
                  batch_windows: int, size: int, resize: str
                  ) -> Iterator[Piece]:
    """A video's test windows: `frames` uint8 [b, f, size, size, 3] and
    `valid_samples` int32 [b].

    Windows overlap; a token is taken from the one in whose middle it lies
    best, since a window's edges know one side only.

    Args:
      window: the config section.
      tubelet: samples that a token stands for.
      batch_windows: of a piece.
      size, resize: see `augment.test_view`.

    Raises:
      VideoDecodeError: a frame cannot be decoded.
    """
    # Clips at the same places in all windows: tokens then share one grid.
    items = sampling.test_windows(video.grid, window.frames, window.overlap,
                                 align=window.clip_frames)
    length = window.frames // tubelet
    firsts = np.array([item.first_sample // tubelet for item in items])
    tokens = np.arange(num_tokens(video.grid.num_samples, tubelet))
    distance = np.abs(tokens[:, None] - firsts - (length - 1) / 2)
    inside = (tokens[:, None] >= firsts) & (tokens[:, None] < firsts + length)
    owner = np.where(inside, distance, np.inf).argmin(axis=1)
    reader, view = FrameCache(0), augment.as_tested(size, resize)
    for first in range(0, len(items), batch_windows):
        numbers = range(first, min(first + batch_windows, len(items)))
        frames = [reader.read_window(video, items[number], view, size)
                  for number in numbers]
        frames += frames[-1:] * (batch_windows - len(frames))
        valid = np.zeros(batch_windows, np.int32)
        valid[:len(numbers)] = [items[number].valid_samples
                                for number in numbers]
        put = [np.flatnonzero(owner == number) for number in numbers]
        take = [rows - firsts[number] + row * length for row, (number, rows)
                in enumerate(zip(numbers, put, strict=True))]
        yield Piece(video, {"frames": np.stack(frames),
                            "valid_samples": valid},
                    np.concatenate(take), np.concatenate(put),
                    is_last=numbers[-1] == len(items) - 1)


def ending_in_errors(video: Video, pieces: Iterator[Piece]
                     ) -> Generator[Piece]:
    """The pieces; instead of an error, a last piece that names it."""
    try:
        yield from pieces
    except VideoDecodeError as error:
        nothing = np.zeros(0, int)
        yield Piece(video, {}, nothing, nothing, is_last=True, error=error)
