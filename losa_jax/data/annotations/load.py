"""Reads and checks annotations, from the database that `formats` returns.

`duration`, `fps` and an annotation's `label_id` may be absent. Actions that
reach outside their video, or last no time, are refused, cut or kept.
"""

import dataclasses
import difflib
import logging
import math
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import thumos_facts
from losa_jax.data.annotations.formats import read_database
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.errors import InputError, listed
from losa_jax.utils.text_files import read_text

logger = logging.getLogger(__name__)

ON_OUTSIDE = ("error", "clip", "keep")
# Durations in annotation files are rounded.
TOLERANCE_SECONDS = 0.05
TOLERANCE_SHARE = 0.001
# Durations that agree within this share are the same.
_SAME_DURATION = 0.01


def load_class_names(path: str | Path) -> tuple[str, ...]:
    """Reads class names, one a line, in label order; InputError for a missing
    or empty file, or a name twice."""
    lines = map(str.strip, read_text(Path(path)).splitlines())
    names = tuple(filter(None, lines))
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path}: name each class once, one per line; it has "
                         f"{len(names)} lines, {len(set(names))} distinct")
    return names


def load_annotations(path: str | Path,
                     class_names: Sequence[str] | None = None
                     ) -> Annotations:
    """Reads and checks annotations in one of the layouts of `formats`, with
    the classes in label order (None: the file's own). InputError names every
    wrong entry."""
    path = Path(path)
    problems: list[str] = []
    videos: dict[str, AnnotatedVideo] = {}
    for video_id, entry in read_database(path).items():
        video = _read_video(video_id, entry, problems)
        if video is not None:
            videos[video_id] = video
    if class_names is None:
        names = class_order(videos, problems)
    else:
        names = tuple(class_names)
        _check_labels(videos, names, problems)
    if problems:
        raise wrong_entries(path, problems)
    if not videos:
        raise InputError(f"{path}: no videos under \"database\"; the format is "
                         "in docs/videos.md")
    return Annotations(path, videos, names, class_names is not None)


def wrong_entries(path: Path, problems: Sequence[str],
                  remedy: str = "Correct the file") -> InputError:
    """Returns the error that lists the problems of a file, one a line."""
    return InputError(f"{path}: {len(problems)} wrong entries:"
                      f"{listed(problems)}\n{remedy}")


def _read_video(video_id: str, entry: Any, problems: list[str]
                ) -> AnnotatedVideo | None:
    problem = ""
    if not _is_clean(video_id):
        problem = f"{video_id!r}: is empty or no printable video id"
    elif not isinstance(entry, dict):
        problem = f"{video_id}: is no object"
    elif not isinstance(entry.get("subset"), str):
        problem = f"{video_id}: has no \"subset\" (training, testing ...)"
    elif not isinstance(entry.get("annotations") or [], list):
        problem = f"{video_id}: \"annotations\" is no list"
    if problem:
        problems.append(problem)
        return None
    numbers = {"duration": entry.get("duration"), "fps": entry.get("fps")}
    for key, value in numbers.items():
        if value is not None and not (
                type(value) in (int, float)
                and 0 < value <= sys.float_info.max):
            problems.append(f"{video_id}: {key} is {value!r}, must be a "
                            "positive number or absent")
            numbers[key] = None
    actions = [_read_action(f"{video_id}, annotation {number}", annotation,
                            problems)
               for number, annotation in enumerate(
                   entry.get("annotations") or [])]
    duration, fps, correction = _corrected(video_id, *numbers.values())
    return AnnotatedVideo(
        video_id, entry["subset"].lower(), duration, fps,
        tuple(filter(None, actions)), correction)


def _corrected(video_id: str, duration: float | None, fps: float | None
               ) -> tuple[float | None, float | None, str]:
    """Corrects a THUMOS-14 video that the file assumes to have 30 frames a
    second; returns duration, rate and what was wrong."""
    rate, seconds = thumos_facts.SLOW_VIDEOS.get(video_id, (0.0, 0.0))
    wrong = seconds * rate / thumos_facts.USUAL_FPS
    if not rate or duration is None or (
            abs(duration - wrong) > _SAME_DURATION * wrong):
        return duration, fps, ""
    return seconds, rate, (
        f"{duration:.2f} s is the length at {thumos_facts.USUAL_FPS:g} "
        f"frames a second; the video has {rate:g}: {seconds:.2f} s is used")


def _is_clean(text: str) -> bool:
    """Whether text is not empty and safe to print on one line."""
    return bool(text) and not any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        for character in text)


def _read_action(where: str, annotation: Any, problems: list[str]
                 ) -> Action | None:
    try:
        # Some public files have the numbers as text.
        start, end = map(float, annotation["segment"])
        label, label_id = annotation["label"], annotation.get("label_id")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        problems.append(f"{where}: needs \"label\" and \"segment\": [start, "
                        f"end] in seconds, is {str(annotation)[:80]}")
        return None
    if not isinstance(label, str) or not _is_clean(label):
        problem = f"label {label!r} is no name"
    elif not (math.isfinite(start) and math.isfinite(end)):
        problem = f"segment [{start}, {end}] is not finite"
    elif end < start:
        problem = f"segment [{start}, {end}] ends before it starts"
    elif label_id is not None and type(label_id) is not int:
        problem = f"label_id {label_id!r} is no whole number"
    else:
        return Action(start, end, label, label_id)
    problems.append(f"{where}: {problem}")
    return None


def _check_labels(videos: Mapping[str, AnnotatedVideo],
                  names: Sequence[str], problems: list[str]) -> None:
    known = set(names)
    for video in videos.values():
        for number, action in enumerate(video.actions):
            if action.label not in known:
                near = difflib.get_close_matches(action.label, names, 1)
                problems.append(
                    f"{video.video_id}, annotation {number}: label "
                    f"{action.label!r} is in no class list"
                    + (f"; did you mean {near[0]!r}?" if near else ""))


def class_order(videos: Mapping[str, AnnotatedVideo], problems: list[str]
                ) -> tuple[str, ...]:
    """Returns the labels in the order of label_id if all actions have one,
    else of their names; appends conflicts of label_ids to `problems`.
    """
    ids_of: dict[str, set[int | None]] = {}
    for video in videos.values():
        for action in video.actions:
            ids_of.setdefault(action.label, set()).add(action.label_id)
    label_of: dict[int, str] = {}
    for label, ids in ids_of.items():
        numbers = sorted(one for one in ids if one is not None)
        if len(numbers) > 1:
            problems.append(f"label {label!r} has several label_id: "
                            f"{', '.join(map(str, numbers))}")
        label_of |= {number: label for number in numbers}
    if any(len(ids) > 1 or None in ids for ids in ids_of.values()):
        return tuple(sorted(ids_of))
    if len(label_of) < len(ids_of):
        problems.append("several labels share one label_id: give the classes "
                        "with --config.data.class_names=FILE, or correct "
                        "label_id")
    return tuple(label_of[number] for number in sorted(label_of))


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
