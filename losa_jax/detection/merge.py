"""The windows of one video put together: its final list of detections."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from losa_jax import timeline
from losa_jax.detection.nms import suppress_rows
from losa_jax.detection.segments import Candidates, Detection


class WindowFinds(NamedTuple):
    """What was found in one window, on the clock of the video.

    Attributes:
      segments: float32 [m, 2], seconds, cut to the video.
      scores: float32 [m].
      labels: int32 [m].
      class_scores: [m, k] of all classes, where they are kept.
    """

    segments: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    class_scores: np.ndarray | None = None


def finds_in_seconds(candidates: Candidates, class_scores: np.ndarray | None,
                     grid: timeline.SampleGrid, first_sample: int,
                     samples_per_token: float) -> WindowFinds:
    """The living candidates of one window, but for those past the video's
    ends.

    Args:
      candidates: of one window, arrays on the host.
      class_scores: [m, k] or None.
      grid: samples of the window's video.
      first_sample: where the window starts.
      samples_per_token: samples that a token of the head stands for.
    """
    segments, scores, labels, alive = map(np.asarray, candidates)
    seconds = np.asarray(timeline.seconds_from_tokens(
        segments, grid, first_sample, samples_per_token), np.float32)
    # Cutting to the video can leave nothing of a segment.
    real = alive & (seconds[:, 1] > seconds[:, 0])
    return WindowFinds(
        seconds[real], scores[real], labels[real],
        None if class_scores is None else class_scores[real])


class VideoFinds:
    """What was found in the windows of one video, as they come.

    A video of hours has millions of candidates, so they are put together
    without having them all twice.
    """

    def __init__(self) -> None:
        self._fields: tuple[list[np.ndarray], ...] = ([], [], [], [])

    def add(self, finds: WindowFinds) -> None:
        """Takes those of the next window."""
        for field, part in zip(self._fields, finds, strict=True):
            if part is not None:
                field.append(part)

    def take(self) -> list[WindowFinds]:
        """All of them, as `merge_windows` takes them; none are left here."""
        if not self._fields[0]:
            return []
        segments, scores, labels, class_scores = self._fields
        return [WindowFinds(
            _taken(segments), _taken(scores), _taken(labels),
            _taken(class_scores) if class_scores else None)]


def _taken(parts: list[np.ndarray]) -> np.ndarray:
    """All in one; the parts are let go at once."""
    whole = _joined(parts)
    parts.clear()
    return whole


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def merge_windows(found: Sequence[WindowFinds], class_names: Sequence[str],
                  settings: Any, *, max_kept: int | None = None
                  ) -> list[Detection]:
    """NMS over all windows of a video, by descending score.

    Args:
      found: of each window, in the order of the windows.
      class_names: in label order.
      settings: the config section `evaluate`.
      max_kept: in place of settings.max_detections.
    """
    if not found:
        return []
    segments = _joined([part.segments for part in found])
    scores = _joined([part.scores for part in found])
    labels = _joined([part.labels for part in found])
    left = suppress_rows(
        segments, scores, labels, num_classes=len(class_names),
        method=settings.nms, multiclass=settings.nms_per_class,
        sigma=settings.nms_sigma, iou_threshold=settings.nms_iou_threshold,
        min_score=settings.nms_min_score,
        max_kept=max_kept or settings.max_detections,
        voting_threshold=settings.voting_threshold, voting=settings.voting)
    every: list[dict[str, float] | None] = [None] * len(left.rows)
    if found[0].class_scores is not None:
        rows = _joined([part.class_scores for part in found
                        if part.class_scores is not None])
        every = [dict(zip(class_names, row.tolist(), strict=True))
                 for row in rows[left.rows]]
    return [
        Detection(float(start), float(end), class_names[label], float(score),
                  scores)
        for (start, end), score, label, scores in zip(
            left.segments, left.scores, left.labels, every, strict=True)]
