"""NMS over an endless video: detections are returned when they are final.

Windows come by time. A segment that ends before the newest window is final.
If a later candidate overlaps it with a better score, the earlier detection
stays, and NMS treats it as picked first. Otherwise the result equals that of
`nms.suppress` over the whole video.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from losa_jax.detection import nms, segments
from losa_jax.detection.segments import Detection, Segments, joined, take


class OnlineNms:
    """Candidates that are not final, and the recent final picks."""

    def __init__(self, class_names: Sequence[str], settings: nms.NmsSettings,
                 memory_seconds: float):
        """Starts without candidates.

        `settings.max_kept` limits those that are not final. A final pick
        suppresses candidates for `memory_seconds`.
        """
        self._names, self._settings = class_names, settings
        self._memory_seconds = memory_seconds
        self._open, self._picked = joined([]), joined([])
        # Candidates with their original scores, for voting.
        self._voters = joined([])

    def add(self, window: Segments) -> None:
        """Adds the candidates of the next window, in seconds."""
        window = window._replace(class_scores=None)
        if self._settings.votes:
            self._voters = joined([self._voters, window])
        self._open = joined([
            self._open, self._suppressed(self._picked, window, -np.inf)])

    def cut(self, duration_seconds: float) -> None:
        """Cuts the open candidates to the length of the finished video."""
        def cut(part: Segments) -> Segments:
            times = np.minimum(part.segments, np.float32(duration_seconds))
            return take(part._replace(segments=times),
                        times[:, 1] > times[:, 0])

        self._open, self._voters = cut(self._open), cut(self._voters)

    def final_before(self, moment_seconds: float) -> list[Detection]:
        """Returns new final detections by time, each once.

        The newest window starts at this moment; it is infinity at the end.
        """
        candidates, settings = self._open, self._settings
        final: list[Detection] = []
        if len(candidates.scores):
            # Voting follows below, with earlier candidates too.
            left, rows = nms.suppress(
                candidates, len(self._names),
                dataclasses.replace(settings, voting_threshold=0.0))
            picked = take(left, left.segments[:, 1] <= moment_seconds)
            # The score at which each candidate was picked; -inf if it was not.
            picked_score = np.full(len(candidates.scores), -np.inf, np.float32)
            picked_score[rows] = left.scores
            stays = candidates.segments[:, 1] > moment_seconds
            self._open = self._suppressed(picked, take(candidates, stays),
                                          picked_score[stays])
            self._picked = joined([self._picked, picked])
            if settings.votes:
                picked = picked._replace(segments=nms.vote(
                    picked.segments, self._voters.segments,
                    self._voters.scores, settings))
            final = sorted(segments.detections(picked, self._names),
                           key=lambda one: one[:2])
        oldest = moment_seconds - self._memory_seconds
        self._picked, self._voters = (
            take(part, part.segments[:, 1] > oldest)
            for part in (self._picked, self._voters))
        return final

    def _suppressed(self, picked: Segments, candidates: Segments,
                    picked_score: np.ndarray | float) -> Segments:
        """Suppresses candidates by the picks above their `picked_score`."""
        settings = self._settings
        if settings.method == "none" or not picked.scores.size:
            return candidates
        iou = segments.segment_iou(
            picked.segments[:, None], candidates.segments,
            length_epsilon=nms.LENGTH_EPSILON)
        if settings.per_class:
            iou = np.where(picked.labels[:, None] == candidates.labels, iou, 0)
        iou = np.where(picked.scores[:, None] > picked_score, iou, 0)
        if settings.method == "hard":
            return take(candidates,
                        np.all(iou < settings.iou_threshold, axis=0))
        scores = candidates.scores * np.exp(
            -(iou ** 2).sum(axis=0) / settings.sigma)
        return take(candidates._replace(scores=scores),
                    scores >= settings.min_score)
