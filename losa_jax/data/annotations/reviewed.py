"""Merges reviews into annotations, and says what a review leaves unknown.

A video has `reviewed_seconds` where its actions are known only in part, and
`hard_negatives`, segments that look like an action of a class and are none.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from losa_jax.data.annotations.formats import YOUTUBE_PREFIX
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.data.reviews import (
    JudgedAction,
    Review,
    is_same_action,
    overlaps,
)
from losa_jax.errors import InputError, counted, listed
from losa_jax.utils.names import without_ending
from losa_jax.utils.text_files import nfc

logger = logging.getLogger(__name__)

# Videos whose lengths differ by no more than this share may be one video.
SAME_LENGTH = 0.01


@dataclasses.dataclass(frozen=True)
class Merged:
    """Annotations with reviews, and what was taken over from the reviews.

    Attributes:
      num_complete, num_partial: reviewed videos whose verdicts were taken
        over, and of which a person says, or does not say, that no action is
        missing.
      num_actions, num_hard_negatives: of these videos.
      new_classes: classes that the annotations did not have.
      left_as_annotated: ids of videos of other subsets than the training
        subset that are reviewed only in part.
    """

    annotations: Annotations
    num_complete: int = 0
    num_partial: int = 0
    num_actions: int = 0
    num_hard_negatives: int = 0
    new_classes: tuple[str, ...] = ()
    left_as_annotated: tuple[str, ...] = ()

    def __str__(self) -> str:
        new = self.new_classes
        num_videos = self.num_complete + self.num_partial
        text = (f"{counted(num_videos, 'video')} ({self.num_complete} "
                f"complete, {self.num_partial} in part) with "
                f"{counted(self.num_actions, 'action')}, "
                f"{counted(self.num_hard_negatives, 'hard negative')} and "
                f"{counted(len(new), 'new class', 'new classes')}"
                f"{': ' if new else ''}{', '.join(new)}")
        names = self.left_as_annotated
        return text + (
            f"; {counted(len(names), 'video')} left as annotated, because "
            "reviewed only in part and not of the training subset: "
            f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            if names else "")


def with_reviews(annotations: Annotations, reviews: Iterable[Review],
                 train_subset: str) -> Merged:
    """Merges reviews into annotations, one after the other.

    A video that the annotations do not have becomes a video of the training
    subset. One that they have keeps its subset. If its review is complete,
    the accepted actions replace the annotated ones. If it is not, accepted
    actions are added, or replace the same action of the annotations
    (`is_same_action`); a fully annotated video stays so. Videos of other
    subsets stay as annotated then, because a truth to which only the
    detections of a model are added would favor this model. A hard negative
    that overlaps an action of its class is left out.

    New classes follow the known ones, by name.

    Raises:
      InputError: the name of a reviewed video fits several annotated ones.
    """
    videos = dict(annotations.videos)
    names = _Names(videos.values())
    label_ids = {action.label: action.label_id for video in videos.values()
                 for action in video.actions}
    changed: dict[str, bool] = {}  # {video id: whether it is complete}
    left = []
    for review in reviews:
        accepted, rejected = (
            [_as_action(one, label_ids) for one in some]
            for some in (review.accepted, review.hard_negatives))
        if not (accepted or rejected or review.is_complete):
            continue
        name = names.of(review)
        old = videos.get(name) or AnnotatedVideo(
            name, train_subset.lower(), review.duration_seconds, review.fps,
            (), reviewed_seconds=())
        if not review.is_complete and old.subset != train_subset.lower():
            left.append(name)
            continue
        names.add(old)
        changed[name] = review.is_complete
        actions = accepted if review.is_complete else accepted + [
            one for one in old.actions
            if not any(is_same_action(one, other) for other in accepted)]
        videos[name] = dataclasses.replace(
            old, actions=tuple(sorted(actions, key=lambda one: one[:3])),
            reviewed_seconds=(None if review.is_complete
                              else old.reviewed_seconds),
            hard_negatives=tuple(
                one for one in dict.fromkeys((*old.hard_negatives, *rejected))
                if not any(overlaps(one, other) for other in actions)))
    known = annotations.class_names
    new = tuple(sorted({action.label for name in changed
                        for action in videos[name].actions} - {*known}))
    known += new
    videos = without_unknown_negatives(videos, known, "reviews")
    return Merged(
        dataclasses.replace(
            annotations, videos=videos, class_names=known,
            added_classes=annotations.added_classes + new),
        sum(changed.values()), len(changed) - sum(changed.values()),
        sum(len(videos[name].actions) for name in changed),
        sum(len(videos[name].hard_negatives) for name in changed),
        new, tuple(left))


def _as_action(one: JudgedAction, label_ids: Mapping[str, int | None]
               ) -> Action:
    label = nfc(one.label)
    return Action(one.start_seconds, one.end_seconds, label,
                  label_ids.get(label))


class _Names:
    """Finds the annotated video that a reviewed one is.

    One of the two names may lack folders, the ending of the file, or "v_" if
    the videos are of one length.
    """

    def __init__(self, videos: Iterable[AnnotatedVideo]):
        # {last part of the name: {name: seconds}}
        self._groups: dict[str, dict[str, float | None]] = {}
        for video in videos:
            self.add(video)

    def add(self, video: AnnotatedVideo) -> None:
        """Adds a video, unless it is there."""
        self._groups.setdefault(self._parts(video.video_id)[-1], {})[
            video.video_id] = video.duration_seconds

    def of(self, review: Review) -> str:
        """Returns the known name of a video, or its own."""
        name, seconds = review.video_id, review.duration_seconds
        parts = self._parts(name)
        group = self._groups.get(parts[-1], {})
        if name in group:
            return name
        same = [
            one for one, other_seconds in group.items()
            if abs(seconds - (other_seconds or seconds))
            <= SAME_LENGTH * seconds and all(
                mine == other for mine, other in zip(
                    reversed(parts), reversed(self._parts(one)),
                    strict=False))]
        if len(same) > 1:
            raise InputError(
                f"the review of the video {name!r} may be of {len(same)} "
                "annotated videos: give the files different names in the "
                f"annotations, and predict again{listed(same, 5)}")
        return same[0] if same else name

    def _parts(self, name: str) -> list[str]:
        *folders, last = nfc(name).split("/")
        return [*folders, without_ending(last).removeprefix(YOUTUBE_PREFIX)]


def without_unknown_negatives(videos: Mapping[str, AnnotatedVideo],
                              class_names: Collection[str], where: str
                              ) -> dict[str, AnnotatedVideo]:
    """Returns videos without the hard negatives of classes that no action
    has, with a warning: a model cannot learn such a class."""
    left_out = Counter(action.label for video in videos.values()
                       for action in video.hard_negatives
                       if action.label not in class_names)
    if not left_out:
        return dict(videos)
    logger.warning(
        "%s: left out because no action has their class: %s: %s", where,
        counted(left_out.total(), "rejected segment"),
        ", ".join(f"{label} ({count})" for label, count in left_out.items()))
    return {name: dataclasses.replace(video, hard_negatives=tuple(
        action for action in video.hard_negatives
        if action.label in class_names)) for name, video in videos.items()}


def check_scorable(where: str | Path, videos: Sequence[AnnotatedVideo]
                   ) -> None:
    """Raises InputError if actions of testing videos are known only in part:
    a right detection would count as wrong there."""
    partly = [video.video_id for video in videos
              if video.reviewed_seconds is not None]
    if partly:
        raise InputError(
            f"{where}: {counted(len(partly), 'video')} of the "
            f"{len(videos)} to score reviewed only in part (key \"reviewed\"), "
            "so that nothing detected elsewhere in them can be scored: "
            "complete their review and remove the key, move them to the "
            "training subset, or leave them out (a block list)"
            f"{listed(partly, 5)}")
