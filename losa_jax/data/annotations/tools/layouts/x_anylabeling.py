"""X-AnyLabeling's "Video Classifier": a JSON beside each video."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.recording import (
    Recording,
    class_names,
    one_line,
)

TITLE = "X-AnyLabeling"

TYPE = "video_classification"


def recognizes(file: File) -> bool:
    """Whether this is a file of the video classifier."""
    return isinstance(file.json, dict) and file.json.get("type") == TYPE


def read(file: File, content: Content) -> None:
    """Reads the segments, whose milliseconds count."""
    name = str(file.json.get("video") or file.path.stem)
    milliseconds = file.json.get("duration_ms")
    video = content.video(
        name, duration_seconds=milliseconds / 1000 if isinstance(
            milliseconds, float | int) else None, fps=file.json.get("fps"),
        beside=file.path)
    for number, segment in enumerate(file.json.get("segments") or []):
        where = f"{file.name}, segment {number}"
        try:
            if "start_ms" in segment:
                start, end = (float(segment[key]) / 1000
                              for key in ("start_ms", "end_ms"))
            else:  # the end is the frame at that time, as in its own files
                rate = content.fps_of(video, content.videos[video].fps)
                start = float(segment["start_frame"]) / rate
                end = float(segment["end_frame"]) / rate
            content.add(video, str(segment["label"]), start, end, where=where,
                        score=segment.get("score"))
        except (KeyError, TypeError, ValueError) as error:
            content.problems.append(f"{where}: needs label, start_ms and "
                                    f"end_ms ({error!r})")


def write(recordings: Sequence[Recording], folder: Path) -> dict[str, str]:
    """Returns a JSON for each video; the score is in the description."""
    labels = class_names(recordings)
    return {f"{Path(one.file_name).stem if one.media else one.video_id}.json":
            json.dumps(_content(one, labels), ensure_ascii=False, indent=1)
            for one in recordings}


def _content(recording: Recording, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "version": "1.0.0", "type": TYPE, "video": recording.file_name,
        "fps": recording.fps,
        "duration_ms": round(1000 * recording.duration_seconds),
        "labels": [*labels], "segments": [{
            "id": f"s{number}", "label": one_line(row["label"]),
            "start_ms": start, "end_ms": end,
            "start_frame": row["start_frame"],
            "end_frame": row["end_frame"],
            "description": f"score {row['score']:.2f}"}
            for number, (row, start, end) in enumerate(recording.timed(), 1)]}
