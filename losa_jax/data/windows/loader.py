"""Batches that Grain makes ahead, in threads.

PyAV and OpenCV release the interpreter lock, and threads start at once.

The position is the number of batches given, kept here and not by Grain.
Every batch can be made alone, so a run goes on with any number of threads or
processes.
"""

from collections.abc import Iterator
from typing import Any

import grain

from losa_jax.data.windows.batch import Batch


def buffer_batches(num_threads: int) -> int:
    """Batches that the threads work on or have done.

    One more than threads: batches are handed out in order, and a thread that
    is done before its neighbor would be idle otherwise.
    """
    return num_threads + 1


def batches_in_memory(num_threads: int) -> int:
    """At most: those made ahead, the next one, and the one in use."""
    return buffer_batches(num_threads) + 2


class Batches:
    """Batches of a dataset; each `iter` starts at the first."""

    def __init__(self, dataset: grain.MapDataset, num_threads: int):
        self._dataset, self._num_threads = dataset, num_threads

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self._dataset, self._num_threads)


class BatchIterator(Iterator[Batch]):
    """Gives batches in order; `close` ends its threads."""

    def __init__(self, dataset: grain.MapDataset, num_threads: int):
        self._dataset, self._num_threads = dataset, num_threads
        self._next = 0
        self._source: grain.DatasetIterator | None = None

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Batch:
        try:
            if self._source is None:
                self._source = self._start()
            batch = next(self._source)
        except BaseException:
            self.close()
            raise
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """The position: JSON, the same for all processes."""
        return {"next_index": self._next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues with the batch that `get_state` named."""
        self.close()
        self._next = int(state["next_index"])

    def close(self) -> None:
        """Ends the threads; the position stays."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _start(self) -> grain.DatasetIterator:
        dataset = self._dataset[self._next:] if self._next else self._dataset
        # Grain's default is 16 threads and 500 elements in memory.
        return iter(dataset.to_iter_dataset(grain.ReadOptions(
            num_threads=self._num_threads,
            prefetch_buffer_size=buffer_batches(self._num_threads))))
