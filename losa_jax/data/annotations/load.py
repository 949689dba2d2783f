"""The ActivityNet-style annotation file, checked as a whole.

    {"database": {
       "video_1": {"subset": "training", "duration": 25.1, "fps": 25.0,
                   "annotations": [
                     {"label": "jump", "segment": [3.2, 4.8]}]}}}

`duration`, `fps` and `label_id` may be absent; times are seconds. All
problems of a file are collected and reported at once.
"""

import difflib
import logging
import math
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import thumos
from losa_jax.data.annotations.formats import read_database
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.errors import InputError

logger = logging.getLogger(__name__)

MAX_REPORTED = 20
ON_OUTSIDE = ("error", "clip", "keep")
# Durations in annotation files are rounded: a segment may reach this far
# past the end (or this share of the duration) and is cut without a word.
OUTSIDE_TOLERANCE_SECONDS = 0.05
OUTSIDE_TOLERANCE_SHARE = 0.001
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


def load_annotations(path: str | Path, *,
                     class_names: Sequence[str] | None = None,
                     on_outside: str = "error",
                     durations: Mapping[str, float] | None = None
                     ) -> Annotations:
    """Reads and checks a file.

    Args:
      path: a file, or files, in one of the layouts of
        `annotation_formats`.
      class_names: the classes in label order; None takes the file's own.
      on_outside: segments that reach outside their video are an "error";
        "clip" cuts them (and drops those wholly outside, and empty ones)
        with a warning; "keep" leaves them, and empty ones too, for scoring
        against what others score against.
      durations: seconds of the videos' files, where they are known: they
        count, not the annotated ones.

    Raises:
      InputError: names every wrong entry.
    """
    path = Path(path)
    if on_outside not in ON_OUTSIDE:
        raise InputError(f"config.data.on_outside={on_outside!r}: choose "
                         f"one of {', '.join(ON_OUTSIDE)}")
    database = read_database(path)
    problems: list[str] = []
    label_ids: dict[str, set] = {}
    videos = {}
    for video_id, entry in database.items():
        video = _read_video(video_id, entry, on_outside, problems, label_ids,
                            (durations or {}).get(video_id))
        if video is not None:
            videos[video_id] = video
    names = _class_order(videos, class_names, label_ids, problems)
    if problems:
        shown = problems[:MAX_REPORTED]
        more = len(problems) - len(shown)
        raise InputError(
            f"{path}: {len(problems)} wrong entries:\n"
            + "\n".join(f"  {line}" for line in shown)
            + (f"\n  and {more} more" if more else "")
            + "\nCorrect the file"
            + (" (or cut segments to their video, and drop empty ones, with "
               "--config.data.on_outside=clip)"
               if any("outside" in line or "is empty" in line
                      for line in problems) else ""))
    if not videos:
        raise InputError(f"{path}: no videos under \"database\"; the format is "
                         "in README, \"Your own videos\"")
    return Annotations(path, videos, names)


def _read_video(video_id: str, entry: Any, on_outside: str,
                problems: list[str], label_ids: dict[str, set],
                real_seconds: float | None) -> AnnotatedVideo | None:
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
    actions = []
    for number, annotation in enumerate(annotations):
        action = _read_action(f"{video_id}, annotation {number}", annotation,
                              real_seconds or numbers["duration"],
                              on_outside, problems)
        if action is not None:
            actions.append(action)
            label_id = annotation.get("label_id")
            if label_id is not None and type(label_id) is not int:
                problems.append(f"{video_id}, annotation {number}: label_id "
                                f"{label_id!r} is no whole number")
                label_id = None
            label_ids.setdefault(action.label, set()).add(label_id)
    return AnnotatedVideo(video_id, entry["subset"].lower(),
                          numbers["duration"], numbers["fps"],
                          tuple(actions), correction)


def _put_right(video_id: str, duration: float | None, fps: float | None
               ) -> tuple[float | None, float | None, str]:
    """Duration, rate, and what was wrong with them: 30 frames a second taken
    for a THUMOS-14 video of fewer."""
    rate, seconds = thumos.SLOW_VIDEOS.get(video_id, (0.0, 0.0))
    wrong = seconds * rate / thumos.USUAL_FPS
    if not rate or duration is None or (
            abs(duration - wrong) > _SAME_DURATION * wrong):
        return duration, fps, ""
    correction = (f"{duration:.2f} s is the length at {thumos.USUAL_FPS:g} "
                  f"frames a second; the video has {rate:g}: {seconds:.2f} s "
                  "is taken")
    return seconds, rate, correction


def outside_slack_seconds(duration_seconds: float) -> float:
    """How far a segment may reach outside a video without being outside."""
    return max(OUTSIDE_TOLERANCE_SECONDS,
               OUTSIDE_TOLERANCE_SHARE * duration_seconds)


def _is_clean(text: str) -> bool:
    """Whether untrusted text can be shown, and kept one a line."""
    return bool(text) and not any(
        unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        for character in text)


def _is_positive(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and 0 < value <= sys.float_info.max)


def _read_action(where: str, annotation: Any, duration: float | None,
                 on_outside: str, problems: list[str]) -> Action | None:
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
    if on_outside == "keep" and end >= start:
        return Action(start, end, label)
    if end == start and on_outside == "clip":
        logger.warning("%s: segment [%s, %s] is empty: dropped", where,
                       start, end)
        return None
    if end <= start:
        problems.append(f"{where}: segment [{start}, {end}] "
                        + ("is empty" if end == start
                           else "ends before it starts"))
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


def _class_order(videos: dict[str, AnnotatedVideo],
                 given: Sequence[str] | None, label_ids: dict[str, set],
                 problems: list[str]) -> tuple[str, ...]:
    if given is not None:
        known = set(given)
        for video in videos.values():
            for number, action in enumerate(video.actions):
                if action.label not in known:
                    near = difflib.get_close_matches(action.label, given, 1)
                    problems.append(
                        f"{video.video_id}, annotation {number}: label "
                        f"{action.label!r} is in no class list"
                        + (f"; did you mean {near[0]!r}?" if near else ""))
        return tuple(given)
    numbers = {label: ids - {None} for label, ids in label_ids.items()}
    for label, ids in numbers.items():
        if len(ids) > 1:
            shown = ", ".join(str(label_id) for label_id in sorted(ids))
            problems.append(f"label {label!r} has several label_id: {shown}")
    if any(len(ids) != 1 or None in ids for ids in label_ids.values()):
        return tuple(sorted(label_ids))
    if len(set().union(*numbers.values())) != len(numbers):
        problems.append("several labels share one label_id: give the classes "
                        "with --config.data.class_names=FILE, or correct "
                        "label_id")
    return tuple(sorted(numbers, key=lambda label: (min(numbers[label]),
                                                    label)))
