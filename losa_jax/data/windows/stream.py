"""Windows of whole videos in one pass, in batches.

A buffer holds one window of frames; the part that the next window shares
stays in it. So nothing is decoded twice, nothing seeks, and memory does not
grow with the length of the video.
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
# Videos that are read in parallel: each keeps up to two windows in memory, so
# that memory does not grow with the threads, which then decode one video.
MOST_READERS = 8


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
    """Windows that are run at once."""

    inputs: Inputs  # [b, ...], see `batch`; empty if no window was left
    rows: tuple[WindowRow | None, ...]  # None for padding, without samples
    ended: tuple[VideoEnd, ...]  # whose last window is here or was earlier


@dataclasses.dataclass(frozen=True)
class WindowStream:
    """Windows of many videos as they are read, each video in order."""

    video_numbers: Sequence[int]
    # (Video number, decoder threads) to its windows and their inputs; an
    # InputError ends the video.
    windows_of: Callable[[int, int], Iterator[tuple[WindowRow, Any]]]
    _: dataclasses.KW_ONLY
    batch_windows: int  # rows of a batch
    num_threads: int  # shared by the videos that are read in parallel
    num_readers: int = MOST_READERS  # videos in parallel, at most
    queue_windows: int = 2  # that may wait, over all videos
    # Asked while waiting; True ends the stream.
    stopped: Callable[[], bool] = lambda: False

    def __iter__(self) -> Generator[WindowBatch]:
        waiting: list[tuple[WindowRow, Inputs]] = []
        ended: list[VideoEnd] = []
        readers = max(1, min(self.num_readers, self.num_threads,
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
                    # A batch has windows of one length.
                    yield _take_batch(waiting, ended, self.batch_windows)
                waiting.append(item)
                if len(waiting) == self.batch_windows:
                    yield _take_batch(waiting, ended, self.batch_windows)
        if waiting or ended:
            yield _take_batch(waiting, ended, self.batch_windows)

    def _read(self, number: int, decoder_threads: int) -> Generator[Any]:
        try:
            yield from self.windows_of(number, decoder_threads)
        except InputError as error:
            yield VideoEnd(number, error)
        else:
            yield VideoEnd(number)


def _take_batch(items: list[tuple[WindowRow, Inputs]], ended: list[VideoEnd],
                batch_windows: int) -> WindowBatch:
    """Moves both lists into a batch, padded with rows of zeros."""
    inputs: Inputs = {}
    rows: list[WindowRow | None] = [row for row, _ in items]
    if items:
        rows += [None] * (batch_windows - len(items))
        samples = [row.window.valid_samples if row else 0 for row in rows]
        inputs["valid_samples"] = np.array(samples, np.int32)
        for name, first in items[0][1].items():
            inputs[name] = np.zeros((batch_windows, *first.shape), first.dtype)
            for row, (_, arrays) in enumerate(items):
                inputs[name][row] = arrays[name]
    batch = WindowBatch(inputs, tuple(rows), tuple(ended))
    items.clear()
    ended.clear()
    return batch


def sliding_windows(samples: Iterable[np.ndarray], length: int, step: int,
                    align: int = 1) -> Generator[tuple[Window, np.ndarray]]:
    """Yields the windows of `sampling.test_windows` before the end is known,
    with their samples [f, ...]; padding repeats the last real one.

    `length` is in samples, `step` from one window to the next; windows start
    at multiples of `align`.
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
    last = round_up(max(0, total - length), align)
    if total and last > last_given:
        valid = min(length, total - last)
        frames = list(kept)[-valid:]
        frames += frames[-1:] * (length - valid)
        yield Window(last, length, valid), np.stack(frames)


def read_ahead(sources: Sequence[Generator[Any]], *, num_threads: int,
               queue_size: int, stopped: Callable[[], bool] = lambda: False
               ) -> Generator[Any]:
    """Yields items of generators, each in order, read by threads; raises what
    a generator raises.

    `num_threads` generators are read in parallel, and `queue_size` items may
    wait. `stopped` is asked while waiting; True ends the reading.
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

    threads = [threading.Thread(target=work, daemon=True)
               for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    working = num_threads
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
