"""FiftyOne's labels.json of temporal detections."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.recording import (
    Recording,
    class_names,
    one_line,
)

TITLE = "FiftyOne"


def recognizes(file: File) -> bool:
    """Whether this has labels of videos with time stamps or frames."""
    content = file.json
    if not (isinstance(content, dict) and isinstance(content.get("labels"),
                                                     dict)):
        return False
    return "classes" in content or any(
        isinstance(row, dict) and {"timestamps", "support"} & row.keys()
        for rows in content["labels"].values()
        for row in (rows if isinstance(rows, list) else []))


def read(file: File, content: Content) -> None:
    """Reads the detections; a video with null was looked at."""
    classes = file.json.get("classes") or []
    for key, rows in file.json["labels"].items():
        video = content.video(key, is_id=True)
        for number, row in enumerate(rows or []):
            where = f"{file.name}, {key}, entry {number}"
            try:
                start, end = _times(row, lambda video=video: content.fps_of(
                    video))
                label = row["label"]
                content.add(video, classes[label] if isinstance(label, int)
                            else str(label), start, end, where=where,
                            score=row.get("confidence"))
            except (KeyError, TypeError, ValueError, IndexError) as error:
                content.problems.append(f"{where}: needs label and timestamps "
                                        f"or support ({error!r})")


def _times(row: dict[str, Any], fps: Any) -> tuple[float, float]:
    if "timestamps" in row:
        start, end = (tables.seconds(str(value))
                      for value in row["timestamps"])
        return start, end
    first, last = row["support"]  # from 1, both included
    rate = fps()
    return (first - 1) / rate, last / rate


def write(recordings: Sequence[Recording], folder: Path) -> dict[str, str]:
    """Returns labels.json of all videos, and data.json with their files."""
    classes = class_names(recordings)
    labels = {one.video_id: [
        {"label": classes.index(one_line(row["label"])),
         "timestamps": [start / 1000, end / 1000], "confidence": row["score"]}
        for row, start, end in one.timed()] for one in recordings}
    files = {one.video_id: str(one.media.absolute()) for one in recordings
             if one.media is not None}
    return {name: json.dumps(content, ensure_ascii=False, indent=1)
            for name, content in (
                ("labels.json", {"classes": classes, "labels": labels}),
                ("data.json", files))}
