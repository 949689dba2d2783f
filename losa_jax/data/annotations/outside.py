"""Actions that reach outside their video, or last no time."""

import dataclasses
import logging
import math
from collections.abc import Mapping

from losa_jax.data.annotations.load import class_order, wrong_entries
from losa_jax.data.records import Action, Annotations
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

ON_OUTSIDE = ("error", "clip", "keep")
# Durations in annotation files are rounded.
TOLERANCE_SECONDS = 0.05
TOLERANCE_SHARE = 0.001


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


def clipped_to(annotations: Annotations, durations: Mapping[str, float],
               on_outside: str) -> Annotations:
    """Returns annotations with every action inside its video.

    Where no list of classes was given, those are left that have an action.

    Args:
      durations: seconds of the videos' files, in place of the annotated ones.
      on_outside: "error" raises an InputError that names all actions that are
        outside or empty; "clip" cuts them to their video and drops those of
        which nothing is left, with a warning; "keep" changes nothing.
    """
    refuse_unknown_rule(on_outside)
    if on_outside == "keep":
        return annotations
    problems: list[str] = []
    videos = {}
    for video_id, video in annotations.videos.items():
        end = durations.get(video_id) or video.duration_seconds or math.inf
        kept = []
        for number, action in enumerate(video.actions):
            inside, problem = _inside(action, end)
            message = (f"{video_id}, annotation {number}: segment "
                       f"{list(action[:2])} {problem}")
            if problem and on_outside == "error":
                problems.append(message)
            elif problem:
                logger.warning("%s: %s", message,
                               "dropped" if inside is None else "cut")
            if inside is not None:
                kept.append(inside)
        videos[video_id] = dataclasses.replace(video, actions=tuple(kept))
    remedy = "Correct the file" + (
        " (or cut segments to their video, and drop empty ones, with "
        "--config.data.on_outside=clip)" if problems else "")
    names = (annotations.class_names if annotations.classes_given
             else class_order(videos, problems))
    if problems:
        raise wrong_entries(annotations.path, problems, remedy)
    return dataclasses.replace(annotations, videos=videos, class_names=names)


def _inside(action: Action, end_seconds: float) -> tuple[Action | None, str]:
    """Returns the part of an action inside its video, and what is wrong."""
    if action.end_seconds == action.start_seconds:
        return None, "is empty"
    problem = ""
    if is_outside(action, end_seconds):
        problem = f"reaches outside the video, 0 to {end_seconds} seconds"
    start = max(action.start_seconds, 0.0)
    end = min(action.end_seconds, end_seconds)
    inside = action._replace(start_seconds=start, end_seconds=end)
    return inside if end > start else None, problem
