"""Non-maximum suppression, soft and hard, and voting.

`suppress` runs on the host, once for each video, after all its windows. Ties
are stable everywhere: of equal scores the lowest index comes first.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from losa_jax import errors
from losa_jax.detection.segments import Segments, iou_of_times, segment_iou

# Added to the lengths before the IoU is computed, as ActionFormer's NMS does:
# two empty segments then have an IoU of 0.
LENGTH_EPSILON = 1e-6
SMALLEST_BUCKET = 64
# A video of hours has millions of candidates, so NMS first runs on this many
# with the best scores. Scores only fall: if the last of `max_kept` picks has a
# better score than all other candidates, none of these can be picked.
FIRST_CANDIDATES = 2 ** 13
# The most rows in one array of several groups.
MOST_ROWS = 2 ** 20
# The most kept segments, and pairs with candidates, in memory while voting.
VOTING_BLOCK, VOTING_PAIRS = 256, 2 ** 22


@dataclasses.dataclass(frozen=True)
class NmsSettings:
    """How overlapping segments are suppressed.

    Attributes:
      method: "soft" multiplies the scores of others by exp(-IoU^2 / sigma),
        "hard" removes them, "none" only sorts and cuts.
      per_class: every class on its own, else all classes together.
      sigma: of "soft", above 0.
      iou_threshold: of "hard", 0..1: IoU from which others are removed.
      min_score: 0..1; "soft" drops scores below it, "hard" this score too.
      max_kept: rows kept of each class, and then of all; 1 or more.
      voting_threshold: above 0, every kept segment becomes the mean of all
        candidates with at least this IoU; only without `per_class`.
      voting: a vote's weight, score x IoU ("actionformer") or score ("tridet").

    Raises:
      InputError: names the field and what it allows.
    """

    method: str = "soft"
    per_class: bool = True
    sigma: float = 0.5
    iou_threshold: float = 0.1
    min_score: float = 0.001
    max_kept: int = 2000
    voting_threshold: float = 0.0
    voting: str = "actionformer"

    def __post_init__(self) -> None:
        errors.check_choice(self, "method", ("soft", "hard", "none"))
        errors.check_choice(self, "voting", ("actionformer", "tridet"))
        errors.check_flags(self)
        errors.check_between(self, 0, math.inf, "sigma", without=(0,))
        errors.check_between(self, 0, 1, "iou_threshold", "min_score",
                             "voting_threshold")
        errors.check_whole(self, 1, "max_kept")

    @property
    def votes(self) -> bool:
        """Whether kept segments are moved by votes."""
        return self.voting_threshold > 0 and not self.per_class


class Kept(NamedTuple):
    """The picks of NMS by descending score; row and score 0 if not valid."""

    row: Int[Array, "*g max_kept"]  # index into the input
    score: Float[Array, "*g max_kept"]  # at the time of the pick
    valid: Bool[Array, "*g max_kept"]  # False after the last pick


@functools.partial(jax.jit, static_argnames=("method", "max_kept"))
def pick_greedily(segments: Float[Array, "*g m 2"],
                  scores: Float[Array, "*g m"], alive: Bool[Array, "*g m"],
                  *, method: str, max_kept: int,
                  min_score: float | Float[Array, ""],
                  sigma: float | Float[Array, ""] = 0.5,
                  iou_threshold: float | Float[Array, ""] = 0.1) -> Kept:
    """Picks the best score, weakens what overlaps it, and repeats this.

    "soft" is Gaussian soft-NMS (Bodla et al., 2017) as ActionFormer has it:
    the first pick stays even if its score is below `min_score`. Groups
    (classes) are independent, but share one loop, because its operations are
    small. Scores are not negative; `alive` is False on padding. Settings are
    those of `NmsSettings`.
    """
    if method == "hard":
        alive = alive & ((scores > min_score) | (min_score <= 0))
    scores = jnp.where(alive, scores, -jnp.inf)  # removed rows have -inf
    groups, count = scores.shape[:-1], scores.shape[-1]
    start, end = jnp.moveaxis(segments.reshape(-1, count, 2), -1, 0)
    scores = scores.reshape(-1, count)
    index = jnp.arange(count)

    def any_left(state):
        step, _, top, _, _ = state
        return (step < max_kept) & (jnp.max(top) > -jnp.inf)

    def pick(state):
        step, left, top, picked, picked_score = state
        # argmax in two vectorized reductions; XLA's own argmax is a scalar
        # loop on the CPU, 4 times slower from 4,096 rows on.
        best = jnp.min(jnp.where(left == top, index, index[-1]), axis=1,
                       keepdims=True)
        iou = iou_of_times(start, end,
                           jnp.take_along_axis(start, best, axis=1),
                           jnp.take_along_axis(end, best, axis=1),
                           length_epsilon=LENGTH_EPSILON)
        if method == "hard":
            left = jnp.where(iou >= iou_threshold, -jnp.inf, left)
        else:
            left = left * jnp.exp(-iou * iou / sigma)
            left = jnp.where(left >= min_score, left, -jnp.inf)
        left = jnp.where(index == best, -jnp.inf, left)
        return (step + 1, left, jnp.max(left, axis=1, keepdims=True),
                picked.at[step].set(best[:, 0]),
                picked_score.at[step].set(top[:, 0]))

    # A group without segments goes on picking -inf until all are finished.
    shape = (max_kept, len(scores))
    *_, picked, picked_score = jax.lax.while_loop(any_left, pick, (
        0, scores, jnp.max(scores, axis=1, keepdims=True),
        jnp.zeros(shape, index.dtype), jnp.full(shape, -jnp.inf, scores.dtype)))
    valid = picked_score > -jnp.inf
    return Kept(*(part.T.reshape(*groups, max_kept) for part in (
        jnp.where(valid, picked, 0), jnp.where(valid, picked_score, 0), valid)))


def suppress(candidates: Segments, num_classes: int, settings: NmsSettings
             ) -> tuple[Segments, Int[np.ndarray, "kept"]]:
    """Returns the kept segments by descending score, and their rows.

    Candidates [m, ...] are of one video, in any unit; `valid` is ignored.
    """
    segments = np.asarray(candidates.segments, np.float32).reshape(-1, 2)
    scores = np.asarray(candidates.scores, np.float32)
    labels = np.asarray(candidates.labels)
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} with "
                         f"{num_classes} classes")
    if settings.method == "none" or not scores.size:
        rows, new_scores = np.arange(len(scores)), scores
    else:
        group = labels if settings.per_class else np.zeros_like(labels)
        order = np.argsort(group, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
        with jax.default_device(_host_device()):
            picks = _pick_groups(settings, segments, scores, groups,
                                 FIRST_CANDIDATES)
        rows, new_scores = map(np.concatenate, zip(*picks, strict=True))
    # Of equal scores the one of the first group comes first.
    best = np.argsort(-new_scores, kind="stable")[:settings.max_kept]
    rows = rows[best]
    new_segments = segments[rows]
    if settings.method != "none" and settings.votes:
        new_segments = vote(new_segments, segments, scores, settings)
    every = candidates.class_scores
    return Segments(new_segments, new_scores[best],
                    labels[rows].astype(np.int64), np.ones(len(rows), bool),
                    None if every is None else np.asarray(every)[rows]), rows


def _host_device() -> jax.Device | None:
    """Returns the CPU: an accelerator only waits for such small steps."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return None


def _pick_groups(settings: NmsSettings, segments: np.ndarray,
                 scores: np.ndarray, groups: Sequence[np.ndarray], most: int
                 ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the picked rows of each group, and their scores at that time.

    NMS runs on the `most` best candidates of a group, or on more if needed.
    """
    # The best scores, in their original order.
    parts = [rows[np.sort(np.argsort(-scores[rows], kind="stable")[:most])]
             for rows in groups]
    picks = _run_nms(settings, segments, scores, parts)
    again = [i for i, (part, (_, picked)) in enumerate(zip(
        parts, picks, strict=True)) if len(part) < len(groups[i]) and not (
            len(picked) == settings.max_kept
            and picked[-1] > scores[part].min())]
    if again:
        more = _pick_groups(settings, segments, scores,
                            [groups[i] for i in again], 4 * most)
        for i, pick in zip(again, more, strict=True):
            picks[i] = pick
    return picks


def _run_nms(settings: NmsSettings, segments: np.ndarray, scores: np.ndarray,
             groups: Sequence[np.ndarray]
             ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Runs NMS on groups of rows, those of similar size in one array.

    Sizes and numbers of groups are powers of two, so that few are compiled.
    """
    by_size: dict[int, list[int]] = {}
    for i, rows in enumerate(groups):
        size = max(SMALLEST_BUCKET, _next_power(len(rows)))
        by_size.setdefault(size, []).append(i)
    picks = {}
    for size, members in by_size.items():
        together = max(1, MOST_ROWS // size)
        for first in range(0, len(members), together):
            some = members[first:first + together]
            rows = np.zeros((_next_power(len(some)), size), np.int64)
            alive = np.zeros(rows.shape, bool)
            for i, member in enumerate(some):
                rows[i, :len(groups[member])] = groups[member]
                alive[i, :len(groups[member])] = True
            kept = jax.device_get(pick_greedily(
                segments[rows], scores[rows], alive, method=settings.method,
                max_kept=min(settings.max_kept, size),
                min_score=settings.min_score, sigma=settings.sigma,
                iou_threshold=settings.iou_threshold))
            for i, member in enumerate(some):
                valid = kept.valid[i]
                picks[member] = (rows[i, kept.row[i, valid]],
                                 kept.score[i, valid])
    return [picks[i] for i in range(len(groups))]


def _next_power(count: int) -> int:
    return 1 << (count - 1).bit_length()


def vote(kept: Float[np.ndarray, "q 2"], segments: Float[np.ndarray, "m 2"],
         scores: Float[np.ndarray, "m"], settings: NmsSettings
         ) -> Float[np.ndarray, "q 2"]:
    """Moves kept segments to the weighted means of their supporters.

    Supporters are candidates of any class from `voting_threshold` IoU on,
    weighted by their score before NMS (times IoU: "actionformer"). An empty
    segment stays in place. Unlike NMS, IoU is without `LENGTH_EPSILON`.
    """
    moved = kept.copy()
    size = max(1, min(VOTING_BLOCK, VOTING_PAIRS // max(1, len(segments))))
    for first in range(0, len(kept), size):
        block = kept[first:first + size]
        iou = segment_iou(block[:, None], segments)
        weight = np.where(iou >= settings.voting_threshold, scores, 0)
        if settings.voting == "actionformer":
            weight = weight * iou
        total = weight.sum(axis=1, keepdims=True)
        mean = weight @ segments / np.where(total > 0, total, 1)
        moved[first:first + size] = np.where(total > 0, mean, block)
    return moved
