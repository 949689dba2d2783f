"""Runs a model over windows of videos, for all jobs that do so."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import jax

from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.stream import VideoEnd, WindowBatch, WindowRow
from losa_jax.detection.nms import NmsSettings
from losa_jax.detection.segments import Segments, in_seconds, joined
from losa_jax.errors import fields_as_keys
from losa_jax.timeline import SampleGrid


def run_windows(step: Callable[[Inputs], Any], batches: Iterable[WindowBatch],
                *, output_rows: Sequence[int] | None = None,
                is_ahead: bool = True
                ) -> Generator[tuple[WindowRow, Any] | VideoEnd]:
    """Yields the step's output for each window, and the end of each video.

    Args:
      step: a batch's inputs on the host to a pytree of arrays [b, ...]; may
        return before the result is computed.
      batches: of a `WindowStream`.
      output_rows: rows of the output for the rows of the batch, where the
        output also has rows of other processes.
      is_ahead: read the next batch while the device computes; False waits
        for each result, as live videos need it.

    Yields:
      (window, its output on the host), and a `VideoEnd` after the last window
      of a video.
    """
    def finish(batch: WindowBatch, output: Any
               ) -> Generator[tuple[WindowRow, Any] | VideoEnd]:
        output = jax.device_get(output)
        # A batch that only ends videos has no rows.
        places = output_rows or range(len(batch.rows))
        for place, row in zip(places, batch.rows, strict=bool(batch.rows)):
            if row is not None:
                yield row, jax.tree.map(lambda leaf, at=place: leaf[at],
                                        output)
        yield from batch.ended

    running: tuple[WindowBatch, Any] | None = None
    for batch in batches:
        started = (batch, step(batch.inputs) if batch.inputs else ())
        if running is not None:
            yield from finish(*running)
        running = started
        if not is_ahead:
            yield from finish(*running)
            running = None
    if running is not None:
        yield from finish(*running)


class VideoSegments:
    """Collects the segments of windows until their video ends."""

    def __init__(self, grids: Sequence[SampleGrid], window: Any):
        """`grids` are the samples of each video, `window` the section."""
        self._grids = grids
        self._samples_per_token = window.samples / window.tokens
        self._parts: dict[int, list[Segments]] = {}

    def add(self, row: WindowRow, segments: Segments) -> None:
        """Adds the segments of a window, in tokens."""
        self._parts.setdefault(row.video_number, []).append(
            self.in_seconds(row, segments))

    def in_seconds(self, row: WindowRow, segments: Segments) -> Segments:
        """Returns the segments of a window in seconds of its video."""
        return in_seconds(segments, self._grids[row.video_number],
                          row.window.first_sample, self._samples_per_token)

    def take(self, video_number: int) -> Segments:
        """Removes and returns the segments of a video."""
        return joined(self._parts.pop(video_number, []))


def nms_settings(evaluate: Any, max_kept: int | None = None) -> NmsSettings:
    """Returns the settings of NMS; `max_kept` replaces max_detections."""
    with fields_as_keys(NmsSettings, "config.evaluate", method="nms",
                        per_class="nms_per_class", sigma="nms_sigma",
                        iou_threshold="nms_iou_threshold",
                        min_score="nms_min_score",
                        max_kept="max_detections"):
        return NmsSettings(
            method=evaluate.nms, per_class=evaluate.nms_per_class,
            sigma=evaluate.nms_sigma,
            iou_threshold=evaluate.nms_iou_threshold,
            min_score=evaluate.nms_min_score,
            max_kept=max_kept or evaluate.max_detections,
            voting_threshold=evaluate.voting_threshold,
            voting=evaluate.voting)
