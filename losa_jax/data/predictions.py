"""Reads and writes detections in the ActivityNet submission format.

    {"version": "losa_jax",
     "results": {"video_id": [{"segment": [start_seconds, end_seconds],
                               "label": "HighJump", "score": 0.93}, ...]},
     "external_data": {}}
"""

import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError, listed
from losa_jax.utils.atomic_write import atomic_file
from losa_jax.utils.text_files import nfc, read_json, read_lines


def write_predictions(path: str | os.PathLike,
                      predictions: Mapping[str, Sequence[Detection]]
                      | Iterable[tuple[str, Sequence[Detection]]], *,
                      external_data: Mapping[str, Any] | None = None
                      ) -> None:
    """Writes the file atomically, in the order given; InputError, and no file,
    if a number is not finite or a detection ends before it starts. Scoring
    prints the "details" of `external_data`.

    Of pairs (video, detections) only one is in memory at a time.
    """
    pairs = (predictions.items() if isinstance(predictions, Mapping)
             else predictions)
    end = json.dumps(dict(external_data or {}), allow_nan=False)
    with atomic_file(pathlib.Path(path)) as temporary, open(
            temporary, "w", encoding="utf-8") as file:
        file.write('{"version": "losa_jax", "results": {')
        for number, (video, rows) in enumerate(pairs):
            entries = [_entry(row) for row in rows]
            _parse({video: entries}, f"cannot write {path}")
            file.write(f"{', ' if number else ''}{json.dumps(video)}: "
                       f"{json.dumps(entries)}")
        file.write(f'}}, "external_data": {end}}}')


class VideoPredictions(NamedTuple):
    """The file of one video that `predict` wrote.

    Attributes:
      source: the video as the user named it.
      shown_from: {class name: score from which a detection is shown}.
      detections: all of them, by descending score.
      model: hash of the model and its settings.
    """

    video_id: str
    source: str
    duration_seconds: float
    fps: float
    frame_count: int
    shown_from: dict[str, float]
    detections: list[Detection]
    model: str


def read_video_predictions(path: pathlib.Path) -> VideoPredictions:
    """Reads the JSON of one video; InputError if `predict` did not write
    it."""
    content = read_json(path)
    try:
        return VideoPredictions(
            nfc(content["video"]), content["source"],
            _finite(content["duration_seconds"]), _finite(content["fps"]),
            int(content["frame_count"]),
            {name: _finite(score)
             for name, score in content["shown_from"].items()},
            detections_of(content), content["made_by"]["model"])
    except (AttributeError, KeyError, TypeError, ValueError,
            OverflowError) as error:
        raise InputError(
            f"{path}: is not the file of a video that losa_jax.predict wrote "
            f"({error!r}): run predict again, or remove it") from error


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def detections_of(content: Mapping[str, Any]) -> list[Detection]:
    """Returns all detections of a video's JSON, by descending score and then
    in an order that does not depend on the threshold."""
    return sorted(
        (Detection(row["start_seconds"], row["end_seconds"], row["label"],
                   row["score"])
         for row in (*content["detections"], *content["below_threshold"])),
        key=lambda one: (-one.score, *one[:3]))


def check_predictions(predictions: Mapping[str, Sequence[Detection]],
                      where: str) -> dict[str, list[Detection]]:
    """Returns the detections with Python's numbers, without class_scores;
    InputError, beginning with `where`, as `read_predictions`."""
    return _parse({
        video: [_entry(row) for row in rows]
        if isinstance(rows, Sequence) else rows
        for video, rows in predictions.items()}, where)


def _entry(row: Any) -> Any:
    """Returns a detection as JSON; anything else as it is."""
    if not (isinstance(row, tuple) and len(row) in (4, 5)):
        return row
    start, end, label, score = (
        part.item() if isinstance(part, np.generic) else part
        for part in row[:4])
    entry = {"segment": [start, end], "label": label, "score": score}
    class_scores = Detection(*row).class_scores
    if class_scores is not None:
        entry["class_scores"] = {name: round(float(value), 6)
                                 for name, value in class_scores.items()}
    return entry


def read_predictions(path: str | os.PathLike) -> dict[str, list[Detection]]:
    """Returns the predictions of `read_submission`."""
    return read_submission(path)[0]


def read_submission(path: str | os.PathLike
                    ) -> tuple[dict[str, list[Detection]], str]:
    """Reads a file of this or another tool; further keys are ignored.

    Returns the predictions of each video, and the details of "external_data"
    (other data that made them) or "". InputError names the wrong entries.
    """
    content, results = _read_results(path)
    external = content.get("external_data")
    details = external.get("details") if isinstance(external, dict) else None
    return _parse(results, str(path)), (
        "".join(filter(str.isprintable, details))
        if isinstance(details, str) else "")


def read_labeled(path: str | os.PathLike,
                 label_of: Mapping[str, Callable[[Mapping[str, Any]], str]]
                 ) -> dict[str, dict[str, list[Detection]]]:
    """Reads a submission whose entries have other keys for the class.

    Returns {target: predictions}, once for each function of `label_of` from
    an entry to its class; InputError, also one of theirs, names the entry.
    """
    _, results = _read_results(path)
    return {target: _parse(results, str(path), function)
            for target, function in label_of.items()}


def read_moments(path: pathlib.Path, num_moments: int
                 ) -> dict[str, np.ndarray]:
    """Reads a submission to Charades' localization: lines `id frame scores`,
    with frames from 1 to `num_moments` and a score for each class.

    Returns {video id: [moment, class]}, -infinity where there is no line.
    InputError names the wrong line.
    """
    rows: dict[str, np.ndarray] = {}
    num_classes = 0
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        video, *rest = line.split()
        try:
            frame, first, *others = map(float, rest)
        except ValueError as error:
            raise InputError(f"{where}: {line[:40]!r} is not `id frame scores "
                             "of the classes`") from error
        scores = [first, *others]
        num_classes = num_classes or len(scores)
        if len(scores) != num_classes or not all(map(math.isfinite, scores)):
            raise InputError(
                f"{where}: has {len(scores)} scores, line 1 has {num_classes}, "
                "and all must be finite: write the file again")
        if frame not in range(1, num_moments + 1):
            raise InputError(f"{where}: frame {rest[0]} is not a number from 1 "
                             f"to {num_moments}: count frames from 1")
        moments = rows.setdefault(
            nfc(video), np.full((num_moments, num_classes), -np.inf))
        if moments[int(frame) - 1, 0] > -np.inf:
            raise InputError(f"{where}: frame {rest[0]} of {video} is there "
                             "twice: remove one of its lines")
        moments[int(frame) - 1] = scores
    if not rows:
        raise InputError(f"{path}: is empty: write it again")
    return rows


def _read_results(path: str | os.PathLike
                  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the content of a file, and its "results"."""
    content = read_json(pathlib.Path(path))
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise InputError(f'{path}: no "results" object{_other_file(content)}: '
                         "give detections in the ActivityNet submission "
                         "format (docs/scoring.md has an example)")
    return content, results


def _other_file(content: Any) -> str:
    """Returns what JSON without results seems to be."""
    if not isinstance(content, dict):
        return f" but a {type(content).__name__}"
    if isinstance(content.get("database"), dict):
        return " but annotations"
    if "shown_from" in content:
        return (" but the detections of one video that losa_jax.predict "
                "wrote; predictions.json beside it has all")
    return f" but the keys {', '.join(map(repr, [*content][:5]))}"


def _parse(results: Mapping[str, Any], where: str,
           label_of: Callable[[Mapping[str, Any]], str] | None = None
           ) -> dict[str, list[Detection]]:
    predictions: dict[str, list[Detection]] = {}
    wrong = []
    for name, entries in results.items():
        video = nfc(name)
        if not isinstance(entries, list):
            wrong.append(f"video {video!r}: is not a list of detections")
            continue
        if video in predictions:
            wrong.append(f"video {video!r}: is there twice, in two Unicode "
                         "forms of its name")
        detections = predictions[video] = []
        for index, entry in enumerate(entries):
            problem = ""
            if label_of is not None and isinstance(entry, dict):
                try:
                    entry = {**entry, "label": label_of(entry)}
                except InputError as error:
                    problem = str(error)
            problem = problem or _problem(entry)
            if problem:
                wrong.append(f"video {video!r}, entry {index}: {problem}")
            else:
                start, end = entry["segment"]
                detections.append(Detection(start, end, nfc(entry["label"]),
                                            entry["score"]))
    if wrong:
        raise InputError(f"{where}: {len(wrong)} wrong entries; correct or "
                         f"remove them{listed(wrong, most=10)}")
    return predictions


def _problem(entry: Any) -> str:
    keys = ("segment", "label", "score")
    if not isinstance(entry, dict):
        return f"is not an object with {', '.join(keys)}"
    missing = [key for key in keys if key not in entry]
    if missing:
        return f"has no {' and no '.join(missing)}"
    segment, label, score = map(entry.get, keys)
    if not (isinstance(segment, list) and len(segment) == 2
            and all(_is_number(value) for value in segment)):
        return f"segment {segment!r} is not [start, end] in seconds"
    if segment[1] < segment[0]:
        return f"segment {segment!r} ends before it starts"
    if not isinstance(label, str):
        return f"label {label!r} is not a class name"
    if not _is_number(score):
        return f"score {score!r} is not a number"
    return ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
