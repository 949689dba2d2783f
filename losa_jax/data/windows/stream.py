"""Windows of whole videos in one pass, in batches: nothing is decoded twice.

A buffer holds one window of frames as the backbone sees them; the part that
the next window shares stays in it. So memory does not grow with the length of
the video, and nothing seeks. Everything that runs a model over videos takes
its windows from a `WindowStream`.
"""

import collections
import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from losa_jax.data.records import Window
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.sampling import round_up
from losa_jax.errors import InputError

# How often a waiting thread checks for the end.
_POLL_SECONDS = 0.1
_FINISHED = object()


class WindowRow(NamedTuple):
    """Which window a row of a batch is."""

    video_number: int  # of the stream
    window: Window
    view: int = 0  # the test view; others are augmented


class VideoEnd(NamedTuple):
    """No more windows of this video; `error` if not all could be read."""

    video_number: int
    error: InputError | None = None


@dataclasses.dataclass(frozen=True)
class WindowBatch:
    """Windows that are run at once.

    Attributes:
      inputs: [b, ...], see `batch`; empty where no window was left to run.
      rows: which windows these are; None for padding, whose valid_samples
        are 0.
      ended: videos whose last window is in this batch or was in an earlier
        one.
    """

    inputs: Inputs
    rows: tuple[WindowRow | None, ...]
    ended: tuple[VideoEnd, ...]


@dataclasses.dataclass(frozen=True)
class WindowStream:
    """Windows of many videos as they are read, each video in order.

    Attributes:
      video_numbers: videos to read, in this order.
      windows_of: (video number, decoder threads) to its windows and their
        inputs; an InputError ends the video.
      batch_windows: rows of a batch.
      num_threads: shared by the videos that are read in parallel.
      num_readers: videos that are read in parallel; None is one for each
        thread. With 1 the windows come in the order of the videos.
      queue_windows: decoded windows that may wait, over all videos.
      stopped: asked while waiting; True ends the stream.
    """

    video_numbers: Sequence[int]
    windows_of: Callable[[int, int], Iterator[tuple[WindowRow, Any]]]
    _: dataclasses.KW_ONLY
    batch_windows: int
    num_threads: int
    num_readers: int | None = None
    queue_windows: int = 2
    stopped: Callable[[], bool] = lambda: False

    def __iter__(self) -> Generator[WindowBatch]:
        waiting: list[tuple[WindowRow, Inputs]] = []
        ended: list[VideoEnd] = []

        def batch() -> WindowBatch:
            made = _batch(waiting, ended, self.batch_windows)
            waiting.clear()
            ended.clear()
            return made

        readers = max(1, min(self.num_readers or self.num_threads,
                             len(self.video_numbers)))
        threads = max(1, self.num_threads // readers)
        # Closing it ends its threads where the consumer stops early.
        with contextlib.closing(read_ahead(
                [self._read(number, threads)
                 for number in self.video_numbers],
                num_threads=readers, queue_size=self.queue_windows,
                stopped=self.stopped)) as items:
            for item in items:
                if isinstance(item, VideoEnd):
                    ended.append(item)
                    continue
                if waiting and waiting[0][0].window.num_samples != (
                        item[0].window.num_samples):
                    yield batch()  # a batch has windows of one length
                waiting.append(item)
                if len(waiting) == self.batch_windows:
                    yield batch()
        if waiting or ended:
            yield batch()

    def _read(self, number: int, decoder_threads: int) -> Generator[Any]:
        try:
            yield from self.windows_of(number, decoder_threads)
        except InputError as error:
            yield VideoEnd(number, error)
        else:
            yield VideoEnd(number)


def _batch(items: Sequence[tuple[WindowRow, Inputs]],
           ended: Sequence[VideoEnd], batch_windows: int) -> WindowBatch:
    """Stacks the inputs of windows; zeros after the last."""
    if not items:
        return WindowBatch({}, (), tuple(ended))
    inputs: Inputs = {}
    for name, first in items[0][1].items():
        inputs[name] = np.zeros((batch_windows, *first.shape), first.dtype)
        for row, (_, arrays) in enumerate(items):
            inputs[name][row] = arrays[name]
    inputs["valid_samples"] = np.zeros(batch_windows, np.int32)
    inputs["valid_samples"][:len(items)] = [
        row.window.valid_samples for row, _ in items]
    padding = (None,) * (batch_windows - len(items))
    return WindowBatch(inputs, (*(row for row, _ in items), *padding),
                       tuple(ended))


def sliding_windows(samples: Iterable[np.ndarray], length: int, step: int,
                    align: int = 1) -> Generator[tuple[Window, np.ndarray]]:
    """Yields the windows of `sampling.test_windows` before the end is known.

    Args:
      samples: frames of one shape, in order.
      length, step, align: samples of a window, from one window to the next,
        and of which the first sample of a window is a multiple.

    Yields:
      (window, its samples [f, ...]); padding repeats the last real one.
    """
    # Wherever the last window starts, the last `length` samples include it.
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
    last = round_up(max(0, total - length), align)
    if last > last_given:
        valid = min(length, total - last)
        frames = list(kept)[-valid:]
        frames += frames[-1:] * (length - valid)
        yield Window(last, length, valid), np.stack(frames)


def read_ahead(sources: Sequence[Generator[Any]], *, num_threads: int,
               queue_size: int,
               stopped: Callable[[], bool] = lambda: False
               ) -> Generator[Any]:
    """Yields items of several generators, each in order, read by threads.

    Args:
      sources: read in this order, `num_threads` in parallel.
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
                return ready.put(item, timeout=_POLL_SECONDS)
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
        except BaseException as error:  # raised in the consumer's thread
            put(error)

    threads = [threading.Thread(target=work, daemon=True,
                                name=f"reader-{number}")
               for number in range(num_threads)]
    for thread in threads:
        thread.start()
    working = len(threads)
    try:
        while working and not stopped():
            try:
                item = ready.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if item is _FINISHED:
                working -= 1
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:
            # A thread that waits for a camera may wait for ever.
            thread.join(None if not stopped() else _POLL_SECONDS)
