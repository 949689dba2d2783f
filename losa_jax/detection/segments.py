"""Scored segments of time with a class, and their IoU.

A head returns the segments of a window in tokens. `in_seconds` converts them,
`joined` collects those of all windows, and `detections` adds class names.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from losa_jax import timeline

# A jax.Array in the jitted step, an np.ndarray on the host.
AnyArray = Any
# Keeps the division finite where both segments are empty.
_SMALLEST_UNION = 1e-12


class Segments(NamedTuple):
    """Detected segments of windows or of a video.

    Their ends are in tokens of the window, and then may reach beyond the video,
    or in seconds of the video.
    """

    segments: Float[AnyArray, "*b m 2"]  # start and end
    scores: Float[AnyArray, "*b m"]  # in (0, 1); 0 where not valid
    labels: Int[AnyArray, "*b m"]  # class 0 .. k - 1
    valid: Bool[AnyArray, "*b m"]  # False on padding
    class_scores: Float[AnyArray, "*b m k"] | None = None  # None: not kept


class Detection(NamedTuple):
    """One action that was detected in a video.

    Attributes:
      start_seconds, end_seconds: on the clock that players show.
      label: name of the class.
      score: 0..1, after NMS.
      class_scores: {class name: score 0..1 before NMS} of all classes; None
        unless the run had config.evaluate.keep_all_scores.
    """

    start_seconds: float
    end_seconds: float
    label: str
    score: float
    class_scores: Mapping[str, float] | None = None


def segment_iou(first: Float[AnyArray, "*#s 2"],
                second: Float[AnyArray, "*#s 2"], *,
                length_epsilon: float = 0.0) -> Float[AnyArray, "*s"]:
    """Returns the temporal IoU of (start, end), 0 where both are empty.

    `length_epsilon` is added to both lengths, but not to the intersection.
    """
    return iou_of_times(first[..., 0], first[..., 1], second[..., 0],
                        second[..., 1], length_epsilon=length_epsilon)


def iou_of_times(start: AnyArray, end: AnyArray, other_start: AnyArray,
                 other_end: AnyArray, *, length_epsilon: float = 0.0
                 ) -> AnyArray:
    """Returns `segment_iou` of numbers or arrays of starts and ends."""
    xp: Any = jnp if isinstance(start, jax.Array) else np
    shared = xp.maximum(
        xp.minimum(end, other_end) - xp.maximum(start, other_start), 0)
    union = ((end - start + length_epsilon)
             + (other_end - other_start + length_epsilon) - shared)
    return shared / xp.maximum(union, _SMALLEST_UNION)


def iou_of_rows(rows: Sequence[Sequence[Any]], others: Sequence[Sequence[Any]]
                ) -> Float[np.ndarray, "m n"]:
    """Returns the IoU of all pairs of rows that begin with start and end."""
    one, other = (np.array([row[:2] for row in part], float).reshape(-1, 2)
                  for part in (rows, others))
    return segment_iou(one[:, None], other)


def column(rows: Sequence[Sequence[Any]], place: int
           ) -> Float[np.ndarray, "m"]:
    """Returns the numbers at one place of rows, such as detections."""
    return np.fromiter(map(operator.itemgetter(place), rows), np.float64,
                       len(rows))


def in_seconds(window: Segments, grid: timeline.SampleGrid, first_sample: int,
               samples_per_token: float) -> Segments:
    """Converts the segments [m, ...] of one window to seconds of its video.

    The float32 seconds are cut to the video. Empty and invalid segments are
    dropped. See `timeline.seconds_from_tokens`.
    """
    seconds = np.asarray(timeline.seconds_from_tokens(
        np.asarray(window.segments), grid, first_sample, samples_per_token),
        np.float32)
    is_left = np.asarray(window.valid) & (seconds[:, 1] > seconds[:, 0])
    return take(window._replace(segments=seconds), is_left)


def take(segments: Segments, rows: np.ndarray) -> Segments:
    """Returns the rows of these indices or of this mask [m]."""
    return Segments(*(None if part is None else np.asarray(part)[rows]
                      for part in segments))


def joined(parts: list[Segments]) -> Segments:
    """Joins all rows in their order and empties the list.

    Each field's parts are released before the next field is joined, because a
    video of hours has millions of candidates.
    """
    if not parts:
        return Segments(np.zeros((0, 2), np.float32), np.zeros(0, np.float32),
                        np.zeros(0, np.int32), np.zeros(0, bool))
    fields = [list(field) for field in zip(*parts, strict=True)]
    parts.clear()
    whole = []
    for field in fields:
        whole.append(None if field[0] is None else np.concatenate(field))
        field.clear()
    return Segments(*whole)


def detections(segments: Segments, class_names: Sequence[str]
               ) -> list[Detection]:
    """Converts rows in seconds to detections with class names."""
    every: Any = segments.class_scores
    if every is None:
        every = [None] * len(segments.scores)
    return [Detection(float(start), float(end), class_names[label],
                      float(score), None if scores is None else dict(zip(
                          class_names, scores.tolist(), strict=True)))
            for (start, end), score, label, scores in zip(
                segments.segments, segments.scores, segments.labels, every,
                strict=True)]
