"""Windows of whole videos in one pass: nothing is decoded twice.

A buffer holds one window of pictures as the backbone sees them; the part
that the next window sees again stays in it. So memory does not grow with the
length of the video, and there is no seeking.
"""

import collections
import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from losa_jax.data.records import Video, Window
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.windows import augment
from losa_jax.data.windows.examples import clip_alignment
from losa_jax.data.windows.sampling import last_start, window_step
from losa_jax.errors import InputError

# How often who waits looks whether there is still something to wait for.
_PATIENCE_SECONDS = 0.1
_FINISHED = object()


def sample_views(video: Video, config: Any, threads: int = 1
                 ) -> Iterator[np.ndarray]:
    """Every sample of a video as testing sees it, uint8 [size, size, 3].

    Args:
      video: probed; its actions do not matter.
      config: the whole config (sections `window`, `augment`).
      threads: of the decoder.

    Raises:
      VideoDecodeError: when a frame is due that cannot be decoded.
    """
    settings = config.augment
    return iterate_views(video, np.arange(video.grid.num_samples),
                         settings.size, settings.test_resize, threads)


def iterate_views(video: Video, samples: np.ndarray, size: int,
                  resize: str, threads: int = 1) -> Iterator[np.ndarray]:
    """What testing sees of samples, uint8 [size, size, 3].

    Args:
      video: probed.
      samples: [f] of the video's grid, never falling.
      size, resize: see `augment.test_picture`.
      threads: of the decoder.

    Raises:
      VideoDecodeError: when a frame is due that cannot be decoded.
    """
    indices = video.grid.frame_indices(samples)
    last: np.ndarray | None = None
    for frame in iterate_frames(video.open(), indices, info=video.info,
                                threads=threads):
        if frame is not last:  # one picture may serve several samples
            last = frame
            view = augment.test_picture(frame, size, resize)
        yield view


def sliding_windows(samples: Iterable[np.ndarray], window: Any
                    ) -> Generator[tuple[Window, np.ndarray]]:
    """The windows of `windows.test_windows`, before the end is known.

    Args:
      samples: pictures of one shape, in order.
      window: the config section `window`.

    Yields:
      (window, its pictures [f, ...]); padding repeats the last real one.
    """
    length, align = window.frames, clip_alignment(window)
    step = window_step(length, window.overlap, align)
    # All of a full window; and wherever the last one starts, it is in here.
    kept: collections.deque[np.ndarray] = collections.deque(maxlen=length)
    total, start, last_given = 0, 0, -1
    for sample in samples:
        kept.append(sample)
        total += 1
        if total == start + length:
            yield Window(start, length, length), np.stack(kept)
            last_given, start = start, start + step
    if not total:
        return
    last = last_start(total, length, align) if total > length else 0
    if last > last_given:
        valid = min(length, total - last)
        pictures = list(kept)[-valid:]
        pictures += pictures[-1:] * (length - valid)
        yield Window(last, length, valid), np.stack(pictures)


@dataclasses.dataclass(frozen=True)
class _Raised:
    error: BaseException


@dataclasses.dataclass(frozen=True)
class VideoWindow:
    """One window of one of several videos.

    Attributes:
      video_number: which video.
      window: where it lies.
      frames: uint8 [f, size, size, 3].
    """

    video_number: int
    window: Window
    frames: np.ndarray


@dataclasses.dataclass(frozen=True)
class VideoEnd:
    """No more windows of this video; `error` if not all could be read."""

    video_number: int
    error: InputError | None = None


def stream_windows(videos: Sequence[Video], config: Any, *,
                   num_threads: int, queue_windows: int = 2
                   ) -> Generator[VideoWindow | VideoEnd]:
    """Windows of many videos as they are decoded, each video in order.

    Args:
      videos: to read.
      config: the whole config.
      num_threads: videos that are read side by side; of fewer videos each
        is decoded by several threads.
      queue_windows: that may wait decoded, over all videos.

    Yields:
      the windows of a video, then its `VideoEnd`; videos are mixed.
    """
    readers = max(1, min(num_threads, len(videos)))
    decoder_threads = max(1, num_threads // readers)

    def read(number: int) -> Generator[VideoWindow | VideoEnd]:
        samples = sample_views(videos[number], config, decoder_threads)
        try:
            for window, frames in sliding_windows(samples, config.window):
                yield VideoWindow(number, window, frames)
        except InputError as error:
            yield VideoEnd(number, error)
        else:
            yield VideoEnd(number)

    return read_ahead([read(number) for number in range(len(videos))],
                      num_threads=readers, queue_size=queue_windows)


def read_ahead(sources: Sequence[Generator[Any]], *, num_threads: int,
               queue_size: int,
               stopped: Callable[[], bool] = lambda: False
               ) -> Generator[Any]:
    """Items of several iterators, each in order, read by other threads.

    Args:
      sources: read in this order, `num_threads` side by side.
      num_threads: see there.
      queue_size: items that may wait.
      stopped: asked while waiting; True ends the reading.

    Raises:
      what a source raises.
    """
    left = iter(sources)
    lock, stop = threading.Lock(), threading.Event()
    ready: queue.Queue = queue.Queue(queue_size)

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=_PATIENCE_SECONDS)
            except queue.Full:
                continue

    def work() -> None:
        try:
            while True:
                with lock:
                    source = next(left, None)
                if source is None:
                    return put(_FINISHED)
                for item in source:
                    put(item)
                    if stop.is_set():
                        return source.close()
        except BaseException as error:  # belongs to the thread that asks
            put(_Raised(error))

    threads = [threading.Thread(target=work, daemon=True,
                                name=f"reader-{number}")
               for number in range(num_threads)]
    for thread in threads:
        thread.start()
    working = len(threads)
    try:
        while working and not stopped():
            try:
                item = ready.get(timeout=_PATIENCE_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, _Raised):
                raise item.error
            if item is _FINISHED:
                working -= 1
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:
            # One that waits for a camera may wait for ever.
            thread.join(None if not stopped() else _PATIENCE_SECONDS)
