"""Segments that reach outside their video, or last no time.

What is outside is only known with the length of the video, and that is best
known from its file: annotations are read once, and clipped when the files
have been probed.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping

from losa_jax.data.annotations.load import class_order, wrong_entries
from losa_jax.data.records import Action, Annotations
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

ON_OUTSIDE = ("error", "clip", "keep")
# Durations in annotation files are rounded: a segment may reach this far
# past the end (or this share of the duration) and is cut without a word.
OUTSIDE_TOLERANCE_SECONDS = 0.05
OUTSIDE_TOLERANCE_SHARE = 0.001


def refuse_unknown_rule(on_outside: str) -> None:
    """Raises InputError unless `clipped_to` knows the rule."""
    if on_outside not in ON_OUTSIDE:
        raise InputError(f"config.data.on_outside={on_outside!r}: choose "
                         f"one of {', '.join(ON_OUTSIDE)}")


def outside_slack_seconds(duration_seconds: float) -> float:
    """How far a segment may reach outside a video without being outside."""
    return max(OUTSIDE_TOLERANCE_SECONDS,
               OUTSIDE_TOLERANCE_SHARE * duration_seconds)


def clipped_to(annotations: Annotations, durations: Mapping[str, float],
               on_outside: str) -> Annotations:
    """Returns the annotations with every segment inside its video.

    Args:
      annotations: as `load_annotations` gives them.
      durations: seconds of the videos' files, where they are known: they
        count, not the annotated ones.
      on_outside: segments that reach outside their video, and empty ones,
        are an "error"; "clip" cuts them (and drops those wholly outside, and
        empty ones) with a warning; "keep" leaves all as they are, for
        scoring against what others score against.

    Returns:
      Without a list of classes, a class that lost all its actions is none.

    Raises:
      InputError: names every wrong entry.
    """
    refuse_unknown_rule(on_outside)
    if on_outside == "keep":
        return annotations
    problems: list[str] = []
    videos, label_ids = {}, {}
    for video_id, video in annotations.videos.items():
        duration = durations.get(video_id) or video.duration_seconds
        inside = [
            _inside(f"{video_id}, annotation {number}", action, duration,
                    on_outside, problems)
            for number, action in enumerate(video.actions)]
        videos[video_id] = dataclasses.replace(video, actions=tuple(
            action for action in inside if action is not None))
        if annotations.label_ids is not None:
            label_ids[video_id] = tuple(
                label_id for label_id, action in zip(
                    annotations.label_ids[video_id], inside, strict=True)
                if action is not None)
    remedy = "Correct the file" + (
        " (or cut segments to their video, and drop empty ones, with "
        "--config.data.on_outside=clip)" if problems else "")
    if annotations.label_ids is None:
        names = annotations.class_names
    else:
        names = class_order(videos, label_ids, problems)
    if problems:
        raise wrong_entries(annotations.path, problems, remedy)
    return Annotations(annotations.path, videos, names,
                       None if annotations.label_ids is None else label_ids)


def _inside(where: str, action: Action, duration: float | None,
            on_outside: str, problems: list[str]) -> Action | None:
    """The part of an action that is inside its video; None for none."""
    start, end, label = action
    if end == start:
        message = f"{where}: segment [{start}, {end}] is empty"
        if on_outside == "error":
            problems.append(message)
        else:
            logger.warning("%s: dropped", message)
        return None
    last = math.inf if duration is None else duration
    slack = 0.0 if duration is None else outside_slack_seconds(duration)
    if start < -slack or end > last + slack:
        message = (f"{where}: segment [{start}, {end}] reaches outside the "
                   f"video, 0 to {last} seconds")
        if on_outside == "error":
            problems.append(message)
            return None
        logger.warning("%s: %s", message,
                       "dropped" if start >= last or end <= 0 else "cut")
    start, end = max(start, 0.0), min(end, last)
    return Action(start, end, label) if end > start else None
