"""Distributes the test windows of a data set over the processes of a run.

All processes run the same program on the same global batches, and each reads
the windows of the rows that its devices hold. Where the clips of a window are
on several processes, each of them reads the window.
"""

import collections
import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from losa_jax.data.records import Video
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.readers import WindowReader, test_rows
from losa_jax.data.windows.sampling import test_windows_of
from losa_jax.data.windows.stream import (
    WindowBatch,
    WindowRow,
    WindowStream,
)
from losa_jax.distributed.global_batch import (
    Lane,
    lanes,
    local_rows,
    share_videos,
)


class SpreadWindows:
    """Test windows of videos, in batches of this process's rows.

    Attributes:
      output_rows: rows of the global batch that this process reads.
      own_videos: numbers of the videos whose results this process keeps.
      num_batches: batches with windows, the same in every process; a batch
        without windows may follow.
    """

    def __init__(self, videos: Sequence[Video], reader: WindowReader,
                 config: Any, mesh: Mesh, batch_windows: int):
        """
        Args:
          config: the whole config (sections `window`, `head`, `data`).
          batch_windows: of a global batch.
        """
        self._windows_of = test_rows(reader, videos)
        self._empty_window = reader.empty_window
        self._num_threads = reader.stream_threads
        windows = [test_windows_of(video, config) for video in videos]
        self._lengths = [items[0].num_samples for items in windows]
        every = lanes(mesh, batch_windows)
        shares = share_videos([len(items) for items in windows], every)
        process = jax.process_index()
        self._lanes: list[tuple[Lane, list[int]]] = [
            # By length, because each length is compiled once.
            (lane, sorted(share, key=self._lengths.__getitem__))
            for lane, share in zip(every, shares, strict=True)
            if process in lane.holders]
        self._plan = _plan(windows, every, shares)
        self.num_batches = sum(count for _, count in self._plan)
        self.output_rows = local_rows(mesh, batch_windows)
        self.own_videos = [number for lane, share in self._lanes
                           if lane.holders[0] == process
                           for number in share]

    def __iter__(self) -> Generator[WindowBatch]:
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(contextlib.closing(_planned(
                iter(WindowStream(
                    share, self._windows_of, batch_windows=len(lane.rows),
                    num_threads=max(1, self._num_threads
                                    // len(self._lanes)),
                    # Processes that hold the same rows need one order.
                    num_readers=None if len(lane.holders) == 1 else 1)),
                self._plan, self._empty(len(lane.rows)))))
                for lane, share in self._lanes]
            yield from _joined(streams, [lane.rows for lane, _ in self._lanes],
                               self.output_rows)

    def _empty(self, count: int) -> Callable[[int], Inputs]:
        """Returns a window's samples to inputs of `count` padding rows."""
        @functools.cache
        def make(length: int) -> Inputs:
            inputs = {name: np.zeros((count, *array.shape), array.dtype)
                      for name, array in self._empty_window(length).items()}
            return {**inputs, "valid_samples": np.zeros(count, np.int32)}

        return make


def _plan(windows: Sequence[Sequence[Any]], every: Sequence[Lane],
          shares: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Returns (samples of a window, number of global batches), ascending."""
    most: collections.Counter[int] = collections.Counter()
    for lane, share in zip(every, shares, strict=True):
        counts = collections.Counter(
            window.num_samples for number in share
            for window in windows[number])
        for length, count in counts.items():
            most[length] = max(most[length], -(-count // len(lane.rows)))
    return sorted(most.items())


def _planned(stream: Generator[WindowBatch], plan: Sequence[tuple[int, int]],
             empty: Callable[[int], Inputs]) -> Generator[WindowBatch]:
    """Yields the batches, with padding where fewer come than planned."""
    with contextlib.closing(stream):
        held = next(stream, None)
        for length, count in plan:
            for _ in range(count):
                row = held.rows[0] if held is not None and held.rows else None
                if held is not None and row is not None and (
                        row.window.num_samples == length):
                    yield held
                    held = next(stream, None)
                else:
                    inputs = empty(length)
                    rows = (None,) * len(inputs["valid_samples"])
                    yield WindowBatch(inputs, rows, ())
        if held is not None and held.rows:
            raise RuntimeError("windows were read that were not planned: "
                               f"{held.rows}")
        # The ends of videos without a further window.
        yield held or WindowBatch({}, (), ())


def _joined(streams: Sequence[Iterable[WindowBatch]],
            rows: Sequence[Sequence[int]], local: Sequence[int]
            ) -> Generator[WindowBatch]:
    """Yields the batches of several lanes as one of this process's rows."""
    if len(streams) == 1:
        yield from streams[0]
        return
    places = [[local.index(row) for row in some] for some in rows]
    for parts in zip(*streams, strict=True):
        ended = tuple(end for part in parts for end in part.ended)
        if not parts[0].inputs:
            yield WindowBatch({}, (), ended)
            continue
        inputs = {}
        joined: list[WindowRow | None] = [None] * len(local)
        for name, first in parts[0].inputs.items():
            inputs[name] = np.empty((len(local), *first.shape[1:]),
                                    first.dtype)
        for part, place in zip(parts, places, strict=True):
            for name, array in part.inputs.items():
                inputs[name][place] = array
            for at, row in zip(place, part.rows, strict=True):
                joined[at] = row
        yield WindowBatch(inputs, tuple(joined), ended)
