"""Reads and writes what people decided about the actions of a video.

One file a video, `reviews/NAME.json` in the folder that `predict` wrote:

    {"video": "jumps", "duration_seconds": 62.0, "fps": 25.0,
     "revision": 7, "is_complete": true,
     "actions": [
       {"id": "d0c1...", "label": "jump", "start_seconds": 3.2,
        "end_seconds": 4.0, "verdict": "accepted", "score": 0.81,
        "model": "9f2e...", "detected": [3.1, 4.0, "jump"],
        "reviewer": "ann", "when": "2026-11-30T14:00:00+00:00"}, ...]}

Only actions with a verdict are in the file. An action that a person added has
the verdict "accepted" and neither score, model nor "detected". What a rejected
detection shows is none of the class's actions: a hard negative, unless it
overlaps an accepted action of the class and so is a second detection of it.
So is a detection that got another class, for the class that it had.
Detections that nobody judged are not in the file and are no training data.

`is_complete` means that a person has seen the whole video: its other stretches
hold no action. Without it they are unknown, not background.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from losa_jax.detection.segments import Detection, iou_of_times
from losa_jax.errors import InputError, listed
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.names import name_problem
from losa_jax.utils.run_files import REVIEWS_VERSION
from losa_jax.utils.text_files import nfc, read_json

REVIEWS_FOLDER = "reviews"
# What was decided about all videos, beside the folder of reviews.
REVIEWED_FILE = "reviewed.json"
ACCEPTED, REJECTED = "accepted", "rejected"
# Of a detection, or of an action that a person added.
_ID = re.compile("[dh][0-9a-f]{12}")
# Two segments of one class that overlap this much are the same action.
SAME_IOU = 0.5
# A frame's end may be rounded up.
_SLACK_SECONDS = 1e-3


class Labeled(Protocol):
    """A segment of a video with a class: an action or a detection."""

    @property
    def label(self) -> str: ...
    @property
    def start_seconds(self) -> float: ...
    @property
    def end_seconds(self) -> float: ...


@dataclasses.dataclass(frozen=True)
class JudgedAction:
    """One action with a verdict.

    Attributes:
      action_id: "d..." of a detection, "h..." of an action that a person added.
      label, start_seconds, end_seconds: as corrected.
      verdict: ACCEPTED or REJECTED.
      reviewer, when: who decided last, and the time in ISO 8601.
      score, model: of the detection, with the hash of the model.
      detected: (start_seconds, end_seconds, label) before correction.
    """

    action_id: str
    label: str
    start_seconds: float
    end_seconds: float
    verdict: str
    reviewer: str
    when: str
    score: float | None = None
    model: str | None = None
    detected: tuple[float, float, str] | None = None

    def problem(self, duration_seconds: float) -> str:
        """Returns why this cannot be an action of a video, or ""."""
        start, end = self.start_seconds, self.end_seconds
        if not (isinstance(self.action_id, str)
                and _ID.fullmatch(self.action_id)):
            return f"its id {self.action_id!r} is none of this program"
        if not all(map(_is_number, (start, end))):
            return f"its times {start!r} and {end!r} are not numbers"
        if not 0 <= start < end <= duration_seconds + _SLACK_SECONDS:
            return (f"it lasts from {start} to {end} s: give a start before "
                    f"the end, within 0 to {duration_seconds} s")
        if not isinstance(self.label, str):
            return f"its class {self.label!r} is no text"
        if reason := name_problem(self.label):
            return f"its class {self.label!r} {reason}"
        if self.verdict not in (ACCEPTED, REJECTED):
            return (f"its verdict {self.verdict!r} is neither {ACCEPTED} nor "
                    f"{REJECTED}")
        return ""


@dataclasses.dataclass(frozen=True)
class Review:
    """What was decided about one video.

    Attributes:
      revision: number of changes so far.
      is_complete: no action of the video is missing in `actions`.
      actions: by start.
    """

    video_id: str
    duration_seconds: float
    fps: float
    revision: int = 0
    is_complete: bool = False
    actions: tuple[JudgedAction, ...] = ()

    @functools.cached_property
    def accepted(self) -> tuple[JudgedAction, ...]:
        """Actions of the video."""
        return tuple(one for one in self.actions if one.verdict == ACCEPTED)

    @functools.cached_property
    def hard_negatives(self) -> tuple[JudgedAction, ...]:
        """Stretches that the model takes for a class and that hold none of
        its actions: rejected detections, and those that got another class,
        under the class that they had. A second detection of an accepted
        action is none."""
        taken_for = [one for one in self.actions if one.verdict == REJECTED] + [
            dataclasses.replace(one, label=one.detected[2], verdict=REJECTED)
            for one in self.accepted
            if one.detected is not None and one.detected[2] != one.label]
        return tuple(one for one in taken_for if not any(
            overlaps(one, other) for other in self.accepted))


def overlaps(one: Labeled, other: Labeled) -> bool:
    """Whether two segments are of one class and share some time."""
    return (one.label == other.label
            and one.start_seconds < other.end_seconds
            and other.start_seconds < one.end_seconds)


def is_same_action(one: Labeled, other: Labeled) -> bool:
    """Whether two segments, by two models for example, are of one action."""
    # The IoU is only computed where it is not 0, which is quicker.
    return overlaps(one, other) and iou_of_times(
        one.start_seconds, one.end_seconds, other.start_seconds,
        other.end_seconds) >= SAME_IOU


def detection_id(detection: Detection, model: str) -> str:
    """Returns the id of a detection, which does not depend on the others."""
    text = json.dumps([model, *detection[:3]])
    return "d" + hashlib.sha256(text.encode()).hexdigest()[:12]


def write_review(path: Path, review: Review) -> None:
    """Writes the file of one video atomically; its folder must exist."""
    content = {
        "video": review.video_id,
        "duration_seconds": review.duration_seconds, "fps": review.fps,
        "revision": review.revision, "is_complete": review.is_complete,
        "actions": [{_KEYS.get(name, name): value for name, value
                     in dataclasses.asdict(one).items()}
                    for one in review.actions]}
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_review(path: Path) -> Review:
    """Reads the file of one video; InputError names what is wrong in it."""
    content = read_json(path)
    try:
        review = Review(
            nfc(content["video"]), float(content["duration_seconds"]),
            float(content["fps"]), int(content["revision"]),
            content["is_complete"] is True, tuple(
                JudgedAction(**{
                    name: one[_KEYS.get(name, name)] for name in _FIELDS
                } | {"detected": one["detected"] and tuple(one["detected"])})
                for one in content["actions"]))
        if not all(map(math.isfinite, (review.duration_seconds, review.fps))):
            raise ValueError("duration_seconds or fps is infinite")
        if not all(isinstance(text, str) for one in review.actions
                   for text in (one.reviewer, one.when)):
            raise ValueError("a reviewer or a time is no text")
        if any(datetime.fromisoformat(one.when).tzinfo is None
               for one in review.actions):
            raise ValueError("a time has no time zone")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: is no review that this program wrote ({error!r}): "
            "remove it, or restore it from a copy") from error
    wrong = [f"action {number}: {problem}" for number, one
             in enumerate(review.actions)
             if (problem := one.problem(review.duration_seconds))]
    if wrong:
        raise InputError(f"{path}: {len(wrong)} wrong actions; correct or "
                         f"remove them{listed(wrong, most=10)}")
    return review


def review_folders(text: str) -> list[Path]:
    """Returns the folders of config.data.reviews, separated by commas.

    A folder that has commas in its name is one folder where it is there, or
    where the folder is there in which it will be.
    """
    parent = os.path.dirname(text)
    if os.path.isdir(text) or ("," in parent and os.path.isdir(parent)):
        return [Path(text)]
    return [Path(name.strip()) for name in text.split(",") if name.strip()]


def read_reviews(folder: Path) -> list[Review]:
    """Reads all files of a folder of reviews, by name; none if there is no
    such folder."""
    return [read_review(path) for path in sorted(folder.rglob("*.json"))
            if not path.name.startswith(".")]


def write_annotations(path: Path, reviews: Iterable[Review]) -> int:
    """Writes what was decided in the layout of ActivityNet; returns the
    number of videos.

    An incomplete video with a verdict has "reviewed": [], without which a
    reader takes all between two actions for background. Other programs do so
    in any case.
    """
    database = {
        one.video_id: {
            "subset": "training", "duration": one.duration_seconds,
            "fps": one.fps, **({} if one.is_complete else {"reviewed": []}),
            "annotations": _segments(one.accepted),
            "rejected": _segments(one.hard_negatives)}
        for one in reviews
        if one.is_complete or one.accepted or one.hard_negatives}
    if database or path.exists():
        # On one line, because it is written after each change.
        write_text(path, json.dumps({
            "version": REVIEWS_VERSION, "database": database}) + "\n")
    return len(database)


def _segments(actions: Iterable[JudgedAction]) -> list[dict[str, Any]]:
    return [{"segment": [one.start_seconds, one.end_seconds],
             "label": one.label} for one in actions]


def check_is_ours(path: Path) -> None:
    """Raises InputError where `write_annotations` would replace a file of
    another origin."""
    if path.exists():
        content = read_json(path)
        if not isinstance(content, dict) or (
                content.get("version") != REVIEWS_VERSION):
            raise InputError(f"{path}: was not written by losa_jax.review, "
                             "which would replace it: give it another name")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_FIELDS = tuple(field.name for field in dataclasses.fields(JudgedAction))
# The field has another name, because `id` is one of Python's.
_KEYS = {"action_id": "id"}
