"""Decoded samples of small sets of videos, kept in memory.

A set whose samples do not all fit into the budget is decoded window by window.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from losa_jax.data.records import Video
from losa_jax.data.video.decode import VideoDecodeError, iterate_frames
from losa_jax.data.video.frame import DecodedFrame

logger = logging.getLogger(__name__)


def set_bytes(videos: Sequence[Video]) -> int:
    """Returns the most memory that all decoded samples of the videos take."""
    return sum(3 * video.info.height * video.info.width
               * len(_sampled_frames(video)) for video in videos)


def _sampled_frames(video: Video) -> np.ndarray:
    """Indices of the frames that the video's samples show, rising."""
    samples = np.arange(video.grid.num_samples)
    return np.unique(video.grid.frame_indices(samples))


class FrameCache:
    """Reads frames, from memory where their whole set fits into it."""

    def __init__(self, budget_gib: float):
        """Takes the memory for decoded frames of all admitted sets."""
        self._left = budget_gib * 2**30
        self._admitted: dict[str, threading.Lock] = {}
        self._frames: dict[str, dict[int, DecodedFrame] | None] = {}

    def admit(self, videos: Sequence[Video], name: str) -> bool:
        """Keeps these videos once they have been read, if all of them fit."""
        new = [video for video in videos
               if str(video.path) not in self._admitted]
        size = set_bytes(new)
        if size > self._left:
            logger.info("%s: %.1f GiB of decoded frames do not fit into the "
                        "rest of data.frame_cache_gib: every window is "
                        "decoded again", name, size / 2**30)
            return False
        self._left -= size
        self._admitted.update(
            {str(video.path): threading.Lock() for video in new})
        logger.info("%s: decoded frames stay in memory, at most %.2f GiB",
                    name, size / 2**30)
        return True

    def frames(self, video: Video, indices: np.ndarray, *, threads: int = 1,
               skip_unneeded: bool = False
               ) -> tuple[Iterator[DecodedFrame], int]:
        """Returns the frames of int [f] indices, as `iterate_frames`, and how
        many are decoded."""
        kept, num_decoded = self._kept_frames(video)
        if kept is not None:
            return map(kept.__getitem__, indices.tolist()), num_decoded
        return iterate_frames(
            video.open(), indices, video.info, threads=threads,
            skip_unneeded=skip_unneeded), len(np.unique(indices))

    def _kept_frames(self, video: Video
                     ) -> tuple[dict[int, DecodedFrame] | None, int]:
        """Returns the frames of an admitted video by frame index, None where
        it is not kept, and how many of them this call decoded."""
        key = str(video.path)
        if key not in self._admitted:
            return None, 0
        with self._admitted[key]:
            if key in self._frames:
                return self._frames[key], 0
            indices = _sampled_frames(video).tolist()
            # Whether a window of a damaged video can be read must not depend
            # on this cache.
            self._frames[key] = None
            with contextlib.suppress(VideoDecodeError):
                frames = iterate_frames(video.open(), indices, video.info,
                                        skip_unneeded=True)
                self._frames[key] = {
                    index: frame.copy() for index, frame in zip(
                        indices, frames, strict=True)}
            return self._frames[key], len(self._frames[key] or ())
