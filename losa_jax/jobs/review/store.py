"""The videos of a folder, their detections, and the verdicts on them.

Each change names the revision that it is based on. A change based on an old
revision is refused, so that a second window never overwrites the first.
"""

import dataclasses
import datetime
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from losa_jax.data import reviews
from losa_jax.data.predictions import VideoPredictions
from losa_jax.data.reviews import JudgedAction, Review
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError
from losa_jax.jobs.review.folder import probe_videos, read_predicted
from losa_jax.utils.atomic_write import make_folder

logger = logging.getLogger(__name__)

# A copy of a video may be a little shorter or longer.
_SAME_SECONDS = 1.0


class Conflict(Exception):
    """A change that is based on an old revision."""


@dataclasses.dataclass
class _Entry:
    """One video of the store."""

    predicted: VideoPredictions
    detections: dict[str, Detection]  # by id
    review: Review
    path: Path  # of the file of its review


class Store:
    """All videos of a folder; each method may be called from any thread.

    Attributes:
      folder: as given.
      class_names: known classes; a change may add one.
    """

    def __init__(self, folder: Path, reviewer: str):
        """Reads a folder that `predict` wrote, or a folder of videos."""
        self.folder, self._reviewer = folder, reviewer
        self._lock = threading.Lock()
        # Calls of `accept_all` that can be undone, and those that were.
        self._done: list[dict[int, list[JudgedAction]]] = []
        self._undone: list[dict[int, list[JudgedAction]]] = []
        if not os.access(folder, os.W_OK):
            raise InputError(
                f"{folder}: decisions are kept in it, but it is not writable: "
                "make it writable, or copy it")
        predicted = read_predicted(folder) or probe_videos(folder)
        reviews.check_is_ours(folder / reviews.REVIEWED_FILE)
        self._entries = [self._entry(one) for one in predicted]
        self.class_names: list[str] = sorted({
            *(name for one in predicted for name in one.shown_from),
            *(one.label for one in self._all_actions())})
        self._warn_of_other_reviews()
        self._write_annotations()

    def _entry(self, predicted: VideoPredictions) -> _Entry:
        path = (self.folder / reviews.REVIEWS_FOLDER
                / f"{predicted.video_id}.json")
        review = (reviews.read_review(path) if path.exists() else Review(
            predicted.video_id, predicted.duration_seconds, predicted.fps))
        if review.video_id != predicted.video_id:
            raise InputError(
                f"{path}: is the review of the video {review.video_id!r}: "
                "give the file its old name again")
        if abs(review.duration_seconds - predicted.duration_seconds) > (
                _SAME_SECONDS):
            logger.warning(
                "%s: is the review of a video of %.1f s, but %s has %.1f s: "
                "if it is another video, rename the review", path,
                review.duration_seconds, predicted.video_id,
                predicted.duration_seconds)
        return _Entry(predicted, {
            reviews.detection_id(one, predicted.model): one
            for one in reversed(predicted.detections)}, review, path)

    def _warn_of_other_reviews(self) -> None:
        folder = self.folder / reviews.REVIEWS_FOLDER
        known = {entry.path for entry in self._entries}
        if others := [str(path.relative_to(folder).with_suffix(""))
                      for path in sorted(folder.rglob("*.json"))
                      if path not in known and not path.name.startswith(".")]:
            logger.warning(
                "%s: %d reviews are of videos that are not here, and are left "
                "out of %s: %s", folder, len(others), reviews.REVIEWED_FILE,
                ", ".join(others[:3]))

    def __len__(self) -> int:
        """Returns the number of videos."""
        return len(self._entries)

    def predicted(self, number: int) -> VideoPredictions:
        """Returns what `predict` wrote about a video."""
        return self._entries[number].predicted

    def review(self, number: int) -> Review:
        """Returns what was decided about a video so far."""
        return self._entries[number].review

    def open_detections(self, number: int) -> dict[str, Detection]:
        """Returns the detections of a video without a verdict, by id."""
        entry = self._entries[number]
        judged = {one.action_id for one in entry.review.actions}
        # A detection of a newer model that is the same action as a judged
        # one needs no second verdict.
        older = [one for one in entry.review.actions
                 if one.action_id not in entry.detections]
        return {name: one for name, one in entry.detections.items()
                if name not in judged and not any(
                    reviews.is_same_action(one, other) for other in older)}

    def to_check(self, number: int) -> dict[str, Detection]:
        """Returns the open detections that reach their class's threshold; none
        of a complete video, whose other parts are background."""
        if self.review(number).is_complete:
            return {}
        least = self.predicted(number).shown_from
        return {name: one for name, one in self.open_detections(number).items()
                if one.score >= least.get(one.label, 0.0)}

    def doubt(self, number: int) -> float:
        """Returns how near a score to check is to its threshold: 0 is the
        most doubtful, infinity a video with nothing to check."""
        return min((self.doubt_of(number, name)
                    for name in self.to_check(number)), default=float("inf"))

    def doubt_of(self, number: int, name: str) -> float:
        """Returns how near the score of a detection is to the threshold of its
        class; -1 for what is no detection."""
        one = self._entries[number].detections.get(name)
        return -1.0 if one is None else abs(
            one.score - self.predicted(number).shown_from.get(one.label, 0.0))

    def by_doubt(self) -> list[int]:
        """Returns the videos, first those that are not complete, each by
        doubt."""
        return sorted(range(len(self)), key=lambda number: (
            self.review(number).is_complete, self.doubt(number), number))

    def change(self, number: int, revision: int, changes: Mapping[str, Any],
               is_complete: bool | None = None) -> Review:
        """Saves changed verdicts on one video; returns the new review.

        Args:
          number: of the video.
          revision: of the review that the changes are based on.
          changes: {id of an action: {"label", "start_seconds",
            "end_seconds", "verdict"}, or None to take the verdict back}.
          is_complete: whether no action is missing; None: as before.

        Raises:
          Conflict: another window has changed the video in between.
          InputError: a change is no action of this video.
        """
        with self._lock:
            entry = self._entries[number]
            old = entry.review
            if revision != old.revision:
                raise Conflict(
                    f"{old.video_id} was changed in another window")
            actions = {one.action_id: one for one in old.actions}
            for name, values in changes.items():
                if values is None:
                    actions.pop(name, None)
                else:
                    actions[name] = self._judged(entry, name, values)
            self._save(entry, dataclasses.replace(
                old, revision=old.revision + 1, actions=_in_time(actions),
                is_complete=(old.is_complete if is_complete is None
                             else is_complete is True)))
            self._write_annotations()
            return entry.review

    def accept_all(self, label: str | None, least_score: float,
                   only_counts: bool) -> dict[int, int]:
        """Accepts the detections to check of a class (None: of any) with a
        score of `least_score` or more; returns {video: their number}."""
        with self._lock:
            accepted = {}
            for number, entry in enumerate(self._entries):
                if chosen := [
                        self._judged(entry, name, {
                            "label": one.label,
                            "start_seconds": one.start_seconds,
                            "end_seconds": one.end_seconds,
                            "verdict": reviews.ACCEPTED})
                        for name, one in self.to_check(number).items()
                        if one.score >= least_score
                        and label in (None, one.label)]:
                    accepted[number] = chosen
            if accepted and not only_counts:
                self._undone.clear()
                self._done.append(accepted)
                self._add(accepted)
            return {number: len(some) for number, some in accepted.items()}

    def undo_accept_all(self) -> dict[int, int]:
        """Takes the last `accept_all` back; returns {video: number of
        verdicts}. What was changed since then stays, as do the verdicts of
        videos that are complete by now."""
        with self._lock:
            if not self._done:
                return {}
            accepted = self._done.pop()
            self._undone.append(accepted)
            removed = {}
            for number, some in accepted.items():
                review, taken = self.review(number), {*some}
                if review.is_complete:
                    continue
                left = [one for one in review.actions if one not in taken]
                if len(left) < len(review.actions):
                    removed[number] = len(review.actions) - len(left)
                    self._replace(number, left)
            self._write_annotations()
            return removed

    def redo_accept_all(self) -> dict[int, int]:
        """Does the `accept_all` again that was taken back last; returns
        {video: number of verdicts}."""
        with self._lock:
            if not self._undone:
                return {}
            accepted = self._undone.pop()
            self._done.append(accepted)
            return self._add(accepted)

    @property
    def accept_all_steps(self) -> tuple[int, int]:
        """Numbers of calls of `accept_all` to undo and to redo."""
        return len(self._done), len(self._undone)

    def _add(self, accepted: Mapping[int, list[JudgedAction]]
             ) -> dict[int, int]:
        """Saves verdicts on what is open; returns {video: their number}."""
        counts = {}
        for number, some in accepted.items():
            is_open = self.to_check(number)
            new = [one for one in some if one.action_id in is_open]
            if new:
                counts[number] = len(new)
                self._replace(number, [*self.review(number).actions, *new])
        self._write_annotations()
        return counts

    def _replace(self, number: int, actions: Iterable[JudgedAction]) -> None:
        entry = self._entries[number]
        self._save(entry, dataclasses.replace(
            entry.review, revision=entry.review.revision + 1,
            actions=_in_time({one.action_id: one for one in actions})))

    def _judged(self, entry: _Entry, name: str, values: Mapping[str, Any]
                ) -> JudgedAction:
        detection = entry.detections.get(name)
        before = next((one for one in entry.review.actions
                       if one.action_id == name), None)
        try:
            new = JudgedAction(
                name, values["label"], values["start_seconds"],
                values["end_seconds"], values["verdict"], self._reviewer,
                datetime.datetime.now(datetime.UTC).isoformat(
                    timespec="seconds"))
        except (KeyError, TypeError) as error:
            raise InputError(f"action {name}: is no action ({error!r})"
                             ) from error
        if problem := new.problem(entry.predicted.duration_seconds):
            raise InputError(
                f"{entry.predicted.video_id}, action {name}: {problem}")
        if detection is not None:
            new = dataclasses.replace(
                new, score=detection.score, model=entry.predicted.model,
                detected=detection[:3])
        elif before is not None:  # of an older model, or of a person
            new = dataclasses.replace(
                new, score=before.score, model=before.model,
                detected=before.detected)
        elif name.startswith("d"):
            raise InputError(f"action {name}: no such detection: load the "
                             "page again")
        if new.label not in self.class_names:
            self.class_names.append(new.label)
        return new

    def _save(self, entry: _Entry, review: Review) -> None:
        make_folder(entry.path.parent)
        reviews.write_review(entry.path, review)
        entry.review = review

    def _write_annotations(self) -> None:
        reviews.write_annotations(
            self.folder / reviews.REVIEWED_FILE,
            (one.review for one in self._entries))

    def _all_actions(self) -> Iterator[JudgedAction]:
        for entry in self._entries:
            yield from entry.review.actions


def _in_time(actions: Mapping[str, JudgedAction]) -> tuple[JudgedAction, ...]:
    return tuple(sorted(actions.values(), key=lambda one: (
        one.start_seconds, one.end_seconds, one.action_id)))
