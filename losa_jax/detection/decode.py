"""Decodes the outputs of a head to the best segments of a window."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from losa_jax.detection.segments import Segments
from losa_jax.detection.targets import Points
from losa_jax.errors import check_between, check_flags, check_whole


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """Which segments of a window are kept for NMS.

    Attributes:
      score_threshold: kept scores, 0..1 after the sigmoid, are above it.
      top_k: the most (point, class) pairs of a window.
      top_k_per_level: `top_k` is for each level (ActionFormer), not for all
        levels together (OpenTAD).
      min_length_tokens: kept segments are longer, in tokens of the finest
        level; a negative value keeps empty ones too (as OpenTAD does).
      keep_all_scores: keep the scores of all classes of each segment.

    Raises:
      InputError: names the field and what it allows.
    """

    score_threshold: float = 0.001
    top_k: int = 2000
    top_k_per_level: bool = False
    min_length_tokens: float = 0.05
    keep_all_scores: bool = False

    def __post_init__(self) -> None:
        check_between(self, 0, 1, "score_threshold")
        check_whole(self, 1, "top_k")
        check_between(self, -math.inf, math.inf, "min_length_tokens")
        check_flags(self)


DEFAULT_DECODING = DecodeSettings()


def decode(class_logits: Float[Array, "p k"],
           offsets: Float[Array, "p 2"] | Float[Array, "p k 2"],
           points: Points, valid: Bool[Array, "p"],
           settings: DecodeSettings) -> Segments:
    """Returns the best (point, class) pairs of one window as segments.

    Offsets are distances to start and end in strides, of each class for TriDet.
    Segments are in tokens, by level and then by descending score, with
    min(top_k, number of pairs) rows for each level or for all together.
    """
    num_classes = class_logits.shape[-1]
    offsets = jnp.asarray(offsets, jnp.float32)
    scores = jnp.where(valid[:, None],
                       jax.nn.sigmoid(class_logits.astype(jnp.float32)), 0.0)
    scores = jnp.where(scores > settings.score_threshold, scores,
                       0.0).reshape(-1)

    sizes = [class_logits.shape[0]]
    if settings.top_k_per_level:
        sizes = np.unique(points.stride, return_counts=True)[1].tolist()
    pairs, first = [], 0
    for size in sizes:
        count = size * num_classes
        level_scores = jax.lax.slice_in_dim(scores, first, first + count)
        _, best = jax.lax.top_k(level_scores, min(settings.top_k, count))
        pairs.append(first + best)
        first += count
    pair = jnp.concatenate(pairs)
    point, label = pair // num_classes, pair % num_classes

    distance = (offsets[point] if offsets.ndim == 2 else offsets[point, label])
    time = jnp.asarray(points.time)[point]
    distance = distance * jnp.asarray(points.stride)[point][:, None]
    segments = jnp.stack([time - distance[:, 0], time + distance[:, 1]], -1)

    length = segments[:, 1] - segments[:, 0]
    is_kept = (scores[pair] > 0) & (length > settings.min_length_tokens)
    every = (jax.nn.sigmoid(class_logits)[point] if settings.keep_all_scores
             else None)
    return Segments(segments, jnp.where(is_kept, scores[pair], 0.0), label,
                    is_kept, every)
