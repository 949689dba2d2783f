"""Non-maximum suppression, soft and hard, and voting.

`suppress` runs on the host, once a video, when the candidates of all its
windows are together; it hands `soft_nms` or `hard_nms` arrays of a few fixed
sizes.

Order is stable everywhere: of equal scores the lowest index comes first.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from losa_jax.detection.segments import Segments
from losa_jax.errors import check_between, check_choice, check_whole

# Added to the lengths (not to the intersection) before an overlap is
# computed, as ActionFormer's NMS does: empty segments then overlap nothing,
# and nothing divides by zero.
LENGTH_EPSILON = 1e-6
# Smallest array that NMS is compiled for; larger ones double.
SMALLEST_BUCKET = 64
# Candidates that NMS looks at first. Picks fall in score, and who is not
# picked changes nothing: if the last of `max_kept` picks scores above all
# that were left aside, those need no look. A video of hours has millions.
FIRST_CANDIDATES = 2 ** 13
# Rows that NMS runs on at a time, groups side by side; a larger group runs
# alone.
MOST_ROWS = 2 ** 20
# Kept segments that vote at a time, and pairs with candidates in memory.
VOTING_BLOCK, VOTING_PAIRS = 256, 2 ** 22


class Kept(NamedTuple):
    """What NMS left, in the order picked: by descending score.

    Attributes:
      row: [max_kept] of the input; 0 where not valid.
      score: [max_kept] as it was when picked; 0 where not valid.
      valid: [max_kept] False behind the last pick.
    """

    row: Int[Array, "*g max_kept"]
    score: Float[Array, "*g max_kept"]
    valid: Bool[Array, "*g max_kept"]


def soft_nms(segments: Float[Array, "*g m 2"], scores: Float[Array, "*g m"],
             alive: Bool[Array, "*g m"], *, sigma: float, min_score: float,
             max_kept: int) -> Kept:
    """Gaussian soft-NMS (Bodla et al., 2017) as ActionFormer runs it.

    Picks the best score left, multiplies all others by
    exp(-overlap^2 / sigma), drops those below `min_score`, and so on. What
    is picked is not tested: the first pick stays even below `min_score`.

    Groups (classes) in front are each on their own, side by side in one
    loop: a pick is a few small operations, whose start costs more than they.

    Args:
      segments: start and end, any unit.
      scores: not negative.
      alive: rows that take part.
      sigma: wider spares more neighbors.
      min_score: a decayed score below this drops out.
      max_kept: stop after so many picks.
    """
    def decay(left, overlap):
        decayed = left * jnp.exp(-overlap * overlap / sigma)
        return jnp.where(decayed >= min_score, decayed, -jnp.inf)

    return _pick_greedily(segments, jnp.where(alive, scores, -jnp.inf),
                          decay, max_kept)


def hard_nms(segments: Float[Array, "*g m 2"], scores: Float[Array, "*g m"],
             alive: Bool[Array, "*g m"], *, iou_threshold: float,
             min_score: float, max_kept: int) -> Kept:
    """Plain NMS: a pick removes all that overlap it by `iou_threshold`.

    Args:
      segments, scores, alive, max_kept: as in `soft_nms`.
      iou_threshold: overlap at which a worse segment goes, inclusive.
      min_score: if above 0, only scores above it take part.
    """
    alive = alive & ((scores > min_score) | (min_score <= 0))

    def decay(left, overlap):
        return jnp.where(overlap >= iou_threshold, -jnp.inf, left)

    return _pick_greedily(segments, jnp.where(alive, scores, -jnp.inf),
                          decay, max_kept)


def _pick_greedily(segments: Float[Array, "*g m 2"],
                   scores: Float[Array, "*g m"],
                   decay: Callable[[Array, Array], Array],
                   max_kept: int) -> Kept:
    """Picks the best score left until none is; -inf marks what is out."""
    groups, count = scores.shape[:-1], scores.shape[-1]
    start, end = jnp.moveaxis(jnp.reshape(segments, (-1, count, 2)), -1, 0)
    length = end - start + LENGTH_EPSILON
    index = jnp.arange(count)
    scores = scores.reshape(-1, count)

    def best_of(left):
        return jnp.max(left, axis=1, keepdims=True)

    def any_left(state):
        step, _, top, _, _ = state
        return (step < max_kept) & (jnp.max(top) > -jnp.inf)

    def pick(state):
        step, left, top, picked, picked_score = state
        # argmax in two vectorized reductions; XLA's own argmax is a scalar
        # loop on the CPU, 4 times slower from 4,096 rows on.
        best = jnp.min(jnp.where(left == top, index, index[-1]), axis=1,
                       keepdims=True)
        best_start = jnp.take_along_axis(start, best, axis=1)
        best_end = jnp.take_along_axis(end, best, axis=1)
        best_length = best_end - best_start + LENGTH_EPSILON
        intersection = jnp.maximum(
            jnp.minimum(end, best_end) - jnp.maximum(start, best_start), 0)
        overlap = intersection / (length + best_length - intersection)
        left = jnp.where(index == best, -jnp.inf, decay(left, overlap))
        return (step + 1, left, best_of(left),
                picked.at[step].set(best[:, 0]),
                picked_score.at[step].set(top[:, 0]))

    # A group that has run dry goes on picking -inf until all have.
    shape = (max_kept, len(scores))
    *_, picked, picked_score = jax.lax.while_loop(any_left, pick, (
        0, scores, best_of(scores), jnp.zeros(shape, index.dtype),
        jnp.full(shape, -jnp.inf, scores.dtype)))
    valid = picked_score > -jnp.inf
    return Kept(*(part.T.reshape(*groups, max_kept) for part in (
        jnp.where(valid, picked, 0), jnp.where(valid, picked_score, 0),
        valid)))


_jitted_soft_nms = jax.jit(soft_nms, static_argnames="max_kept")
_jitted_hard_nms = jax.jit(hard_nms, static_argnames="max_kept")


@dataclasses.dataclass(frozen=True)
class NmsSettings:
    """How overlapping segments are suppressed.

    Attributes:
      method: "soft", "hard", or "none", which only sorts and cuts.
      per_class: every class on its own, else all classes together.
      sigma: of "soft", above 0: another's score falls by the factor
        exp(-IoU^2 / sigma).
      iou_threshold: of "hard", 0..1: others go from this IoU on.
      min_score: 0..1; "soft" drops what falls below it, "hard" what is not
        above it.
      max_kept: rows kept of each class, and then of all; 1 or more.
      voting_threshold: above 0, every kept segment becomes the mean of all
        candidates that overlap it so much; only without `per_class`.
      voting: weight of a vote, score x overlap ("actionformer") or score
        alone ("tridet").

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
        check_choice(self, "method", ("soft", "hard", "none"))
        check_choice(self, "voting", ("actionformer", "tridet"))
        check_choice(self, "per_class", (True, False))
        check_between(self, 0, math.inf, "sigma", without=(0,))
        check_between(self, 0, 1, "iou_threshold", "min_score",
                      "voting_threshold")
        check_whole(self, 1, "max_kept")


def suppress(candidates: Segments, num_classes: int, settings: NmsSettings
             ) -> tuple[Segments, np.ndarray]:
    """NMS over all candidates of one video, on the host.

    Args:
      candidates: [m, ...], any unit, any m; all count, `valid` or not.
      num_classes: labels are 0 .. num_classes - 1.
      settings: how.

    Returns:
      by descending score, q <= max_kept rows, and int64 [q], which
      candidates they are.
    """
    segments = np.asarray(candidates.segments, np.float32).reshape(-1, 2)
    scores = np.asarray(candidates.scores, np.float32)
    labels = np.asarray(candidates.labels)
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} with "
                         f"{num_classes} classes")
    max_kept = settings.max_kept
    if settings.method == "none":
        rows = np.argsort(-scores, kind="stable")[:max_kept]
        return _kept_rows(candidates, rows, segments[rows], scores[rows]), rows

    run: Callable[..., Kept]
    if settings.method == "soft":
        run = functools.partial(_jitted_soft_nms, sigma=settings.sigma,
                                min_score=settings.min_score)
    else:
        run = functools.partial(_jitted_hard_nms,
                                min_score=settings.min_score,
                                iou_threshold=settings.iou_threshold)
    if settings.per_class:
        by_class = np.argsort(labels, kind="stable")
        ends = np.cumsum(np.bincount(
            labels.astype(np.int64), minlength=num_classes))
        groups = np.split(by_class, ends[:-1])
    else:
        groups = [np.arange(len(scores))]
    groups = [rows for rows in groups if rows.size]
    kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    looked_at = FIRST_CANDIDATES
    with jax.default_device(_host_device()):
        while len(kept) < len(groups):
            open_groups = [i for i in range(len(groups)) if i not in kept]
            parts = [_best(groups[i], scores, looked_at) for i in open_groups]
            picks = _run_groups(run, segments, scores, parts, max_kept)
            for i, part, pick in zip(open_groups, parts, picks, strict=True):
                if len(part) == len(groups[i]) or _is_final(
                        pick, scores[part].min(), max_kept):
                    kept[i] = (part[pick.row[pick.valid]],
                               np.asarray(pick.score[pick.valid]))
            looked_at *= 4
    # In the groups' order, which decides between equal scores.
    rows = np.concatenate([np.empty(0, np.int64),
                           *(kept[i][0] for i in range(len(groups)))])
    new_scores = np.concatenate([np.empty(0, np.float32),
                                 *(kept[i][1] for i in range(len(groups)))])
    best = np.argsort(-new_scores, kind="stable")[:max_kept]
    rows, new_scores = rows[best], new_scores[best]

    new_segments = segments[rows]
    if settings.voting_threshold > 0 and not settings.per_class:
        new_segments = vote(
            new_segments, segments, scores, voting=settings.voting,
            threshold=settings.voting_threshold)
    return _kept_rows(candidates, rows, new_segments, new_scores), rows


def _kept_rows(candidates: Segments, rows: np.ndarray, segments: np.ndarray,
               scores: np.ndarray) -> Segments:
    """Candidates that are left, where and how sure NMS says they are."""
    every = candidates.class_scores
    return Segments(
        segments, scores, np.asarray(candidates.labels)[rows].astype(np.int64),
        np.ones(len(rows), bool),
        None if every is None else np.asarray(every)[rows])


def _best(rows: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` rows of the best scores, in their own order."""
    if len(rows) <= count:
        return rows
    best = np.argsort(-scores[rows], kind="stable")[:count]
    return rows[np.sort(best)]


def _is_final(kept: Kept, aside: float, max_kept: int) -> bool:
    """Whether no candidate with a score up to `aside` could be picked."""
    count = int(np.asarray(kept.valid).sum())
    return count == max_kept and float(kept.score[count - 1]) > aside


def _host_device() -> jax.Device | None:
    """The CPU: NMS is a chain of tiny steps, an accelerator only waits."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return None


def _bucket(count: int, smallest: int = 1) -> int:
    """The next power of two: few sizes are ever compiled."""
    return max(smallest, 1 << (count - 1).bit_length())


def _run_groups(run: Callable[..., Kept], segments: np.ndarray,
                scores: np.ndarray, groups: Sequence[np.ndarray],
                max_kept: int) -> list[Kept]:
    """NMS of groups of rows, those of like size in one array.

    Sizes and numbers of groups are powers of two, so that few shapes are
    ever compiled.
    """
    by_size: dict[int, list[int]] = {}
    for i, rows in enumerate(groups):
        by_size.setdefault(_bucket(len(rows), SMALLEST_BUCKET), []).append(i)
    started: list[tuple[list[int], Kept]] = []
    for size, members in by_size.items():
        together = max(1, MOST_ROWS // size)
        for first in range(0, len(members), together):
            some = members[first:first + together]
            rows = np.zeros((_bucket(len(some)), size), np.int64)
            alive = np.zeros(rows.shape, bool)
            for i, member in enumerate(some):
                rows[i, :len(groups[member])] = groups[member]
                alive[i, :len(groups[member])] = True
            kept = run(segments[rows], scores[rows], alive,
                       max_kept=min(max_kept, size))
            # Small ones run side by side.
            started.append((some, kept if 2 * rows.size < MOST_ROWS
                            else jax.block_until_ready(kept)))
    found: dict[int, Kept] = {}
    for some, kept in started:
        parts = [np.asarray(part) for part in kept]
        for i, member in enumerate(some):
            found[member] = Kept(*(part[i] for part in parts))
    return [found[i] for i in range(len(groups))]


def vote(kept: np.ndarray, segments: np.ndarray, scores: np.ndarray, *,
         threshold: float, voting: str) -> np.ndarray:
    """Moves every kept segment to the weighted mean of its supporters.

    Args:
      kept: [q, 2] segments that NMS left.
      segments: [m, 2] all candidates, of any class.
      scores: [m] of the candidates before NMS; the weight of a vote, times
        the IoU for "actionformer".
      threshold: IoU from which a candidate supports a kept segment, above
        0; without 1e-6 on the lengths, unlike NMS.

    Returns:
      [q, 2]; a kept segment without support (an empty one) stays in place.
    """
    moved = kept.copy()
    start, end = segments[:, 0], segments[:, 1]
    size = max(1, min(VOTING_BLOCK, VOTING_PAIRS // max(1, len(segments))))
    for first in range(0, len(kept), size):
        block = kept[first:first + size]
        intersection = np.maximum(
            np.minimum(block[:, 1:], end) - np.maximum(block[:, :1], start),
            0)
        union = (block[:, 1:] - block[:, :1]) + (end - start) - intersection
        iou = intersection / np.where(union > 0, union, 1)
        weight = np.where(iou >= threshold, scores, 0)
        if voting == "actionformer":
            weight = weight * iou
        total = weight.sum(axis=1, keepdims=True)
        mean = weight @ segments / np.where(total > 0, total, 1)
        moved[first:first + size] = np.where(total > 0, mean, block)
    return moved
