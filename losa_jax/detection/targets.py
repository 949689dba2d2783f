"""Assigns actions to the points of a pyramid, as ActionFormer does.

Point i of a level with stride s is at token coordinate i * s of the finest
grid. Logits, offsets and targets share the axis p of all levels' points.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from losa_jax.errors import InputError

# Actions whose lengths differ by less than this many tokens count as equal: a
# point inside both learns both classes (ActionFormer).
EQUAL_LENGTH_TOKENS = 1e-3


class Points(NamedTuple):
    """The points of all levels, level 0 first, in tokens of the finest grid."""

    time: Float[np.ndarray, "p"]
    range_min: Float[np.ndarray, "p"]  # distances that the level regresses,
    range_max: Float[np.ndarray, "p"]  # both inclusive
    stride: Float[np.ndarray, "p"]  # from one point of the level to the next


class Targets(NamedTuple):
    """The wanted outputs; points without an action have zeros."""

    classes: Float[Array, "*b p k"]  # 0 or 1; a point may have several
    offsets: Float[Array, "*b p 2"]  # distances to start and end, in strides
    positive: Bool[Array, "*b p"]  # whether the point has an action
    weights: Float[Array, "*b p k"] | None = None  # of the class loss; None: 1


def level_points(num_tokens: int, strides: Sequence[int],
                 regression_ranges: Sequence[tuple[float, float]]) -> Points:
    """Returns the points of a pyramid over a multiple of every stride.

    Every level has a point at token 0 (ActionFormer, `use_offset=False`), and
    a range of (smallest, largest) distances in tokens.
    """
    if len(strides) != len(regression_ranges):
        raise InputError(
            f"{len(regression_ranges)} regression ranges for {len(strides)} "
            "levels: give one range for each level")
    uneven = [stride for stride in strides if num_tokens % stride]
    if uneven:
        raise InputError(
            f"a window of {num_tokens} tokens is not a multiple of the strides "
            f"{uneven} of {len(strides)} levels: choose a multiple of "
            f"{math.lcm(*strides)}")
    times = [np.arange(0, num_tokens, stride, dtype=np.float32)
             for stride in strides]
    of_level = np.repeat(np.arange(len(times)), [*map(len, times)])
    range_min, range_max = np.asarray(regression_ranges, np.float32).T
    return Points(np.concatenate(times), range_min[of_level],
                  range_max[of_level],
                  np.asarray(strides, np.float32)[of_level])


def assign_targets(points: Points, segments: Float[Array, "n 2"],
                   labels: Int[Array, "n"], action_valid: Bool[Array, "n"],
                   *, num_classes: int, center_radius: float | None,
                   every_class: bool = False) -> Targets:
    """Returns the targets of one window; vmap over the arrays for a batch.

    A point may learn an action if it is strictly inside the action's middle
    part (center +- `center_radius` strides, cut to the action) and the
    farther end of the *whole* action is within the level's range. Of several
    actions it learns the shortest (of equals the first), and the classes of
    all that are at most 1e-3 tokens longer, or with `every_class` of all that
    it may learn.

    Segments are in tokens, n >= 1 with padding, where `action_valid` is False.
    `center_radius` None allows every point inside the action.
    """
    time, range_min, range_max, stride = (
        jnp.asarray(values, jnp.float32)[:, None] for values in points)
    segments = segments.astype(jnp.float32)
    start, end = segments[None, :, 0], segments[None, :, 1]
    left, right = time - start, end - time  # [p, n]

    inner_left, inner_right = left, right
    if center_radius is not None:
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

    # Without candidates, inf <= inf is true.
    chosen = (length <= shortest + EQUAL_LENGTH_TOKENS) & candidate
    if every_class:
        chosen = candidate
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    classes = jnp.minimum(chosen.astype(jnp.float32) @ one_hot, 1.0)

    best = jnp.argmin(length, axis=1)[:, None]
    offsets = jnp.concatenate([jnp.take_along_axis(left, best, axis=1),
                               jnp.take_along_axis(right, best, axis=1)],
                              axis=1) / stride
    return Targets(classes, jnp.where(positive[:, None], offsets, 0.0),
                   positive)
