"""Counts what a review changed about the detections of a model."""

import dataclasses
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime

from losa_jax.data.reviews import ACCEPTED, JudgedAction, Review

# Less than a frame of any video: detections are rounded when written.
_SAME_SECONDS = 1e-3


@dataclasses.dataclass(frozen=True)
class ReviewChanges:
    """Verdicts by what they changed.

    Attributes:
      num_videos: with such a verdict.
      accepted: detections that were right.
      moved: accepted with another start or end.
      relabeled: accepted with another class; may also be among the moved.
      added: actions without a detection.
      rejected: detections of no action.
      median_shift_seconds, largest_shift_seconds: of the moved ones, each by
        the farther of its two ends.
    """

    num_videos: int = 0
    accepted: int = 0
    moved: int = 0
    relabeled: int = 0
    added: int = 0
    rejected: int = 0
    median_shift_seconds: float = 0.0
    largest_shift_seconds: float = 0.0

    def __str__(self) -> str:
        shift = (f" (median {self.median_shift_seconds:.2f} s, largest "
                 f"{self.largest_shift_seconds:.2f} s)" if self.moved else "")
        return (f"in {self.num_videos} videos {self.accepted} accepted "
                f"unchanged, {self.moved} moved{shift}, {self.relabeled} "
                f"relabeled, {self.added} added, {self.rejected} rejected")


def review_changes(reviews: Iterable[Review], since: str = ""
                   ) -> ReviewChanges:
    """Counts the verdicts that are newer than a time in ISO 8601, or all."""
    by_video = [[one for one in review.actions
                 if not since or _time(one.when) > _time(since)]
                for review in reviews]
    judged = [one for actions in by_video for one in actions]
    accepted = [one for one in judged if one.verdict == ACCEPTED]
    detected = [(one, _shift_seconds(one, one.detected))
                for one in accepted if one.detected is not None]
    moved = [shift for _, shift in detected if shift > _SAME_SECONDS]
    relabeled = [one.detected and one.detected[2] != one.label
                 for one, _ in detected]
    unchanged = [shift <= _SAME_SECONDS and not is_relabeled for (
        _, shift), is_relabeled in zip(detected, relabeled, strict=True)]
    return ReviewChanges(
        num_videos=sum(map(bool, by_video)), accepted=sum(unchanged),
        moved=len(moved), relabeled=sum(map(bool, relabeled)),
        added=len(accepted) - len(detected),
        rejected=len(judged) - len(accepted),
        median_shift_seconds=statistics.median(moved or [0.0]),
        largest_shift_seconds=max(moved, default=0.0))


def newest_verdict(reviews: Iterable[Review]) -> str:
    """Returns the time of the last verdict, "" without any."""
    return max((one.when for review in reviews for one in review.actions),
               key=_time, default="")


def _time(text: str) -> datetime:
    """Returns a time that can be compared: without a zone it is UTC, and a
    text that is no time is before all others."""
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _shift_seconds(action: JudgedAction, detected: tuple[float, float, str]
                   ) -> float:
    return max(abs(action.start_seconds - detected[0]),
               abs(action.end_seconds - detected[1]))
