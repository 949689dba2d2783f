"""Reads and checks annotations, from the database that `formats` returns.

`duration`, `fps` and an annotation's `label_id` may be absent. Actions that
reach outside their video, last no time, or end before they start, are read;
`clipped_to` refuses, cuts, drops or keeps them.
"""

import dataclasses
import difflib
import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import thumos_facts
from losa_jax.data.annotations.formats import read_database
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.errors import InputError, listed
from losa_jax.utils.names import did_you_mean, name_problem
from losa_jax.utils.text_files import nfc, read_lines

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
# Keys that hold the actions in the files of other programs.
_LIKE_ANNOTATIONS = re.compile(
    r"(?i)annotations?|anno?s?|actions?|instances?|segments?|events?|labels?"
    r"|ground_?truth|gt")
# So many warnings name the action that was cut or dropped.
_MOST_CHANGES = 100
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
    else:
        names = tuple(class_names)
        _check_labels(videos, names, problems)
    if problems:
        raise wrong_entries(path, problems)
    if not videos:
        raise InputError(f"{path}: no videos under \"database\"; "
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
    actions = [_read_action(f"{video_id}, annotation {number}", annotation,
                            problems)
               for number, annotation in enumerate(
                   entry.get("annotations") or [])]
    duration, fps, correction = _corrected(video_id, *numbers.values())
    return AnnotatedVideo(
        video_id, entry["subset"].lower(), duration, fps,
        tuple(filter(None, actions)), correction)


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
    content = entry.get("annotations")
    if content is not None and not isinstance(content, list):
        return f"{video_id}: \"annotations\" is no list"
    is_given = "annotations" in entry
    others = [] if content else [
        key for key, value in entry.items() if key != "annotations"
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
        for number, action in enumerate(video.actions):
            if action.label not in hints:
                hints[action.label] = (
                    f"label {action.label!r} is in no class list"
                    + did_you_mean(action.label, names))
            if hints[action.label]:
                problems.append(f"{video.video_id}, annotation {number}: "
                                f"{hints[action.label]}")


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
            for action in video.actions):
        if hint:
            logger.warning("%s: %s", annotations.path, hint)
        return annotations
    problems: list[str] = []
    changes: list[tuple[str, str]] = []
    videos = {}
    for video_id, video in annotations.videos.items():
        end = durations.get(video_id) or video.duration_seconds or math.inf
        kept = []
        for number, action in enumerate(video.actions):
            inside, problem = _inside(action, end)
            if on_outside == "keep" and (
                    action.end_seconds >= action.start_seconds):
                inside, problem = action, ""
            message = (f"{video_id}, annotation {number}: segment "
                       f"{list(action[:2])} {problem}")
            if problem and on_outside == "error":
                problems.append(message)
            elif problem:
                changes.append((message,
                                "dropped" if inside is None else "cut"))
            if inside is not None:
                kept.append(inside)
        videos[video_id] = dataclasses.replace(video, actions=tuple(kept))
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
             else class_order(videos, problems))
    if problems:
        raise wrong_entries(annotations.path, problems, remedy)
    if hint:
        logger.warning("%s: %s", annotations.path, hint)
    return dataclasses.replace(annotations, videos=videos, class_names=names)


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
