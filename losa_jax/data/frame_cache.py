"""Decoded samples of small sets of videos, kept in memory.

A set of some tens of short videos is read dozens of times; decoding it each
time takes most of a run on a CPU (configs/quick.py waited for data in 70 % of
its time without this, 2 % with it, measured). A set whose samples do not all
fit into the budget is decoded window by window.
"""

import logging
import threading
from collections.abc import Sequence

import numpy as np

from losa_jax.data.source import SourceVideo
from losa_jax.data.video import VideoDecodeError, View, read_frames
from losa_jax.data.windows import Window

logger = logging.getLogger(__name__)


def set_bytes(videos: Sequence[SourceVideo]) -> int:
    """Memory that all samples of these videos take, decoded as they are."""
    return sum(3 * video.info.height * video.info.width
               * len(_sampled_frames(video)) for video in videos)


def _sampled_frames(video: SourceVideo) -> np.ndarray:
    """Frames that the video's samples show, rising."""
    samples = np.arange(video.grid.num_samples)
    return np.unique(video.grid.frame_indices(samples))


class FrameCache:
    """Reads windows, from memory where their whole set fits into it."""

    def __init__(self, budget_gib: float):
        """
        Args:
          budget_gib: memory for decoded frames of all admitted sets; 0
            keeps nothing.
        """
        self._left = budget_gib * 2**30
        self._admitted: dict[str, threading.Lock] = {}
        self._frames: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}

    def __reduce__(self):
        # A worker process reads for itself and keeps nothing.
        return FrameCache, (0.0,)

    def admit(self, videos: Sequence[SourceVideo], name: str) -> bool:
        """Keeps these videos from their first reading on, if all fit.

        Args:
          videos: a set that will be read again and again.
          name: of the set, for the log.
        """
        new = [video for video in videos
               if str(video.path) not in self._admitted]
        size = set_bytes(new)
        if size > self._left:
            logger.info("%s: %.1f GiB of decoded frames, more than what is "
                        "left of data.frame_cache_gib: decoded anew for "
                        "every window", name, size / 2**30)
            return False
        self._left -= size
        self._admitted.update(
            {str(video.path): threading.Lock() for video in new})
        logger.info("%s: decoded frames stay in memory, %.2f GiB", name,
                    size / 2**30)
        return True

    def read_window(self, video: SourceVideo, window: Window,
                    view: View | None = None, size: int | None = None
                    ) -> np.ndarray:
        """Decoded frames of a window, uint8 [f, H, W, 3]; padding repeats.

        Args:
          view: makes a picture [H, W, 3] into that at place i of the f.
          size: side of what `view` makes.

        Raises:
          VideoDecodeError: a frame of the window cannot be decoded.
        """
        return self.read_counted(video, window, view, size)[0]

    def read_counted(self, video: SourceVideo, window: Window,
                     view: View | None = None, size: int | None = None
                     ) -> tuple[np.ndarray, int]:
        """`read_window`, and how many frames were decoded for it."""
        wanted = window.frame_indices(video.grid)
        kept, decoded = self._kept_frames(video)
        if kept is None:
            frames = read_frames(video.open(), wanted, info=video.info,
                                 view=view, height=size, width=size)
            return frames, decoded + len(np.unique(wanted))
        unique, frames = kept
        rows = np.searchsorted(unique, wanted)
        if view is None:
            return frames[rows], decoded
        return np.stack([view(frames[row], place)
                         for place, row in enumerate(rows)]), decoded

    def _kept_frames(self, video: SourceVideo
                     ) -> tuple[tuple[np.ndarray, np.ndarray] | None, int]:
        """(frame indices, pictures) of an admitted video that is whole, and
        how many frames this call decoded."""
        key = str(video.path)
        if key not in self._admitted:
            return None, 0
        decoded = 0
        with self._admitted[key]:
            if key not in self._frames:
                unique = _sampled_frames(video)
                try:
                    frames = read_frames(video.open(), unique.tolist(),
                                         info=video.info)
                except VideoDecodeError:
                    # Damaged somewhere: whether a window of it can be read
                    # must not depend on this cache.
                    self._frames[key] = None
                else:
                    self._frames[key] = (unique, frames)
                    decoded = len(unique)
            return self._frames[key], decoded
