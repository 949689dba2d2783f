"""From a head's outputs at its points to the best segments of a window."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from losa_jax.detection.segments import Candidates
from losa_jax.detection.targets import Points


def decode_with_points(class_logits: Float[Array, "p k"],
                       offsets: (Float[Array, "p 2"]
                                 | Float[Array, "p k 2"]),
                       points: Points, valid: Bool[Array, "p"], *,
                       score_threshold: float, top_k: int,
                       level_sizes: Sequence[int] | np.ndarray | None,
                       min_length_tokens: float
                       ) -> tuple[Candidates, Int[Array, "m"]]:
    """The best (point, class) pairs of one window as segments; vmap over b.

    Args:
      class_logits: before the sigmoid.
      offsets: distances to start and end in strides; [p, k, 2] where every
        class has its own (TriDet).
      points: of the pyramid.
      valid: False on padding, which scores 0.
      score_threshold: pairs must lie above it.
      top_k: how many pairs to keep at most.
      level_sizes: points of each level, to keep `top_k` on every level
        (ActionFormer); None keeps `top_k` of all levels together (OpenTAD).
      min_length_tokens: segments must be longer; a negative value lets
        empty ones through (OpenTAD has no such threshold).

    Returns:
      Candidates with m = the sum over levels of min(top_k, pairs), level
      after level, within a level by descending score; and the point of
      each.
    """
    num_classes = class_logits.shape[-1]
    offsets = jnp.asarray(offsets, jnp.float32)
    scores = jnp.where(valid[:, None],
                       jax.nn.sigmoid(class_logits.astype(jnp.float32)), 0.0)
    scores = jnp.where(scores > score_threshold, scores, 0.0).reshape(-1)

    sizes = [class_logits.shape[0]] if level_sizes is None else level_sizes
    pairs, first = [], 0
    for size in sizes:
        count = size * num_classes
        level_scores = jax.lax.slice_in_dim(scores, first, first + count)
        _, best = jax.lax.top_k(level_scores, min(top_k, count))
        pairs.append(first + best)
        first += count
    pair = jnp.concatenate(pairs)
    point, label = pair // num_classes, pair % num_classes

    distance = (offsets[point] if offsets.ndim == 2
                else offsets[point, label])
    time = jnp.asarray(points.time)[point]
    distance = distance * jnp.asarray(points.stride)[point][:, None]
    segments = jnp.stack([time - distance[:, 0], time + distance[:, 1]], -1)

    length = segments[:, 1] - segments[:, 0]
    alive = (scores[pair] > 0) & (length > min_length_tokens)
    return Candidates(segments, jnp.where(alive, scores[pair], 0.0), label,
                      alive), point

