"""How much the class loss of each token counts, by what reviews have decided.

The weight of a class at a token is 0 where nobody knows whether the class is
there, 1 where it is known, and config.loss.hard_negative_weight where a person
has rejected a detection of it.
"""

from collections.abc import Sequence

import numpy as np

from losa_jax import timeline
from losa_jax.data.records import Video, Window


def are_needed(videos: Sequence[Video]) -> bool:
    """Whether any weight is not 1."""
    return any(video.reviewed_seconds is not None or video.hard_negatives
               for video in videos)


def loss_weights(video: Video, window: Window, segments: np.ndarray,
                 labels: np.ndarray, class_names: Sequence[str], *,
                 num_tokens: int, samples_per_token: float,
                 hard_negative_weight: float) -> np.ndarray:
    """Returns the weights of a window, float32 [t, k].

    Args:
      segments: those of the window's targets, [n, 2] in tokens. A point that
        learns one of them knows the class, also if nothing else is known.
      labels: their classes, [n].
    """
    tokens = np.arange(num_tokens)

    def inside(segment: np.ndarray) -> np.ndarray:
        # As `targets.assign_targets` decides it.
        return (tokens > segment[0]) & (tokens < segment[1])

    def inside_seconds(start: float, end: float, *_: object) -> np.ndarray:
        return inside(timeline.tokens_from_seconds(
            np.array([start, end]), video.grid, window.first_sample,
            samples_per_token).astype(np.float32))

    stretches = video.reviewed_seconds
    known = np.full((num_tokens, 1), stretches is None)
    for stretch in stretches or ():
        known[inside_seconds(*stretch)] = True
    weights = np.repeat(known.astype(np.float32), len(class_names), axis=1)
    for action in video.hard_negatives:
        weights[inside_seconds(*action),
                class_names.index(action.label)] = hard_negative_weight
    # Classes that are mapped to one may have hard negatives in each other's
    # actions. An action that the window cuts is no target and stays unknown.
    for action in video.actions:
        rows = inside_seconds(*action)
        weights[rows, class_names.index(action.label)] = known[rows, 0]
    for segment, label in zip(segments, labels, strict=True):
        weights[inside(segment), label] = 1.0
    return weights
