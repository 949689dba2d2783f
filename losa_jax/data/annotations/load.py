"""Annotations of any layout of `formats`, read once and checked as a whole.

They come as ActivityNet's JSON or are made into it:

    {"database": {
       "video_1": {"subset": "training", "duration": 25.1, "fps": 25.0,
                   "annotations": [
                     {"label": "jump", "segment": [3.2, 4.8]}]}}}

`duration`, `fps` and `label_id` may be absent; times are seconds. All
problems of a file are collected and reported at once.
"""

import difflib
import math
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import thumos_facts
from losa_jax.data.annotations.formats import read_database
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.errors import InputError

MAX_REPORTED = 20
# Durations that agree within this share are one.
_SAME_DURATION = 0.01


def load_class_names(path: str | Path) -> tuple[str, ...]:
    """Class names, one a line, in label order.

    Raises:
      InputError: missing, empty, or a name twice.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of class names, one a line: "
                         "check the path")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error}): save it as "
                         "UTF-8") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names or len(set(names)) != len(names):
        raise InputError(f"{path}: needs different class names, one a line; "
                         f"it has {len(names)} lines, {len(set(names))} "
                         "different ones")
    return tuple(names)


def load_annotations(path: str | Path,
                     class_names: Sequence[str] | None = None
                     ) -> Annotations:
    """Reads and checks a file.

    Segments are as the file has them, even empty ones and those that reach
    outside their video: `losa_jax.data.annotations.outside.clipped_to`
    treats them when the length of the videos is known.

    Args:
      path: a file, or files, in one of the layouts of
        `losa_jax.data.annotations.formats`.
      class_names: the classes in label order; None takes the file's own.

    Raises:
      InputError: names every wrong entry.
    """
    path = Path(path)
    problems: list[str] = []
    videos: dict[str, AnnotatedVideo] = {}
    label_ids: dict[str, tuple[int | None, ...]] = {}
    for video_id, entry in read_database(path).items():
        video = _read_video(video_id, entry, label_ids, problems)
        if video is not None:
            videos[video_id] = video
    if class_names is None:
        names = class_order(videos, label_ids, problems)
    else:
        names = tuple(class_names)
        _refuse_other_labels(videos, names, problems)
    if problems:
        raise wrong_entries(path, problems)
    if not videos:
        raise InputError(f"{path}: no videos under \"database\"; the format is "
                         "in README, \"Your own videos\"")
    return Annotations(path, videos, names,
                       label_ids if class_names is None else None)


def wrong_entries(path: Path, problems: Sequence[str],
                  remedy: str = "Correct the file") -> InputError:
    """The error that lists the problems of a file, one a line."""
    shown = problems[:MAX_REPORTED]
    more = len(problems) - len(shown)
    return InputError(
        f"{path}: {len(problems)} wrong entries:\n"
        + "\n".join(f"  {line}" for line in shown)
        + (f"\n  and {more} more" if more else "") + f"\n{remedy}")


def _read_video(video_id: str, entry: Any,
                label_ids: dict[str, tuple[int | None, ...]],
                problems: list[str]) -> AnnotatedVideo | None:
    """A video; the label_id of each of its actions goes into `label_ids`."""
    if not _is_clean(video_id):
        problems.append(f"video id {video_id!r}: empty, or a control "
                        "character in it")
        return None
    if not isinstance(entry, dict):
        problems.append(f"{video_id}: is no object")
        return None
    if not isinstance(entry.get("subset"), str):
        problems.append(f"{video_id}: has no \"subset\" (training, testing "
                        "...)")
        return None
    numbers = {}
    for key in ("duration", "fps"):
        value = entry.get(key)
        if value is not None and not _is_positive(value):
            problems.append(f"{video_id}: {key} is {value!r}, must be a "
                            "positive number or absent")
            value = None
        numbers[key] = value
    numbers["duration"], numbers["fps"], correction = _put_right(
        video_id, numbers["duration"], numbers["fps"])
    annotations = entry.get("annotations") or []
    if not isinstance(annotations, list):
        problems.append(f"{video_id}: \"annotations\" is no list")
        return None
    actions, ids = [], []
    for number, annotation in enumerate(annotations):
        where = f"{video_id}, annotation {number}"
        action = _read_action(where, annotation, problems)
        if action is not None:
            label_id = annotation.get("label_id")
            if label_id is not None and type(label_id) is not int:
                problems.append(f"{where}: label_id {label_id!r} is no whole "
                                "number")
                label_id = None
            actions.append(action)
            ids.append(label_id)
    label_ids[video_id] = tuple(ids)
    return AnnotatedVideo(video_id, entry["subset"].lower(),
                          numbers["duration"], numbers["fps"],
                          tuple(actions), correction)


def _put_right(video_id: str, duration: float | None, fps: float | None
               ) -> tuple[float | None, float | None, str]:
    """Duration, rate, and what was wrong with them: 30 frames a second taken
    for a THUMOS-14 video of fewer."""
    rate, seconds = thumos_facts.SLOW_VIDEOS.get(video_id, (0.0, 0.0))
    wrong = seconds * rate / thumos_facts.USUAL_FPS
    if not rate or duration is None or (
            abs(duration - wrong) > _SAME_DURATION * wrong):
        return duration, fps, ""
    correction = (f"{duration:.2f} s is the length at "
                  f"{thumos_facts.USUAL_FPS:g} frames a second; the "
                  f"video has {rate:g}: {seconds:.2f} s is taken")
    return seconds, rate, correction


def _is_clean(text: str) -> bool:
    """Whether untrusted text can be shown, and kept one a line."""
    return bool(text) and not any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        for character in text)


def _is_positive(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and 0 < value <= sys.float_info.max)


def _read_action(where: str, annotation: Any, problems: list[str]
                 ) -> Action | None:
    try:
        # Some circulating files write the numbers as text.
        start, end = map(float, annotation["segment"])
        label = annotation["label"]
    except (KeyError, TypeError, ValueError, OverflowError):
        problems.append(f"{where}: needs \"label\" and \"segment\": [start, "
                        f"end] in seconds, is {str(annotation)[:80]}")
        return None
    if not isinstance(label, str) or not _is_clean(label):
        problems.append(f"{where}: label {label!r} is no name")
        return None
    if not (math.isfinite(start) and math.isfinite(end)):
        problems.append(f"{where}: segment [{start}, {end}] is not finite")
        return None
    if end < start:
        problems.append(f"{where}: segment [{start}, {end}] ends before it "
                        "starts")
        return None
    return Action(start, end, label)


def _refuse_other_labels(videos: Mapping[str, AnnotatedVideo],
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


def class_order(videos: Mapping[str, AnnotatedVideo],
                label_ids: Mapping[str, Sequence[int | None]],
                problems: list[str]) -> tuple[str, ...]:
    """The labels of the actions, in the order of their label_id if all have
    one, else sorted.

    Args:
      label_ids: of each video's actions.
      problems: takes those of the label_ids.
    """
    ids_of: dict[str, set[int | None]] = {}
    for video_id, video in videos.items():
        for action, label_id in zip(video.actions, label_ids[video_id],
                                    strict=True):
            ids_of.setdefault(action.label, set()).add(label_id)
    numbers = {label: {one for one in ids if one is not None}
               for label, ids in ids_of.items()}
    for label, ids in numbers.items():
        if len(ids) > 1:
            shown = ", ".join(str(label_id) for label_id in sorted(ids))
            problems.append(f"label {label!r} has several label_id: {shown}")
    if any(len(ids) != 1 or None in ids for ids in ids_of.values()):
        return tuple(sorted(ids_of))
    if len(set().union(*numbers.values())) != len(numbers):
        problems.append("several labels share one label_id: give the classes "
                        "with --config.data.class_names=FILE, or correct "
                        "label_id")
    return tuple(sorted(numbers, key=lambda label: (min(numbers[label]),
                                                    label)))
