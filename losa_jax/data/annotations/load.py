"""Reads and checks annotations, from the database that `formats` returns.

`duration`, `fps` and an annotation's `label_id` may be absent. Actions that
reach outside their video, last no time, or end before they start, are read;
the module `outside` refuses, cuts, drops or keeps them.

Two keys of a video are optional and come from a review: "reviewed" lists the
stretches [start, end] in which no action is missing (without the key that is
the whole video, with [] only the listed actions are known), and "rejected"
lists hard negatives, in the layout of "annotations".
"""

import difflib
import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import thumos_facts
from losa_jax.data.annotations.formats import read_database
from losa_jax.data.annotations.hard_negatives import (
    without_unknown_negatives,
)
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.errors import InputError, listed
from losa_jax.utils.names import did_you_mean, name_problem
from losa_jax.utils.text_files import nfc, read_lines

logger = logging.getLogger(__name__)

# Keys of a review.
REVIEWED, REJECTED = "reviewed", "rejected"
# Keys that hold the actions in the files of other programs.
_LIKE_ANNOTATIONS = re.compile(
    r"(?i)annotations?|anno?s?|actions?|instances?|segments?|events?|labels?"
    r"|ground_?truth|gt")
# Durations that agree within this share are the same.
_SAME_DURATION = 0.01


def load_class_names(path: str | Path) -> tuple[str, ...]:
    """Reads class names, one a line, in label order; InputError for a missing
    or empty file, or a name twice."""
    lines = read_lines(Path(path))
    names = tuple(line for _, line in lines)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        raise InputError(f"{path}: name each class once, one per line; it has "
                         f"{len(names)} lines, {len(set(names))} distinct"
                         f"{listed(twice, 5)}")
    problems = [f"line {number}: {line!r} {problem}" for number, line in lines
                if (problem := name_problem(line))]
    if problems:
        raise wrong_entries(Path(path), problems)
    return names


def load_annotations(path: str | Path,
                     class_names: Sequence[str] | None = None
                     ) -> Annotations:
    """Reads and checks annotations in one of the layouts of `formats`, with
    the classes in label order (None: the file's own). InputError names every
    wrong entry. Names are in Unicode NFC."""
    path = Path(path)
    problems: list[str] = []
    videos: dict[str, AnnotatedVideo] = {}
    for name, entry in read_database(path).items():
        video = _read_video(nfc(name), entry, problems)
        if video is not None and video.video_id in videos:
            problems.append(f"{video.video_id}: is there twice, in two "
                            "Unicode forms of its name")
        elif video is not None:
            videos[video.video_id] = video
    if class_names is None:
        names = class_order(videos, problems)
        videos = without_unknown_negatives(videos, names, str(path))
    else:
        names = tuple(class_names)
        _check_labels(videos, names, problems)
    if problems:
        raise wrong_entries(path, problems)
    if not videos:
        raise InputError(f"{path}: no videos in it: copy it again; "
                         "docs/videos.md has an example")
    return Annotations(path, videos, names, class_names is not None)


def select_subsets(annotations: Annotations,
                   wanted: Sequence[tuple[str, str]]
                   ) -> list[tuple[AnnotatedVideo, ...]]:
    """Returns the videos of each subset; `wanted` has the flag that names it,
    and its name. InputError names the flags of those without a video."""
    chosen = [annotations.subset(name) for _, name in wanted]
    missing = {flag: name for (flag, name), videos in zip(
        wanted, chosen, strict=True) if not videos}
    if missing:
        counts = Counter(one.subset for one in annotations.videos.values())
        names = " and ".join(map(repr, dict.fromkeys(missing.values())))
        flags = " ".join(f"{flag}={_nearest_subset(name, counts)}"
                         for flag, name in missing.items())
        raise InputError(
            f"{annotations.path}: no video of subset {names}; the file has "
            + ", ".join(f"{name} ({count} videos)"
                        for name, count in sorted(counts.items()))
            + f": set {flags}")
    return chosen


def _nearest_subset(name: str, known: Mapping[str, int]) -> str:
    near = difflib.get_close_matches(name.lower(), known, 1, 0.5)
    return near[0] if near else "NAME"


def check_training(annotations: Annotations, subset: str,
                   videos: Sequence[AnnotatedVideo]) -> None:
    """Raises InputError unless the training videos have an action."""
    if any(video.actions for video in videos):
        return
    num_actions = sum(len(video.actions)
                      for video in annotations.videos.values())
    raise InputError(
        f"{annotations.path}: none of the {len(videos)} videos of subset "
        f"{subset!r} has an action (the whole file has {num_actions}), so "
        "there is nothing to train on: list them under \"annotations\" of "
        "each video, or name another --config.data.train_subset")


def wrong_entries(path: Path, problems: Sequence[str],
                  remedy: str = "Correct the file") -> InputError:
    """Returns the error that lists the problems of a file, one a line."""
    return InputError(f"{path}: {len(problems)} wrong entries:"
                      f"{listed(problems)}\n{remedy}")


def _read_video(video_id: str, entry: Any, problems: list[str]
                ) -> AnnotatedVideo | None:
    name = name_problem(video_id)
    if name:
        problem = f"video id {video_id!r} {name}"
    elif not isinstance(entry, dict):
        problem = f"{video_id}: is no object"
    elif not isinstance(entry.get("subset"), str):
        problem = f"{video_id}: has no \"subset\" (training, testing ...)"
    elif name_problem(entry["subset"]):
        problem = (f"{video_id}: the subset {entry['subset']!r} "
                   f"{name_problem(entry['subset'])}")
    else:
        problem = _annotations_problem(video_id, entry)
    if problem:
        problems.append(problem)
        return None
    numbers = {key: _as_number(entry.get(key)) for key in ("duration", "fps")}
    for key, value in numbers.items():
        if value is not None and not (
                type(value) in (int, float)
                and 0 < value <= sys.float_info.max):
            problems.append(f"{video_id}: {key} is {value!r}, must be a "
                            "positive number or absent")
            numbers[key] = None
    actions, rejected = ([
        _read_action(f"{video_id}, {what} {number}", annotation, problems)
        for number, annotation in enumerate(entry.get(key) or [])]
        for key, what in (("annotations", "annotation"), (REJECTED, REJECTED)))
    duration, fps, correction = _corrected(video_id, *numbers.values())
    return AnnotatedVideo(
        video_id, entry["subset"].lower(), duration, fps,
        tuple(filter(None, actions)), correction,
        _read_reviewed(video_id, entry.get(REVIEWED), problems),
        tuple(filter(None, rejected)))


def _read_reviewed(video_id: str, content: Sequence[Any] | None,
                   problems: list[str]
                   ) -> tuple[tuple[float, float], ...] | None:
    """Returns the stretches of a video in which no action is missing."""
    stretches = []
    for number, segment in enumerate(content or []):
        times = _times(segment)
        if times is None or not 0 <= times[0] < times[1] < math.inf:
            problems.append(
                f"{video_id}, {REVIEWED} {number}: {json.dumps(segment)[:40]} "
                "is not [start, end] in seconds with 0 <= start < end")
        else:
            stretches.append(times)
    return None if content is None else tuple(stretches)


def _as_number(value: Any) -> Any:
    """Returns the number of a text, as HACS has it; anything else as it is."""
    times = _times([value, value]) if isinstance(value, str) else None
    return value if times is None else times[0]


def _corrected(video_id: str, duration: float | None, fps: float | None
               ) -> tuple[float | None, float | None, str]:
    """Corrects a THUMOS-14 video that the file assumes to have 30 frames a
    second; returns duration, rate and what was wrong."""
    rate, seconds = thumos_facts.SLOW_VIDEOS.get(video_id, (0.0, 0.0))
    wrong = seconds * rate / thumos_facts.USUAL_FPS
    if not rate or duration is None:
        return duration, fps, ""
    if abs(duration - wrong) <= _SAME_DURATION * wrong:
        return seconds, rate, (
            f"{duration:.2f} s is the length at {thumos_facts.USUAL_FPS:g} "
            f"frames a second; the video has {rate:g}: {seconds:.2f} s is "
            "used")
    if abs(duration - seconds) > _SAME_DURATION * seconds:
        return duration, fps, ""
    # MultiTHUMOS has the right lengths, and no rate or 30 for all videos.
    return duration, rate, ("" if fps in (None, rate) else (
        f"{fps:g} frames a second is annotated; the video has {rate:g}, "
        "which is used"))


def _annotations_problem(video_id: str, entry: Mapping[str, Any]) -> str:
    """Returns what is wrong with the list of a video's actions, or ""."""
    for key in ("annotations", REVIEWED, REJECTED):
        if not isinstance(entry.get(key), list | None):
            return f"{video_id}: \"{key}\" is no list"
    content = entry.get("annotations")
    is_given = "annotations" in entry
    others = [] if content else [
        key for key, value in entry.items()
        if key not in ("annotations", REVIEWED, REJECTED)
        and isinstance(value, (list, dict)) and (value or not is_given)
        and (_LIKE_ANNOTATIONS.fullmatch(key.strip()) or any(
            isinstance(one, (list, dict)) for one in value))]
    return (f"{video_id}: {'empty' if is_given else 'no'} \"annotations\", "
            f"but the unknown key {others[0]!r}: rename it if it has the "
            "actions") if others else ""


def _read_action(where: str, annotation: Any, problems: list[str]
                 ) -> Action | None:
    if not isinstance(annotation, dict) or not (
            annotation.keys() >= {"label", "segment"}):
        problems.append(f"{where}: needs \"label\" and \"segment\": [start, "
                        f"end] in seconds, is {repr(annotation)[:80]}")
        return None
    segment, label, label_id = (
        annotation.get(key) for key in ("segment", "label", "label_id"))
    times = _times(segment)
    if times is None:
        problem = (f"segment {json.dumps(segment)[:40]} is not [start, end], "
                   "a list of two numbers in seconds")
    elif not isinstance(label, str):
        problem = f"label {json.dumps(label)[:40]} is not a text in quotes"
    elif name_problem(label):
        problem = f"label {label!r} {name_problem(label)}"
    elif not all(map(math.isfinite, times)):
        problem = f"segment [{times[0]}, {times[1]}] is not finite"
    elif label_id is not None and type(label_id) is not int:
        problem = f"label_id {label_id!r} is no whole number"
    else:
        return Action(*times, nfc(label), label_id)
    problems.append(f"{where}: {problem}")
    return None


def _times(segment: Any) -> tuple[float, float] | None:
    """Returns the two numbers of a list, which public files may have as text;
    else None."""
    if not isinstance(segment, list) or any(
            type(value) not in (int, float, str) or "_" in str(value)
            for value in segment):
        return None
    try:
        start, end = map(float, segment)
    except (ValueError, OverflowError):
        return None
    return start, end


def _check_labels(videos: Mapping[str, AnnotatedVideo],
                  names: Sequence[str], problems: list[str]) -> None:
    hints: dict[str, str] = dict.fromkeys(names, "")
    for video in videos.values():
        for what, actions in (("annotation", video.actions),
                              (REJECTED, video.hard_negatives)):
            for number, action in enumerate(actions):
                if action.label not in hints:
                    hints[action.label] = (
                        f"label {action.label!r} is in no class list"
                        + did_you_mean(action.label, names))
                if hints[action.label]:
                    problems.append(f"{video.video_id}, {what} {number}: "
                                    f"{hints[action.label]}")


def class_order(videos: Mapping[str, AnnotatedVideo], problems: list[str],
                added: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the labels in the order of label_id if all actions have one,
    else of their names, and then those of the `added` ones that are left;
    appends conflicts of label_ids to `problems`.
    """
    ids_of: dict[str, set[int | None]] = {}
    for video in videos.values():
        for action in video.actions:
            ids_of.setdefault(action.label, set()).add(action.label_id)
    last = tuple(one for one in added if ids_of.pop(one, None))
    label_of: dict[int, str] = {}
    for label, ids in ids_of.items():
        numbers = sorted(one for one in ids if one is not None)
        if len(numbers) > 1:
            problems.append(f"label {label!r} has several label_id: "
                            f"{', '.join(map(str, numbers))}")
        label_of |= {number: label for number in numbers}
    if any(len(ids) > 1 or None in ids for ids in ids_of.values()):
        return (*sorted(ids_of), *last)
    if len(label_of) < len(ids_of):
        problems.append("several labels share one label_id: give the classes "
                        "with --config.data.class_names=FILE, or correct "
                        "label_id")
    return (*(label_of[number] for number in sorted(label_of)), *last)
