"""Decodes the outputs of a head to the best segments of a window."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

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
# Classes of each of two heads that are paired at a point (OpenTAD).
PAIRED_CLASSES = 10


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

    segments, is_long = _segments(
        points, point, offsets[point] if offsets.ndim == 2
        else offsets[point, label], settings)
    is_kept = (scores[pair] > 0) & is_long
    every = (jax.nn.sigmoid(class_logits)[point] if settings.keep_all_scores
             else None)
    return Segments(segments, jnp.where(is_kept, scores[pair], 0.0), label,
                    is_kept, every)


def _segments(points: Points, point: Int[Array, "m"],
              distance: Float[Array, "m 2"], settings: DecodeSettings
              ) -> tuple[Float[Array, "m 2"], Bool[Array, "m"]]:
    """Returns the segments at points, in tokens, and which are long enough."""
    time = jnp.asarray(points.time)[point]
    distance = distance * jnp.asarray(points.stride)[point][:, None]
    segments = jnp.stack([time - distance[:, 0], time + distance[:, 1]], -1)
    length = segments[:, 1] - segments[:, 0]
    return segments, length > settings.min_length_tokens


def decode_pairs(class_logits: tuple[Float[Array, "p k"], Float[Array, "p n"]],
                 offsets: tuple[Float[Array, "p 2"], Float[Array, "p 2"]],
                 points: Points, valid: Bool[Array, "p"],
                 settings: DecodeSettings) -> Segments:
    """Returns the best segments of one window for pairs of classes, from the
    outputs of two heads at the same points, as of verbs and of nouns.

    At each point the 10 best classes of one head are paired with the 10 best
    of the other. The score is the root of the product of both, and the
    segment is the mean of both. The label of a pair is i n + j. The settings
    are those of `decode`, with `top_k` for all levels together.
    """
    scores, labels = [], []
    for logits in class_logits:
        best, which = jax.lax.top_k(
            jax.nn.sigmoid(logits.astype(jnp.float32)),
            min(PAIRED_CLASSES, logits.shape[-1]))
        scores.append(best)
        labels.append(which)
    pair_scores = jnp.sqrt(scores[0][:, :, None] * scores[1][:, None, :])
    pair_labels = (labels[0][:, :, None] * class_logits[1].shape[-1]
                   + labels[1][:, None, :])
    pair_scores = jnp.where(
        valid[:, None, None] & (pair_scores > settings.score_threshold),
        pair_scores, 0.0)
    per_point = pair_scores.shape[1] * pair_scores.shape[2]
    kept_scores, pair = jax.lax.top_k(
        pair_scores.reshape(-1), min(settings.top_k, pair_scores.size))
    point = pair // per_point
    segments, is_long = _segments(
        points, point, ((offsets[0] + offsets[1]) / 2)[point], settings)
    is_kept = (kept_scores > 0) & is_long
    return Segments(segments, jnp.where(is_kept, kept_scores, 0.0),
                    pair_labels.reshape(-1)[pair], is_kept)
