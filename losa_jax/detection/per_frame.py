"""Average precision of the classes at moments of videos, in place of segments.

A moment is a row with a score for every class. The score of a class is the
highest score of its detections that contain the moment; a moment in none of
them ranks last. A detector that was trained for segments is not tuned for
this measure. Two protocols:

    charades      25 moments a video, j / 25 of its length, j = 0 .. 24; an
                  action contains its two ends; videos that have no entry in
                  the predictions rank last (Charades_v1_localize)
    multithumos   as many moments as the video has features, i / n of its
                  length; an action does not contain its ends; a class that
                  is never shown has the precision 0 (the code of
                  super-events, PDAN and MS-TCT: "frame mAP")
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from losa_jax.detection.segments import Detection, column

PROTOCOLS = ("charades", "multithumos")
CHARADES_MOMENTS = 25


@dataclasses.dataclass(frozen=True)
class FrameReport:
    """Average precision of moments, as shares 0..1, not percent.

    Attributes:
      protocol: one of `PROTOCOLS`.
      class_names: k classes, in the order of the rows below.
      average_precision: NaN for a class without a moment in an action, in
        "multithumos" 0.
      frame_map: mean over the classes that are not NaN.
      weighted_map: mean weighted by the moments of each class (Charades' WAP).
      positives_per_class: moments in an action of the class.
      num_moments, num_videos: of the ground truth.
    """

    protocol: str
    class_names: tuple[str, ...]
    average_precision: Float[np.ndarray, "k"]
    frame_map: float
    weighted_map: float
    positives_per_class: Int[np.ndarray, "k"]
    num_moments: int
    num_videos: int

    def as_json(self) -> dict[str, Any]:
        """Returns the fields as JSON content, None for NaN."""
        return dataclasses.asdict(self) | {
            "average_precision": [None if np.isnan(value) else value for value
                                  in self.average_precision.tolist()],
            "positives_per_class": self.positives_per_class.tolist()}

    def __str__(self) -> str:
        return (f"per-frame mAP ({self.protocol}): "
                f"{100 * self.frame_map:.2f} %, weighted by moments "
                f"{100 * self.weighted_map:.2f} %; {self.num_moments:,} "
                f"moments of {self.num_videos:,} videos, "
                f"{self.positives_per_class.sum():,} in an action")


def evaluate_frames(ground_truth: Mapping[
                        str, Sequence[tuple[float, float, str]]],
                    predictions: Mapping[str, Sequence[Detection]], *,
                    class_names: Sequence[str],
                    durations: Mapping[str, float], protocol: str,
                    num_moments: Mapping[str, int] | None = None
                    ) -> FrameReport:
    """Scores detections at the moments of a protocol, without interpolation:
    the precision at each moment in an action, and its mean over them. Of
    equal scores, the moment of the earlier video and time ranks first.

    Args:
      durations: seconds of every video of the ground truth.
      num_moments: of every video, for "multithumos".
    """
    videos = list(ground_truth)
    if protocol == "charades":
        videos.sort(key=lambda video: video not in predictions)
    moments = [_moments(durations[video], CHARADES_MOMENTS
                        if num_moments is None else num_moments[video])
               for video in videos]
    firsts = np.cumsum([0, *map(len, moments)])
    index = {name: k for k, name in enumerate(class_names)}
    actions = _spans(videos, ground_truth, moments, firsts, index,
                     protocol == "charades")
    detected = _spans(videos, predictions, moments, firsts, index,
                      protocol == "charades")
    total = int(firsts[-1])

    def scores_of(k: int) -> np.ndarray:
        scores = np.full(total, -np.inf)
        # The highest score is written last.
        for start, end, score in detected.of_class(k):
            scores[start:end] = score
        return scores

    return _report(protocol, class_names, actions, total, len(ground_truth),
                   scores_of)


def evaluate_moments(ground_truth: Mapping[
                         str, Sequence[tuple[float, float, str]]],
                     scores: Mapping[str, Float[np.ndarray, "25 k"]], *,
                     class_names: Sequence[str],
                     durations: Mapping[str, float]) -> FrameReport:
    """Scores the 25 moments of each video by Charades' protocol, from a score
    for each moment and class; those that are -infinity, or of videos without
    scores, rank last."""
    none = np.full((CHARADES_MOMENTS, len(class_names)), -np.inf)
    table = np.concatenate([none[:0], *(scores.get(video, none)
                                        for video in ground_truth)])
    moments = [_moments(durations[video], CHARADES_MOMENTS)
               for video in ground_truth]
    actions = _spans(
        ground_truth, ground_truth, moments,
        CHARADES_MOMENTS * np.arange(len(moments) + 1),
        {name: k for k, name in enumerate(class_names)}, inclusive=True)
    return _report("charades", class_names, actions, len(table),
                   len(ground_truth), lambda k: table[:, k])


def _report(protocol: str, class_names: Sequence[str], actions: "_Spans",
            total: int, num_videos: int,
            scores_of: Callable[[int], np.ndarray]) -> FrameReport:
    """Returns the report of `total` moments, with their scores of a class."""
    precision = np.full(len(class_names),
                        np.nan if protocol == "charades" else 0.0)
    positives = np.zeros(len(class_names), int)
    for k in range(len(class_names)):
        is_action = np.zeros(total, bool)
        for start, end, _ in actions.of_class(k):
            is_action[start:end] = True
        positives[k] = is_action.sum()
        if positives[k]:
            precision[k] = _average_precision(scores_of(k), is_action)
    known = ~np.isnan(precision)
    return FrameReport(
        protocol, tuple(class_names), precision,
        float(precision[known].mean()) if known.any() else 0.0,
        float(np.average(precision[known], weights=positives[known]))
        if positives.any() else 0.0, positives, total, num_videos)


class _Spans(NamedTuple):
    """The moments in actions or detections, among those of all videos."""

    label: Int[np.ndarray, "m"]
    start: Int[np.ndarray, "m"]
    end: Int[np.ndarray, "m"]  # one past the last
    scores: Float[np.ndarray, "m"]

    def of_class(self, k: int) -> Iterator[tuple[int, int, float]]:
        """Iterates over those of a class by ascending score."""
        rows = np.flatnonzero(self.label == k)
        rows = rows[np.argsort(self.scores[rows], kind="stable")]
        return zip(*(part[rows].tolist() for part in self[1:]), strict=True)


def _spans(videos: Iterable[str], rows: Mapping[str, Sequence[Any]],
           moments: Sequence[np.ndarray], firsts: np.ndarray,
           index: Mapping[str, int], inclusive: bool) -> _Spans:
    """Returns the moments of rows that begin with start, end and label."""
    parts: list[_Spans] = []
    for video, times, first in zip(videos, moments, firsts, strict=False):
        own = rows.get(video, ())
        label = np.array([index.get(row[2], -1) for row in own], int)
        ends = np.sort(np.stack([column(own, 0), column(own, 1)], 1), axis=1)
        start, end = _inside(times, ends, inclusive)
        kept = (label >= 0) & (start < end)
        scores = (column(own, 3) if own and len(own[0]) > 3
                  else np.zeros(len(own)))
        parts.append(_Spans(label[kept], first + start[kept],
                            first + end[kept], scores[kept]))
    if not parts:
        parts = [_Spans(*(np.zeros(0, int),) * 3, np.zeros(0))]
    return _Spans(*map(np.concatenate, zip(*parts, strict=True)))


def _moments(duration_seconds: float, count: int) -> Float[np.ndarray, "n"]:
    return np.arange(count) / max(count, 1) * duration_seconds


def _inside(times: Float[np.ndarray, "n"], ends: Num[np.ndarray, "m 2"],
            inclusive: bool) -> tuple[Int[np.ndarray, "m"],
                                      Int[np.ndarray, "m"]]:
    """Returns the first moment in each segment, and that after its last."""
    if inclusive:
        return (np.searchsorted(times, ends[:, 0], "left"),
                np.searchsorted(times, ends[:, 1], "right"))
    return (np.searchsorted(times, ends[:, 0], "right"),
            np.searchsorted(times, ends[:, 1], "left"))


def _average_precision(scores: Float[np.ndarray, "m"],
                       positive: Bool[np.ndarray, "m"]) -> float:
    """Returns the mean precision at the positive rows, best score first."""
    is_scored = scores > -np.inf
    scored = np.flatnonzero(is_scored)
    order = scored[np.argsort(-scores[scored], kind="stable")]
    # Moments without a detection follow in their own order.
    ranks = np.concatenate([
        np.flatnonzero(positive[order]) + 1,
        len(scored) + np.cumsum(~is_scored)[positive & ~is_scored]])
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())
