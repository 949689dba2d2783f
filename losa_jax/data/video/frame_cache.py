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

from losa_jax.data.records import Video, Window
from losa_jax.data.video.decode import VideoDecodeError, visit_pictures
from losa_jax.data.video.frame import Picture, View

logger = logging.getLogger(__name__)


def set_bytes(videos: Sequence[Video]) -> int:
    """Memory that all samples of these videos take, decoded, at most: half
    where color is stored at half the size."""
    return sum(3 * video.info.height * video.info.width
               * len(_sampled_frames(video)) for video in videos)


def _sampled_frames(video: Video) -> np.ndarray:
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
        self._pictures: dict[str, dict[int, Picture] | None] = {}

    def admit(self, videos: Sequence[Video], name: str) -> bool:
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
        logger.info("%s: decoded frames stay in memory, at most %.2f GiB",
                    name, size / 2**30)
        return True

    def read_window(self, video: Video, window: Window,
                    view: View | None = None, size: int | None = None
                    ) -> np.ndarray:
        """Decoded frames of a window, uint8 [f, H, W, 3]; padding repeats.

        Args:
          view: what of a picture is returned; None: all of it.
          size: side in pixels of what `view` writes.

        Raises:
          VideoDecodeError: a frame of the window cannot be decoded.
        """
        height, width = ((size, size) if view is not None and size else
                         (video.info.height, video.info.width))
        frames = np.empty((window.num_samples, height, width, 3), np.uint8)
        self.read_into(frames, video, window, view or _whole)
        return frames

    def read_into(self, frames: np.ndarray, video: Video,
                  window: Window, view: View) -> int:
        """`read_window` into memory that is there already.

        Args:
          frames: uint8 [f, size, size, 3].

        Returns:
          how many frames were decoded for it.
        """
        wanted = window.frame_indices(video.grid)
        kept, decoded = self._kept_pictures(video)
        if kept is None:
            visit_pictures(
                video.open(), wanted,
                lambda picture, place: view(picture, place, frames[place]),
                info=video.info)
            return decoded + len(np.unique(wanted))
        for place, frame_index in enumerate(wanted.tolist()):
            view(kept[frame_index], place, frames[place])
        return decoded

    def kept_frames(self, video: Video) -> dict[int, Picture] | None:
        """Decoded frames of an admitted video by frame index; None where it
        is not kept."""
        return self._kept_pictures(video)[0]

    def _kept_pictures(self, video: Video
                       ) -> tuple[dict[int, Picture] | None, int]:
        """Pictures of an admitted video that is whole, by frame index, and
        how many frames this call decoded."""
        key = str(video.path)
        if key not in self._admitted:
            return None, 0
        decoded = 0
        with self._admitted[key]:
            if key not in self._pictures:
                indices = _sampled_frames(video).tolist()
                pictures: dict[int, Picture] = {}
                try:
                    visit_pictures(
                        video.open(), indices,
                        lambda picture, place: pictures.__setitem__(
                            indices[place], picture.kept()),
                        info=video.info)
                except VideoDecodeError:
                    # Damaged somewhere: whether a window of it can be read
                    # must not depend on this cache.
                    self._pictures[key] = None
                else:
                    self._pictures[key] = pictures
                    decoded = len(indices)
            return self._pictures[key], decoded


def _whole(picture: Picture, place: int, out: np.ndarray) -> None:
    out[:] = picture.rgb()
