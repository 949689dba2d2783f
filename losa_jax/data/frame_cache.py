"""Decoded samples of small sets of videos, kept in memory.

A set of some tens of short videos is read dozens of times; decoding it each
time takes most of a run on a CPU (70 % of configs/quick.py, measured). A set
whose samples do not all fit into the budget is decoded window by window.
"""

import logging
import threading
from collections.abc import Sequence

import numpy as np

from losa_jax.data.source import SourceVideo
from losa_jax.data.video import read_frames
from losa_jax.data.windows import Window

logger = logging.getLogger(__name__)


def set_bytes(videos: Sequence[SourceVideo]) -> int:
    """Memory that all samples of these videos take, decoded as they are."""
    return sum(3 * video.info.height * video.info.width
               * len(_sampled_frames(video)[0]) for video in videos)


def _sampled_frames(video: SourceVideo) -> tuple[np.ndarray, np.ndarray]:
    """Frames that the samples show, rising, and which of them each shows."""
    samples = np.arange(video.grid.num_samples)
    return np.unique(video.grid.frame_indices(samples), return_inverse=True)


class FrameCache:
    """Reads windows, from memory where their whole set fits into it."""

    def __init__(self, budget_gib: float):
        """
        Args:
          budget_gib: memory for decoded frames of all admitted sets; 0
            keeps nothing.
        """
        self._left = budget_gib * 2**30
        self._lock = threading.Lock()
        self._admitted: dict[str, threading.Lock] = {}
        self._frames: dict[str, tuple[np.ndarray, np.ndarray]] = {}

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
          VideoDecodeError: a frame cannot be decoded; in an admitted video,
            a frame of any of its samples.
        """
        key = str(video.path)
        if key not in self._admitted:
            wanted = window.frame_indices(video.grid)
            unique, inverse = np.unique(wanted, return_inverse=True)
            frames = read_frames(video.path, unique.tolist(), info=video.info)
            return frames[inverse]
        with self._admitted[key]:
            if key not in self._frames:
                unique, _ = _sampled_frames(video)
                frames = read_frames(video.path, unique.tolist(),
                                     info=video.info)
                with self._lock:
                    self._frames[key] = (unique, frames)
        unique, frames = self._frames[key]
        return frames[np.searchsorted(unique,
                                      window.frame_indices(video.grid))]
