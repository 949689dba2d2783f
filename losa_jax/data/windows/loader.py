"""Batches that Grain makes ahead, by threads or worker processes.

Threads by default: PyAV and OpenCV release the interpreter lock, and threads
start at once. Worker processes help where decoding is cheap and Python is
not, and cost memory: each has its own read-ahead.

The position is the number of batches given, kept here and not by Grain,
whose own state depends on the number of workers. Every batch can be made
alone, so a run goes on with any number of threads, workers or processes.
"""

import contextlib
import dataclasses
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

import grain
import numpy as np

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ReadAhead:
    """Who makes batches, and how many at once.

    Attributes:
      num_threads: of this process, or of each worker process.
      worker_processes: 0 makes batches in threads of this process.
    """

    num_threads: int
    worker_processes: int = 0

    @property
    def buffer_batches(self) -> int:
        """Batches that the threads work on or have done.

        One more than threads: batches are handed out in order, and a thread
        that is done before its neighbour would stand idle otherwise.
        """
        return self.num_threads + 1

    @property
    def num_batches(self) -> int:
        """Batches in memory at most: those made ahead (each worker process
        has one more to hand over), the next one, and the one in use."""
        ahead = (self.worker_processes * (self.buffer_batches + 1)
                 or self.buffer_batches)
        return ahead + 2


class Batches:
    """Batches of a dataset; each `iter` starts at the first."""

    def __init__(self, dataset: grain.MapDataset, read_ahead: ReadAhead):
        self._dataset, self._read_ahead = dataset, read_ahead

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self._dataset, self._read_ahead)


class BatchIterator(Iterator[Batch]):
    """Gives batches in order; `close` ends its threads and processes."""

    def __init__(self, dataset: grain.MapDataset, read_ahead: ReadAhead):
        self._dataset, self._read_ahead = dataset, read_ahead
        self._next = 0
        self._source: grain.DatasetIterator | None = None

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        try:
            batch = self._first() if self._source is None else next(
                self._source)
        except BaseException:
            self.close()
            raise
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position: JSON, the same for all workers and processes."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with the batch that `get_state` told of."""
        self.close()
        self._next = int(state["next_index"])

    def close(self) -> None:
        """Ends the threads and processes; the position stays."""
        if self._source is None:
            return
        self._source.close()
        self._source = None
        if self._read_ahead.worker_processes:
            # Shared memory is handed back by finalizers, which make noise
            # when they run as late as the interpreter's exit.
            gc.collect()

    def _first(self) -> Batch:
        if not self._read_ahead.worker_processes:
            self._source = self._start()
            return next(self._source)
        with _signals_kept_from_children():
            self._source = self._start()
            return next(self._source)  # which starts them

    def _start(self) -> grain.DatasetIterator:
        dataset = self._dataset[self._next:] if self._next else self._dataset
        # Grain's default is 16 threads and 500 elements in memory.
        batches = dataset.to_iter_dataset(grain.ReadOptions(
            num_threads=self._read_ahead.num_threads,
            prefetch_buffer_size=self._read_ahead.buffer_batches))
        workers = self._read_ahead.worker_processes
        if workers:
            batches = batches.mp_prefetch(
                grain.MultiprocessingOptions(
                    num_workers=workers, per_worker_buffer_size=1),
                worker_init_fn=_end_with_parent)
        return iter(batches)


def _end_with_parent(worker: int, num_workers: int) -> None:
    """In a worker: a parent that was killed cannot end it any more."""
    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None  # this is a worker
        parent.join()
        os._exit(1)
    threading.Thread(target=watch, daemon=True, name="watch-parent").start()


@contextlib.contextmanager
def _signals_kept_from_children() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal, and preemption often does
    too. Workers that are started in here never see it: who started them ends
    them, after what it still has to read. Here it is seen a little later.
    """
    # Python's helper process lets signals through again where it is started.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
