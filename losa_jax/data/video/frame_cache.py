"""Decoded samples of small sets of videos, kept in memory.

A set of some tens of short videos is read dozens of times; decoding it each
time takes most of a run on a CPU (without this, configs/quick.py waited for
data in 70 % of its time, with it in 2 %). A set whose samples do not all fit
into the budget is decoded window by window.
"""

import logging
import threading
from collections.abc import Sequence

import numpy as np

from losa_jax.data.records import Video, Window
from losa_jax.data.video.decode import VideoDecodeError, iterate_frames
from losa_jax.data.video.frame import DecodedFrame, View

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
    """Reads windows, from memory where their whole set fits into it."""

    def __init__(self, budget_gib: float):
        """Takes the memory for decoded frames of all admitted sets."""
        self._left = budget_gib * 2**30
        self._admitted: dict[str, threading.Lock] = {}
        self._frames: dict[str, dict[int, DecodedFrame] | None] = {}

    def admit(self, videos: Sequence[Video], name: str) -> bool:
        """Keeps these videos once they have been read, if all of them fit; the
        name is for the log."""
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

    def read_into(self, out: np.ndarray, video: Video, window: Window,
                  view: View) -> int:
        """Writes a view of each frame of a window; padding repeats the last.

        Args:
          out: uint8 [f, size, size, 3].

        Returns:
          how many frames were decoded.

        Raises:
          VideoDecodeError: a frame cannot be decoded.
        """
        wanted = window.frame_indices(video.grid)
        kept, num_decoded = self._kept_frames(video)
        if kept is None:
            frames = iterate_frames(video.open(), wanted, video.info,
                                    skip_unneeded=True)
            num_decoded += len(np.unique(wanted))
        else:
            frames = (kept[frame_index] for frame_index in wanted.tolist())
        for i, frame in enumerate(frames):
            view(frame, i, out[i])
        return num_decoded

    def kept_frames(self, video: Video) -> dict[int, DecodedFrame] | None:
        """Returns the decoded frames of an admitted video by frame index;
        None where it is not kept."""
        return self._kept_frames(video)[0]

    def _kept_frames(self, video: Video
                     ) -> tuple[dict[int, DecodedFrame] | None, int]:
        """Also returns how many frames this call decoded."""
        key = str(video.path)
        if key not in self._admitted:
            return None, 0
        num_decoded = 0
        with self._admitted[key]:
            if key not in self._frames:
                indices = _sampled_frames(video).tolist()
                try:
                    self._frames[key] = {
                        index: frame.copy() for index, frame in zip(
                            indices, iterate_frames(
                                video.open(), indices, video.info,
                                skip_unneeded=True), strict=True)}
                    num_decoded = len(indices)
                except VideoDecodeError:
                    # Whether a window of a damaged video can be read must
                    # not depend on this cache.
                    self._frames[key] = None
            return self._frames[key], num_decoded
