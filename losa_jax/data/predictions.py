"""Detections in a file: the ActivityNet submission format.

    {"version": "losa_jax",
     "results": {"video_id": [{"segment": [start_seconds, end_seconds],
                               "label": "HighJump", "score": 0.93}, ...]},
     "external_data": {}}
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import written_whole

# Wrong entries listed in one message; the rest is counted.
MAX_REPORTED = 10


def write_predictions(path: str | os.PathLike,
                      predictions: Mapping[str, Sequence[Detection]], *,
                      version: str = "losa_jax",
                      external_data: Mapping[str, Any] | None = None
                      ) -> None:
    """Writes the file whole or not at all, in the order given.

    Args:
      path: the file; its folder must exist.
      predictions: of each video; numpy scalars are welcome.
      version, external_data: what the submission format asks for beside the
        results; scoring prints external_data's "details".

    Raises:
      InputError: a detection with a number that is not finite, or that ends
        before it starts. Nothing is written then.
    """
    results = {
        video: [_entry(detection) for detection in detections]
        for video, detections in predictions.items()}
    _parse(results, f"cannot write {path}")
    with written_whole(pathlib.Path(path)) as temporary, open(
            temporary, "w", encoding="utf-8") as file:
        json.dump({"version": version, "results": results,
                   "external_data": dict(external_data or {})}, file,
                  allow_nan=False)


def check_predictions(predictions: Mapping[str, Sequence[Detection]],
                      where: str) -> dict[str, list[Detection]]:
    """The detections with Python's numbers, without scores of all classes.

    Args:
      predictions: of each video.
      where: what begins a message.

    Raises:
      InputError: entries that `read_predictions` would refuse, by video and
        place in its list.
    """
    return _parse({
        video: [_checked_entry(row) for row in rows]
        if isinstance(rows, Sequence) else rows
        for video, rows in predictions.items()}, where)


def _checked_entry(row: Any) -> Any:
    """As it would stand in the file; as it is where it is no detection."""
    if not (isinstance(row, tuple) and len(row) in (4, 5)):
        return row
    start, end, label, score = (
        part.item() if isinstance(part, np.generic) else part
        for part in row[:4])
    return {"segment": [start, end], "label": label, "score": score}


def _entry(detection: Detection) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "segment": [float(detection.start_seconds),
                    float(detection.end_seconds)],
        "label": detection.label, "score": float(detection.score)}
    if detection.class_scores is not None:
        entry["class_scores"] = {
            name: round(float(score), 6)
            for name, score in detection.class_scores.items()}
    return entry


def read_predictions(path: str | os.PathLike) -> dict[str, list[Detection]]:
    """The predictions of `read_submission`."""
    return read_submission(path)[0]


def read_submission(path: str | os.PathLike
                    ) -> tuple[dict[str, list[Detection]], str]:
    """Reads what this or another tool wrote in the submission format.

    Other keys than "results" and "external_data", and further keys of an
    entry, are passed over.

    Returns:
      the predictions of each video, and what "external_data" says of other
      data that made them ("" for nothing).

    Raises:
      InputError: not such a file, or entries that are not a detection; the
        message names each by video and place in its list.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})"
                         ) from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise InputError(f"{path}: not a JSON file ({error}): give detections "
                         "in the ActivityNet submission format") from error
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise InputError(
            f'{path}: no "results" object that maps video ids to lists of '
            "detections; is this a file in the ActivityNet submission "
            "format?")
    external = content.get("external_data")
    details = external.get("details") if isinstance(external, dict) else None
    return _parse(results, str(path)), (
        "".join(filter(str.isprintable, details))
        if isinstance(details, str) else "")


def _parse(results: Mapping[str, Any],
           where: str) -> dict[str, list[Detection]]:
    """Checks every entry, reports the wrong ones together."""
    predictions: dict[str, list[Detection]] = {}
    wrong = []
    for video, entries in results.items():
        if not isinstance(entries, list):
            wrong.append(f"video {video!r}: is not a list of detections")
            continue
        detections = predictions[video] = []
        for index, entry in enumerate(entries):
            fault = _fault(entry)
            if fault:
                wrong.append(f"video {video!r}, entry {index}: {fault}")
            else:
                start, end = entry["segment"]
                detections.append(Detection(start, end, entry["label"],
                                            entry["score"]))
    if wrong:
        more = len(wrong) - MAX_REPORTED
        raise InputError("\n  ".join(
            [f"{where}: {len(wrong)} wrong entries; mend them or leave them "
             "out", *wrong[:MAX_REPORTED],
             *([f"and {more} more"] if more > 0 else [])]))
    return predictions


def _fault(entry: Any) -> str:
    """What is wrong with an entry of the file; empty if nothing is."""
    if not isinstance(entry, dict):
        return "is not an object with segment, label and score"
    missing = [key for key in ("segment", "label", "score")
               if key not in entry]
    if missing:
        return f"has no {' and no '.join(missing)}"
    segment, label, score = entry["segment"], entry["label"], entry["score"]
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
    return (isinstance(value, (int, float)) and not isinstance(value, bool)
            and math.isfinite(value))
