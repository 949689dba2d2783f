"""Runs a frozen encoder over videos, for the modes cache and extract."""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from losa_jax.data.records import Video
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.stream import (
    MOST_READERS,
    VideoEnd,
    WindowRow,
    WindowStream,
)
from losa_jax.distributed import sharding
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.inference.run_windows import run_windows
from losa_jax.utils.threads import thread_count

logger = logging.getLogger(__name__)


def local_mesh() -> Mesh:
    """Returns the mesh of this process's devices, which encode its videos."""
    devices = jax.local_devices()
    return sharding.make_mesh((len(devices), 1, 1), devices)


def encode_videos(videos: Sequence[Video], windows_of: Callable[
                      [int, int], Iterator[tuple[WindowRow, Inputs]]],
                  encode: Callable[[Inputs], Any], config: Any, *,
                  batch_windows: int, kept: str,
                  num_readers: int = MOST_READERS
                  ) -> Generator[tuple[WindowRow, Any] | VideoEnd]:
    """Encodes all windows of videos.

    Args:
      windows_of, num_readers: see `WindowStream`.
      encode: a batch of windows to any pytree of arrays [b, ...].
      kept: what stays after a signal, for the message.

    Yields:
      (window, its output), and a `VideoEnd` behind the last window of a
      video; with an error only under data.on_broken_video="skip".

    Raises:
      InputError: a video that cannot be decoded.
      Interrupted: a signal came.
    """
    stream = WindowStream(
        range(len(videos)), windows_of, batch_windows=batch_windows,
        num_threads=thread_count(config.data.num_threads),
        num_readers=num_readers,
        queue_windows=2 * batch_windows)
    with StopSignal() as stop, contextlib.closing(iter(stream)) as batches:
        for item in run_windows(encode, batches):
            stop.raise_if_asked(kept)
            if isinstance(item, VideoEnd) and item.error is not None:
                if config.data.on_broken_video != "skip":
                    raise item.error
                logger.warning("skipped %s: %s",
                               videos[item.video_number].video_id, item.error)
            yield item
