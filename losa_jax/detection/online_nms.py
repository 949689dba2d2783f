"""NMS over a video without an end: detections as soon as they are final.

Windows come in the order of time. A window detects nothing that ends before
it starts, so what ends before the newest window starts is final, with one
exception: a later detection that reaches back over it with a better score.
Then what was given out stays, and NMS treats it as picked first. In all else
the result is that of `nms.suppress` over the whole video.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from losa_jax.detection.nms import (
    LENGTH_EPSILON,
    NmsSettings,
    suppress,
    vote,
)
from losa_jax.detection.segments import (
    Detection,
    Segments,
    detections,
    joined,
    take,
)


class OnlineNms:
    """Candidates that may still change, and the last picks that are final."""

    def __init__(self, class_names: Sequence[str], settings: NmsSettings,
                 memory_seconds: float):
        """
        Args:
          class_names: in label order.
          settings: its `max_kept` bounds what may still change, not the
            whole video.
          memory_seconds: how far back a new candidate may reach and still
            be suppressed by what was given out.
        """
        self._names, self._settings = class_names, settings
        self._memory_seconds = memory_seconds
        self._open, self._picked = joined([]), joined([])
        self._votes = settings.voting_threshold > 0 and not settings.per_class
        # As they came, with their own scores: picks may move to their mean.
        self._voters = joined([])

    def add(self, window: Segments) -> None:
        """Takes the candidates of the next window, in seconds."""
        window = window._replace(class_scores=None)
        if self._votes:
            self._voters = joined([self._voters, window])
        self._open = joined([
            self._open, self._after(self._picked, window, None)])

    def cut(self, duration_seconds: float) -> None:
        """Cuts open candidates to the video's length, which is known now."""
        def cut(segments: Segments) -> Segments:
            times = np.minimum(segments.segments, np.float32(duration_seconds))
            return take(segments._replace(segments=times),
                        times[:, 1] > times[:, 0])

        self._open, self._voters = cut(self._open), cut(self._voters)

    def final_before(self, moment_seconds: float) -> list[Detection]:
        """Detections that are final now, by time; each is given out once.

        Args:
          moment_seconds: where the newest window starts; infinity at the
            end.
        """
        candidates, settings = self._open, self._settings
        oldest = moment_seconds - self._memory_seconds
        if not len(candidates.scores):
            self._forget(oldest)
            return []
        # Voting follows below, with the candidates that were final before.
        left, rows = suppress(candidates, len(self._names),
                              dataclasses.replace(settings,
                                                  voting_threshold=0.0))
        picked = take(left, left.segments[:, 1] <= moment_seconds)

        # The score at which each candidate was picked just now; those that
        # were not come after all picks.
        turn = np.full(len(candidates.scores), -np.inf, np.float32)
        turn[rows] = left.scores
        stays = candidates.segments[:, 1] > moment_seconds
        self._open = self._after(picked, take(candidates, stays), turn[stays])
        self._picked = joined([self._picked, picked])
        if self._votes:
            picked = picked._replace(segments=vote(
                picked.segments, self._voters.segments, self._voters.scores,
                threshold=settings.voting_threshold, voting=settings.voting))
        self._forget(oldest)
        return sorted(detections(picked, self._names),
                      key=lambda one: one[:2])

    def _forget(self, oldest_seconds: float) -> None:
        """Drops what no later candidate reaches back to."""
        self._picked = _ending_after(self._picked, oldest_seconds)
        self._voters = _ending_after(self._voters, oldest_seconds)

    def _after(self, picked: Segments, candidates: Segments,
               turn: np.ndarray | None) -> Segments:
        """Candidates as picks leave them.

        Args:
          turn: the score at which each candidate was picked itself; a pick
            with a lower one came later. None: all picks came first.
        """
        settings = self._settings
        if settings.method == "none" or not len(candidates.scores) or (
                not len(picked.scores)):
            return candidates
        overlap = _overlaps(picked.segments, candidates.segments)
        if settings.per_class:
            overlap = np.where(picked.labels[:, None] == candidates.labels,
                               overlap, 0)
        if turn is not None:
            overlap = np.where(picked.scores[:, None] > turn, overlap, 0)
        if settings.method == "hard":
            hit = np.any(overlap >= settings.iou_threshold, axis=0)
            return take(candidates, np.logical_not(hit))
        scores: np.ndarray = candidates.scores * np.exp(
            -(overlap ** 2).sum(axis=0) / settings.sigma)
        is_left: np.ndarray = np.asarray(scores >= settings.min_score)
        return take(candidates._replace(scores=scores), is_left)


def _ending_after(segments: Segments, moment_seconds: float) -> Segments:
    return take(segments, segments.segments[:, 1] > moment_seconds)


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU [a, b] of segments [a, 2] and [b, 2], as NMS computes it."""
    intersection = np.maximum(
        np.minimum(first[:, None, 1], second[:, 1])
        - np.maximum(first[:, None, 0], second[:, 0]), 0)
    length = [part[:, 1] - part[:, 0] + LENGTH_EPSILON
              for part in (first, second)]
    return intersection / (length[0][:, None] + length[1] - intersection)
