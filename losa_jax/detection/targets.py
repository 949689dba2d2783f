"""Which action each pyramid point must find: ActionFormer's assignment.

A point is a place on the pyramid: point i of a level with stride s stands at
token coordinate i * s of the head's finest grid. Joining the levels gives
the axis p that logits, offsets and targets share.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from losa_jax.errors import InputError

# Actions whose lengths differ by less than this many tokens are equally
# short: a point inside both learns both classes (ActionFormer).
EQUAL_LENGTH_TOKENS = 1e-3


class Points(NamedTuple):
    """The points of all levels, level 0 first; float32 [p] each.

    Attributes:
      time: token coordinate on the finest grid.
      range_min, range_max: distances in tokens that the point's level
        answers for, both inclusive.
      stride: tokens from one point of the level to the next.
    """

    time: Float[np.ndarray, "p"]
    range_min: Float[np.ndarray, "p"]
    range_max: Float[np.ndarray, "p"]
    stride: Float[np.ndarray, "p"]


class Targets(NamedTuple):
    """What the head should say; points without an action hold zeros.

    Attributes:
      classes: [p, k] 0 or 1; a point may carry several classes.
      offsets: [p, 2] distances to start and end of its action, in strides.
      positive: [p] whether the point has an action.
    """

    classes: Float[Array, "*b p k"]
    offsets: Float[Array, "*b p 2"]
    positive: Bool[Array, "*b p"]


def level_points(num_tokens: int, strides: Sequence[int],
                 regression_ranges: Sequence[tuple[float, float]]) -> Points:
    """The points of a pyramid over `num_tokens` tokens, as constants.

    No half-stride offset: every level has a point on token 0 (ActionFormer,
    `use_offset=False`).

    Args:
      num_tokens: length of the finest grid.
      strides: of the levels, in tokens.
      regression_ranges: (smallest, largest) distance of each level, tokens.

    Raises:
      InputError: not one range a level, or a stride that leaves a rest.
    """
    if len(strides) != len(regression_ranges):
        raise InputError(
            f"{len(regression_ranges)} regression ranges for {len(strides)} "
            "levels: give one range a level")
    uneven = [stride for stride in strides if num_tokens % stride]
    if uneven:
        raise InputError(
            f"a window of {num_tokens} tokens does not divide by the strides "
            f"{uneven} of {len(strides)} levels: choose a multiple of "
            f"{math.lcm(*strides)}")
    levels = []
    for stride, (range_min, range_max) in zip(strides, regression_ranges,
                                              strict=True):
        time = np.arange(0, num_tokens, stride, dtype=np.float32)
        levels.append((time, np.full_like(time, range_min),
                       np.full_like(time, range_max),
                       np.full_like(time, stride)))
    return Points(*(np.concatenate(parts)
                    for parts in zip(*levels, strict=True)))


def assign_targets(points: Points, segments: Float[Array, "n 2"],
                   labels: Int[Array, "n"], action_valid: Bool[Array, "n"],
                   *, num_classes: int,
                   center_radius: float | None) -> Targets:
    """Targets of one video; vmap over the last three for a batch.

    ActionFormer's rule. A point may learn an action if it lies strictly
    inside the action's middle part (center +- `center_radius` strides, cut
    to the action) and the farther end of the *whole* action is within the
    level's range. Of several the shortest wins, the first of equals; the
    classes of all within 1e-3 tokens of the shortest are set.

    Args:
      points: of the pyramid.
      segments: start and end in tokens; n >= 1, padded at will.
      labels: class 0 .. k - 1; anything on padding.
      action_valid: False on padding.
      num_classes: k.
      center_radius: in strides; None lets every point inside the action
        learn it.
    """
    time, range_min, range_max, stride = (
        jnp.asarray(values, jnp.float32)[:, None] for values in points)
    segments = segments.astype(jnp.float32)
    start, end = segments[None, :, 0], segments[None, :, 1]
    left, right = time - start, end - time  # [p, n]

    if center_radius is None:
        inner_left, inner_right = left, right
    else:
        middle = 0.5 * (start + end)
        reach = center_radius * stride
        inner_left = time - jnp.maximum(start, middle - reach)
        inner_right = jnp.minimum(end, middle + reach) - time
    inside = jnp.minimum(inner_left, inner_right) > 0
    farther = jnp.maximum(left, right)
    in_range = (farther >= range_min) & (farther <= range_max)
    candidate = inside & in_range & action_valid[None]

    length = jnp.where(candidate, end - start, jnp.inf)
    shortest = jnp.min(length, axis=1, keepdims=True)
    positive = jnp.any(candidate, axis=1)

    # Without a candidate inf <= inf holds, hence the second condition.
    chosen = (length <= shortest + EQUAL_LENGTH_TOKENS) & candidate
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    classes = jnp.minimum(chosen.astype(jnp.float32) @ one_hot, 1.0)

    best = jnp.argmin(length, axis=1)[:, None]
    offsets = jnp.concatenate([jnp.take_along_axis(left, best, axis=1),
                               jnp.take_along_axis(right, best, axis=1)],
                              axis=1) / stride
    return Targets(classes, jnp.where(positive[:, None], offsets, 0.0),
                   positive)
