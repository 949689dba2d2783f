"""Actions found in windows and videos: the containers of results."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int


class Candidates(NamedTuple):
    """What the head found in one window, a fixed number of rows.

    Attributes:
      segments: [m, 2] start and end in tokens, may reach beyond the video.
      scores: [m] in (0, 1); 0 where not alive.
      labels: [m] class.
      alive: [m] False on rows that hold nothing.
    """

    segments: Float[Array, "*b m 2"]
    scores: Float[Array, "*b m"]
    labels: Int[Array, "*b m"]
    alive: Bool[Array, "*b m"]



class Detection(NamedTuple):
    """One action found in a video.

    `class_scores`, of all classes, are written as "class_scores" and not
    read back.
    """

    start_seconds: float
    end_seconds: float
    label: str
    score: float
    class_scores: Mapping[str, float] | None = None

