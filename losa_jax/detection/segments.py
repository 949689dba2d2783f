"""Scored stretches of time with a class: the container of all results.

The head gives `Segments` of a window in tokens; `in_seconds` puts them on the
clock of the video, `joined` collects those of all its windows, and
`nms.suppress` leaves the best. `detections` names the classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from losa_jax import timeline

# A jax.Array in the jitted step, an np.ndarray on the host.
AnyArray = Any


class Segments(NamedTuple):
    """Results of windows or of a video.

    Attributes:
      segments: [*b, m, 2], start and end; in tokens of their window, where
        they may reach beyond the video, or in seconds of the video.
      scores: [*b, m] in (0, 1); 0 where not valid.
      labels: [*b, m], class 0 .. k - 1.
      valid: [*b, m], False on rows that hold nothing.
      class_scores: [*b, m, k], the scores of all classes; None where they
        are not kept.
    """

    segments: Float[AnyArray, "*b m 2"]
    scores: Float[AnyArray, "*b m"]
    labels: Int[AnyArray, "*b m"]
    valid: Bool[AnyArray, "*b m"]
    class_scores: Float[AnyArray, "*b m k"] | None = None


class Detection(NamedTuple):
    """One action that was detected in a video.

    Attributes:
      start_seconds: from the first frame of the video.
      end_seconds: likewise, after `start_seconds`.
      label: name of the class.
      score: 0..1, as NMS left it.
      class_scores: {class name: score 0..1 before NMS} of all classes; None
        unless the run had config.evaluate.keep_all_scores.
    """

    start_seconds: float
    end_seconds: float
    label: str
    score: float
    class_scores: Mapping[str, float] | None = None


def in_seconds(window: Segments, grid: timeline.SampleGrid, first_sample: int,
               samples_per_token: float) -> Segments:
    """The valid segments of one window on the clock of its video.

    Args:
      window: [m, ...] in tokens, arrays on the host.
      grid: samples of the video.
      first_sample: where the window starts.
      samples_per_token: samples that a token of the head stands for.

    Returns:
      float32 seconds, cut to the video; segments of which nothing is left
      are not among them.
    """
    seconds = np.asarray(timeline.seconds_from_tokens(
        np.asarray(window.segments), grid, first_sample, samples_per_token),
        np.float32)
    is_left = np.asarray(window.valid) & (seconds[:, 1] > seconds[:, 0])
    return take(window._replace(segments=seconds), is_left)


def take(segments: Segments, rows: np.ndarray) -> Segments:
    """Some rows; numbers of rows, or a mask [m]."""
    return Segments(*(None if part is None else np.asarray(part)[rows]
                      for part in segments))


def joined(parts: list[Segments]) -> Segments:
    """All rows of several, in their order; the list is emptied.

    A video of hours has millions of candidates, so each field's parts are
    released before the next field is joined. No parts give no rows.
    """
    if not parts:
        return Segments(np.zeros((0, 2), np.float32), np.zeros(0, np.float32),
                        np.zeros(0, np.int32), np.zeros(0, bool))
    fields = [list(field) for field in zip(*parts, strict=True)]
    parts.clear()
    whole = []
    for field in fields:
        whole.append(None if field[0] is None else field[0]
                     if len(field) == 1 else np.concatenate(field))
        field.clear()
    return Segments(*whole)


def detections(segments: Segments, class_names: Sequence[str]
               ) -> list[Detection]:
    """The rows, in seconds, with the names of their classes."""
    every: list[Mapping[str, float] | None] = [None] * len(segments.scores)
    if segments.class_scores is not None:
        every = [dict(zip(class_names, row.tolist(), strict=True))
                 for row in segments.class_scores]
    return [Detection(float(start), float(end), class_names[label],
                      float(score), scores)
            for (start, end), score, label, scores in zip(
                segments.segments, segments.scores, segments.labels, every,
                strict=True)]
