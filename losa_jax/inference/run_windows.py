"""Runs a model over windows of videos, also over several processes."""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from losa_jax.data.records import Video
from losa_jax.data.windows import readers, sampling, stream
from losa_jax.data.windows.batch import Inputs
from losa_jax.detection.nms import NmsSettings
from losa_jax.detection.segments import Segments, in_seconds, joined
from losa_jax.distributed import sharding
from losa_jax.errors import InputError, fields_as_keys
from losa_jax.timeline import SampleGrid


def run_windows(step: Callable[[Inputs], Any],
                batches: Iterable[stream.WindowBatch], *,
                output_rows: Sequence[int] | None = None, is_ahead: bool = True
                ) -> Generator[tuple[stream.WindowRow, Any] | stream.VideoEnd]:
    """Yields (window, its output on the host), and a `VideoEnd` after the
    last window of a video.

    Args:
      step: a batch's inputs on the host to a pytree of arrays [b, ...]; may
        return before the result is computed.
      batches: of a `WindowStream`.
      output_rows: rows of the output for the rows of the batch, where the
        output also has rows of other processes.
      is_ahead: reads the next batch while the device computes; False waits
        for each result, as live videos need it.
    """
    fetched = collections.deque[tuple[stream.WindowBatch, Any]]()

    def hand_out() -> Generator[tuple[stream.WindowRow, Any]
                                | stream.VideoEnd]:
        while fetched:
            batch, output = fetched.popleft()
            # A batch that only ends videos has no rows.
            places = output_rows or range(len(batch.rows))
            for place, row in zip(places, batch.rows, strict=bool(batch.rows)):
                if row is not None:
                    yield row, jax.tree.map(lambda leaf, at=place: leaf[at],
                                            output)
            yield from batch.ended

    running = collections.deque[tuple[stream.WindowBatch, Any]]()
    for batch in batches:
        running.append((batch, step(batch.inputs) if batch.inputs else ()))
        # Work on the last results, such as NMS, while the device computes. No
        # third batch is on it: theirs were fetched before this step.
        yield from hand_out()
        while len(running) > is_ahead:
            batch, output = running.popleft()
            fetched.append((batch, jax.device_get(output)))
        if not is_ahead:
            yield from hand_out()
    fetched.extend((batch, jax.device_get(output))
                   for batch, output in running)
    yield from hand_out()


class SpreadWindows:
    """Test windows of videos, in batches of this process's rows.

    All processes run the same global batches, and each reads the windows of
    the rows that its devices hold. Where the clips of a window are on several
    processes, each of them reads its part of the window.

    Attributes:
      output_rows: rows of the global batch that this process reads.
      own_videos: indices of the videos whose results this process keeps.
      share: what this process reads.
      num_batches: batches with windows, the same in every process; a batch
        without windows may follow.
    """

    def __init__(self, videos: Sequence[Video], reader: readers.WindowReader,
                 config: Any, mesh: Mesh, batch_windows: int):
        """`batch_windows` are those of a global batch."""
        self.share = sharding.local_share(mesh, batch_windows,
                                           config.window.samples)
        self._windows_of = readers.test_rows(reader, videos,
                                             self.share.samples)
        self._reader = reader
        self._num_threads = reader.stream_threads
        self._windows = windows = [sampling.test_windows_of(video, config)
                                   for video in videos]
        self._lengths = [items[0].num_samples for items in windows]
        every = sharding.lanes(mesh, batch_windows)
        shares = sharding.share_videos([*map(len, windows)], every)
        process = jax.process_index()
        self._lanes: list[tuple[sharding.Lane, list[int]]] = [
            # By length, because each length is compiled once.
            (lane, sorted(share, key=self._lengths.__getitem__))
            for lane, share in zip(every, shares, strict=True)
            if process in lane.holders]
        self._plan = _plan(windows, every, shares)
        self.num_batches = len(self._plan)
        self.output_rows = sharding.local_rows(mesh, batch_windows)
        self.own_videos = [number for lane, share in self._lanes
                           if lane.holders[0] == process
                           for number in share]

    def __iter__(self) -> Generator[stream.WindowBatch]:
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(contextlib.closing(_planned(
                iter(stream.WindowStream(
                    share, self._every_window, batch_windows=len(lane.rows),
                    num_threads=max(1, self._num_threads
                                    // len(self._lanes)),
                    # Processes that hold the same rows need one order.
                    num_readers=(stream.MOST_READERS if len(lane.holders) == 1
                                 else 1))),
                self._plan, functools.partial(self._padding, len(lane.rows)))))
                for lane, share in self._lanes]
            yield from _joined(streams, [lane.rows for lane, _ in self._lanes])

    def _every_window(self, number: int, decoder_threads: int
                      ) -> Generator[tuple[stream.WindowRow, Inputs]]:
        """Yields zeros for windows that cannot be read, and then raises:
        processes that share windows need the same rows, and another one may
        be able to read its part."""
        left = iter(self._windows[number])
        try:
            for row, inputs in self._windows_of(number, decoder_threads):
                next(left, None)
                yield row, inputs
        except InputError:
            for window in left:
                yield (stream.WindowRow(number, window),
                       self._empty_window(window.num_samples))
            raise

    def _empty_window(self, num_samples: int) -> Inputs:
        """Returns zeros of the samples that this process reads of a window."""
        if self._reader.reads_samples:
            num_samples = len(self.share.samples)
        return self._reader.empty_window(num_samples)

    def _padding(self, count: int, num_samples: int) -> stream.WindowBatch:
        """Returns a batch of `count` rows without a window."""
        inputs = {name: np.zeros((count, *array.shape), array.dtype)
                  for name, array in self._empty_window(num_samples).items()}
        inputs["valid_samples"] = np.zeros(count, np.int32)
        return stream.WindowBatch(inputs, (None,) * count, ())


def _plan(windows: Sequence[Sequence[Any]], every: Sequence[sharding.Lane],
          shares: Sequence[Sequence[int]]) -> list[int]:
    """Returns the samples of the windows of each global batch, ascending."""
    batches: collections.Counter[int] = collections.Counter()
    for lane, share in zip(every, shares, strict=True):
        counts = collections.Counter(
            window.num_samples for number in share
            for window in windows[number])
        # A union of counters has the larger count of each length.
        batches |= collections.Counter({
            length: -(-count // len(lane.rows))
            for length, count in counts.items()})
    return sorted(batches.elements())


def _planned(batches: Generator[stream.WindowBatch], plan: Sequence[int],
             padding: Callable[[int], stream.WindowBatch]
             ) -> Generator[stream.WindowBatch]:
    """Yields the batches, with padding where fewer come than planned."""
    end = stream.WindowBatch({}, (), ())
    with contextlib.closing(batches):
        held = next(batches, end)
        for num_samples in plan:
            row = held.rows[0] if held.rows else None
            if row is not None and row.window.num_samples == num_samples:
                yield held
                held = next(batches, end)
            else:
                yield padding(num_samples)
        if held.rows:
            raise RuntimeError("windows were read that were not planned: "
                               f"{held.rows}")
        # The ends of videos without a further window.
        yield held


def _joined(streams: Sequence[Iterable[stream.WindowBatch]],
            rows: Sequence[Sequence[int]]) -> Generator[stream.WindowBatch]:
    """Yields the batches of several lanes as one, rows in ascending order."""
    if len(streams) == 1:
        yield from streams[0]
        return
    order = np.argsort(np.concatenate(rows))
    for parts in zip(*streams, strict=True):
        inputs = {name: np.concatenate([part.inputs[name] for part in parts]
                                       )[order] for name in parts[0].inputs}
        every = [row for part in parts for row in part.rows]
        yield stream.WindowBatch(
            inputs, tuple(every[at] for at in order) if inputs else (),
            tuple(end for part in parts for end in part.ended))


class VideoSegments:
    """Collects the segments of windows until their video ends."""

    def __init__(self, grids: Sequence[SampleGrid] | Mapping[int, SampleGrid],
                 window: Any):
        """`grids` are those of the videos by number, `window` is the config
        section."""
        self._grids = grids
        self._samples_per_token = window.samples / window.tokens
        self._parts: dict[int, list[Segments]] = {}

    def add(self, row: stream.WindowRow, segments: Segments) -> None:
        """Adds the segments of a window, in tokens."""
        self._parts.setdefault(row.video_number, []).append(
            self.in_seconds(row, segments))

    def in_seconds(self, row: stream.WindowRow, segments: Segments) -> Segments:
        """Returns the segments of a window in seconds of its video."""
        return in_seconds(segments, self._grids[row.video_number],
                          row.window.first_sample, self._samples_per_token)

    def take(self, video_number: int) -> Segments:
        """Removes and returns the segments of a video."""
        return joined(self._parts.pop(video_number, []))


def nms_settings(evaluate: Any, max_kept: int | None = None) -> NmsSettings:
    """Returns the settings of NMS; `max_kept` replaces max_detections."""
    keys = {"method": "nms", "per_class": "nms_per_class",
            "sigma": "nms_sigma", "iou_threshold": "nms_iou_threshold",
            "min_score": "nms_min_score", "max_kept": "max_detections"}
    with fields_as_keys(NmsSettings, "config.evaluate", **keys):
        settings = NmsSettings(
            voting_threshold=evaluate.voting_threshold, voting=evaluate.voting,
            **{field: evaluate[key] for field, key in keys.items()})
    return dataclasses.replace(settings,
                               max_kept=max_kept or settings.max_kept)
