"""Runs a model over windows of videos: the one engine of all jobs.

Evaluation, prediction, live prediction, caching and extraction differ in
their windows (a `WindowStream`), in the compiled step, and in what they do
with the output of each window.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import jax

from losa_jax import timeline
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.stream import (
    VideoEnd,
    WindowBatch,
    WindowRow,
)
from losa_jax.detection.nms import NmsSettings
from losa_jax.detection.segments import Segments, in_seconds, joined
from losa_jax.errors import fields_as_keys

# A batch's inputs, on the host, to any pytree of arrays [b, ...].
Step = Callable[[Inputs], Any]


def run_windows(step: Step, batches: Iterable[WindowBatch], *,
                output_rows: Sequence[int] | None = None,
                is_ahead: bool = True
                ) -> Generator[tuple[WindowRow, Any] | VideoEnd]:
    """The step's output for every window, and the end of every video.

    Args:
      step: may return before its result is there.
      batches: of a `WindowStream`.
      output_rows: rows of the output that belong to the batch's rows, where
        the step gives those of other processes too; None: the same ones.
      is_ahead: the device works on one batch while the next is read. False
        waits for each result at once, as a live video needs it.

    Yields:
      (window, its output, arrays on the host), then a `VideoEnd` behind the
      last window of a video.
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

    def __init__(self, grids: Sequence[timeline.SampleGrid],
                 samples_per_token: float):
        """
        Args:
          grids: samples of each video.
          samples_per_token: samples that a token of the head stands for.
        """
        self._grids, self._samples_per_token = grids, samples_per_token
        self._parts: dict[int, list[Segments]] = {}

    def add(self, row: WindowRow, segments: Segments) -> None:
        """Takes those of one window, in tokens."""
        self._parts.setdefault(row.video_number, []).append(
            self.in_seconds(row, segments))

    def in_seconds(self, row: WindowRow, segments: Segments) -> Segments:
        """Those of one window on the clock of its video."""
        return in_seconds(segments, self._grids[row.video_number],
                          row.window.first_sample, self._samples_per_token)

    def take(self, video_number: int) -> Segments:
        """All of a video; none are left here."""
        return joined(self._parts.pop(video_number, []))


def nms_settings(evaluate: Any, max_kept: int | None = None) -> NmsSettings:
    """Those of the config section `evaluate`.

    Args:
      max_kept: in place of its max_detections.
    """
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
