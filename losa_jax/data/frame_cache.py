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
from losa_jax.data.video import VideoDecodeError, read_frames
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

    def read_window(self, video: SourceVideo, window: Window) -> np.ndarray:
        """Decoded frames of a window, uint8 [f, H, W, 3]; padding repeats.

        Raises:
          VideoDecodeError: a frame of the window cannot be decoded.
        """
        wanted = window.frame_indices(video.grid)
        kept = self._kept_frames(video)
        if kept is None:
            unique, inverse = np.unique(wanted, return_inverse=True)
            frames = read_frames(video.open(), unique.tolist(), info=video.info)
            return frames[inverse]
        unique, frames = kept
        return frames[np.searchsorted(unique, wanted)]

    def _kept_frames(self, video: SourceVideo
                     ) -> tuple[np.ndarray, np.ndarray] | None:
        """(frame indices, pictures) of an admitted video that is whole."""
        key = str(video.path)
        if key not in self._admitted:
            return None
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
            return self._frames[key]
