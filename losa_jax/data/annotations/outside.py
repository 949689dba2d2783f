"""Refuses, cuts or keeps actions that reach outside their video."""

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from losa_jax.data.annotations.hard_negatives import (
    without_unknown_negatives,
)
from losa_jax.data.annotations.load import (
    REJECTED,
    REVIEWED,
    class_order,
    wrong_entries,
)
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

ON_OUTSIDE = ("error", "clip", "keep")
# Durations in annotation files are rounded.
TOLERANCE_SECONDS = 0.05
TOLERANCE_SHARE = 0.001
# Times that exceed their video so many times are in another unit.
_MANY_TIMES = 6
# So many actions that end within a second of videos that are so long have
# times in shares of their video.
_FEW_ACTIONS, _LONG_SECONDS = 3, 10
# So many warnings name the action that was cut or dropped.
_MOST_CHANGES = 100


def refuse_unknown_rule(on_outside: str) -> None:
    """Raises InputError unless `clipped_to` knows the rule."""
    if on_outside not in ON_OUTSIDE:
        raise InputError(f"config.data.on_outside={on_outside!r}: choose "
                         f"one of {', '.join(ON_OUTSIDE)}")


def is_outside(action: Action, end_seconds: float) -> bool:
    """Whether an action reaches outside its video by more than rounding;
    `end_seconds` is infinite where the length of the video is not known."""
    tolerance = 0.0 if math.isinf(end_seconds) else max(
        TOLERANCE_SECONDS, TOLERANCE_SHARE * end_seconds)
    return (action.start_seconds < -tolerance
            or action.end_seconds > end_seconds + tolerance)


def seeming_unit(actions: Sequence[Action], end_seconds: float,
                 fps: float | None) -> str:
    """Returns in which unit the times of a video seem to be that exceed it
    many times over, or "": "milliseconds" for example."""
    far = [action.end_seconds for action in actions
           if action.end_seconds > _MANY_TIMES * end_seconds]
    units = {"milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
    if fps:
        units = {f"frames at {fps:g} frames a second": 1 / fps, **units}
    longest = end_seconds * (1 + TOLERANCE_SHARE) + TOLERANCE_SECONDS
    return next((name for name, seconds in units.items()
                 if far and max(far) * seconds <= longest), "")


def unit_hint(videos: Collection[AnnotatedVideo],
              durations: Mapping[str, float], rates: Mapping[str, float]
              ) -> str:
    """Returns sentences about videos whose times seem to be in another unit
    than seconds, or ""; lengths and frame rates are of the files, in place of
    the annotated ones."""
    ends = {video.video_id: durations.get(video.video_id)
            or video.duration_seconds or math.inf for video in videos}
    units = {video.video_id: seeming_unit(
        video.actions, ends[video.video_id],
        rates.get(video.video_id) or video.fps) for video in videos}
    counts = Counter(filter(None, units.values()))
    lines = [f"The times of {count} videos, the first "
             f"{next(name for name, one in units.items() if one == unit)}, "
             f"look like {unit}: convert them to seconds."
             for unit, count in counts.items()]
    with_actions = [video for video in videos if video.actions]
    num_actions = sum(len(video.actions) for video in with_actions)
    shortest = min((ends[video.video_id] for video in with_actions),
                   default=0.0)
    if (num_actions >= _FEW_ACTIONS
            and _LONG_SECONDS <= shortest < math.inf
            and max(action.end_seconds for video in with_actions
                for action in video.actions) <= 1):
        lines.append(f"All {num_actions} actions end within the first second: "
                     "if their times are shares of the video, convert them "
                     "to seconds.")
    return " ".join(lines)


def clipped_to(annotations: Annotations, durations: Mapping[str, float],
               on_outside: str, rates: Mapping[str, float] | None = None
               ) -> Annotations:
    """Returns annotations with every action inside its video.

    Where no list of classes was given, those are left that have an action.

    Args:
      durations: seconds of the videos' files, in place of the annotated ones.
      rates: frames a second of the videos' files.
      on_outside: "error" raises an InputError that names all actions that are
        outside or empty; "clip" cuts them to their video and drops those of
        which nothing is left, with a warning; "keep" changes nothing.
    """
    refuse_unknown_rule(on_outside)
    hint = unit_hint(annotations.videos.values(), durations, rates or {})
    if on_outside == "keep" and not any(
            action.end_seconds < action.start_seconds
            for video in annotations.videos.values()
            for action in (*video.actions, *video.hard_negatives)):
        if hint:
            logger.warning("%s: %s", annotations.path, hint)
        return annotations
    problems: list[str] = []
    changes: list[tuple[str, str]] = []
    videos = {}
    for video_id, video in annotations.videos.items():
        end = durations.get(video_id) or video.duration_seconds or math.inf
        reviewed = video.reviewed_seconds
        kept: dict[str, list[Action]] = {}
        for what, actions in (
                ("annotation", video.actions), (REJECTED, video.hard_negatives),
                (REVIEWED, [Action(*one, "") for one in reviewed or ()])):
            kept[what] = []
            for number, action in enumerate(actions):
                inside, problem = _inside(action, end)
                if on_outside == "keep" and (
                        action.end_seconds >= action.start_seconds):
                    inside, problem = action, ""
                message = (f"{video_id}, {what} {number}: segment "
                           f"{list(action[:2])} {problem}")
                if problem and on_outside == "error":
                    problems.append(message)
                elif problem:
                    changes.append((message,
                                    "dropped" if inside is None else "cut"))
                if inside is not None:
                    kept[what].append(inside)
        videos[video_id] = dataclasses.replace(
            video, actions=tuple(kept["annotation"]),
            hard_negatives=tuple(kept[REJECTED]),
            reviewed_seconds=None if reviewed is None else tuple(
                one[:2] for one in kept[REVIEWED]))
    for change in changes[:_MOST_CHANGES]:
        logger.warning("%s: %s", *change)
    if len(changes) > _MOST_CHANGES:
        counts = Counter(what for _, what in changes[_MOST_CHANGES:])
        logger.warning("%s: %d more actions were cut and %d dropped; "
                       "--mode=check_data lists their videos",
                       annotations.path, counts["cut"], counts["dropped"])
    remedy = hint or "Correct the file" + (
        " (or cut segments to their video, and drop empty ones, with "
        "--config.data.on_outside=clip)" if problems else "")
    names = (annotations.class_names if annotations.classes_given
             else class_order(videos, problems, annotations.added_classes))
    if problems:
        raise wrong_entries(annotations.path, problems, remedy)
    if hint:
        logger.warning("%s: %s", annotations.path, hint)
    return dataclasses.replace(
        annotations, class_names=names, videos=without_unknown_negatives(
            videos, names, str(annotations.path)))


def _inside(action: Action, end_seconds: float) -> tuple[Action | None, str]:
    """Returns the part of an action inside its video, and what is wrong."""
    if action.end_seconds <= action.start_seconds:
        return None, ("is empty" if action.end_seconds == action.start_seconds
                      else "ends before it starts")
    problem = ""
    if is_outside(action, end_seconds):
        problem = f"reaches outside the video, 0 to {end_seconds} seconds"
    start = max(action.start_seconds, 0.0)
    end = min(action.end_seconds, end_seconds)
    inside = action._replace(start_seconds=start, end_seconds=end)
    return inside if end > start else None, problem
