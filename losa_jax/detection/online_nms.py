"""Detections of an endless video, each given out once nothing can change it.

Windows come in the order of time. A window finds nothing that ends before it
starts, so what ends before the newest window starts is final, but for one
case: something found later that reaches back over it with a better score.
Then what was given out stands, and NMS treats it as picked first. In all
else the result is that of `merge_windows` over the whole video.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from losa_jax.detection.merge import WindowFinds
from losa_jax.detection.nms import LENGTH_EPSILON, suppress_rows, vote
from losa_jax.detection.segments import Detection

# Segments [m, 2], scores [m] and, of candidates and picks, labels [m].
Rows = tuple[np.ndarray, ...]


class Settling:
    """Candidates that wait, and the last picks that are final."""

    def __init__(self, class_names: Sequence[str], settings: Any,
                 memory_seconds: float):
        """
        Args:
          class_names: in label order.
          settings: the config section `evaluate`; its max_detections bounds
            what waits, not the whole video.
          memory_seconds: how far back a new candidate may reach and still
            be suppressed by what was given out.
        """
        self._names, self._settings = class_names, settings
        self._memory_seconds = memory_seconds
        self._waiting = _no_rows()
        self._picked = _no_rows()
        # With the scores that they came with: picks may move to their mean.
        self._voters = _no_rows()[:2]

    def add(self, finds: WindowFinds) -> None:
        """Takes the candidates of the next window."""
        rows: Rows = (finds.segments, finds.scores, finds.labels)
        self._voters = _joined(self._voters, rows[:2])
        rows = self._after(self._picked, rows, None)
        self._waiting = _joined(self._waiting, rows)

    def cut(self, duration_seconds: float) -> None:
        """Cuts what waits to the length of the video, now that it is known."""
        def cut(rows: Rows) -> Rows:
            segments = np.minimum(rows[0], np.float32(duration_seconds))
            real = segments[:, 1] > segments[:, 0]
            return tuple(part[real] for part in (segments, *rows[1:]))

        self._waiting, self._voters = cut(self._waiting), cut(self._voters)

    def settle(self, moment_seconds: float) -> list[Detection]:
        """What is final now, by time, and is given out this once.

        Args:
          moment_seconds: where the newest window starts; infinity at the
            end.
        """
        segments, scores, labels = self._waiting
        if not len(scores):
            return []
        settings = self._settings
        left = suppress_rows(
            segments, scores, labels, num_classes=len(self._names),
            method=settings.nms, multiclass=settings.nms_per_class,
            sigma=settings.nms_sigma,
            iou_threshold=settings.nms_iou_threshold,
            min_score=settings.nms_min_score,
            max_kept=settings.max_detections)
        final = segments[left.rows, 1] <= moment_seconds
        picked = (segments[left.rows][final], left.scores[final],
                  left.labels[final])

        # When each candidate that waits on was picked just now; those that
        # were not come after all picks.
        turn = np.full(len(scores), -np.inf, np.float32)
        turn[left.rows] = left.scores
        stays = segments[:, 1] > moment_seconds
        self._waiting = self._after(
            picked, (segments[stays], scores[stays], labels[stays]),
            turn[stays])
        memory = _joined(self._picked, picked)
        recent = memory[0][:, 1] > moment_seconds - self._memory_seconds
        self._picked = tuple(part[recent] for part in memory)
        places = picked[0]
        if settings.voting_threshold > 0 and not settings.nms_per_class:
            places = vote(places, *self._voters,
                          threshold=settings.voting_threshold,
                          voting=settings.voting)
            recent = self._voters[0][:, 1] > (moment_seconds
                                              - self._memory_seconds)
            self._voters = tuple(part[recent] for part in self._voters)
        found = [
            Detection(float(start), float(end), self._names[label],
                      float(score))
            for (start, end), score, label in zip(
                places, *picked[1:], strict=True)]
        return sorted(found, key=lambda one: one[:2])

    def _after(self, picked: Rows, rows: Rows, turn: np.ndarray | None
               ) -> Rows:
        """Candidates as picks leave them.

        Args:
          picked: segments, scores and labels of picks.
          rows: the same of candidates.
          turn: the score at which each candidate was picked itself; a pick
            with a lower one came later. None: all picks came first.
        """
        segments, scores, labels = rows
        settings = self._settings
        if settings.nms == "none" or not len(scores) or not len(picked[0]):
            return rows
        overlap = _overlaps(picked[0], segments)
        if settings.nms_per_class:
            overlap = np.where(picked[2][:, None] == labels, overlap, 0)
        if turn is not None:
            overlap = np.where(picked[1][:, None] > turn, overlap, 0)
        if settings.nms == "hard":
            left = ~(overlap >= settings.nms_iou_threshold).any(axis=0)
        else:
            scores = scores * np.exp(
                -(overlap ** 2).sum(axis=0) / settings.nms_sigma)
            left = scores >= settings.nms_min_score
        return segments[left], scores[left], labels[left]


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU [a, b] of segments [a, 2] and [b, 2], as NMS computes it."""
    intersection = np.maximum(
        np.minimum(first[:, None, 1], second[:, 1])
        - np.maximum(first[:, None, 0], second[:, 0]), 0)
    length = [part[:, 1] - part[:, 0] + LENGTH_EPSILON
              for part in (first, second)]
    return intersection / (length[0][:, None] + length[1] - intersection)


def _no_rows() -> Rows:
    return (np.zeros((0, 2), np.float32), np.zeros(0, np.float32),
            np.zeros(0, np.int64))


def _joined(first: Rows, second: Rows) -> Rows:
    return tuple(np.concatenate(pair)
                 for pair in zip(first, second, strict=True))
