"""Tables and JSON of one's own, also Create ML's: one row an action.

Columns are known by their names, also with a unit: video or file, label or
class, start or onset, end or duration, and if there are any subset, score and
fps. Times are seconds, clocks, milliseconds ("start_ms") or frames from 0 with
the last included ("start_frame"). A row with a video alone says that it was
watched.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.recording import Recording
from losa_jax.errors import InputError

TITLE = "a table"
COLUMNS = ("video", "label", "score", "start_seconds", "end_seconds",
           "start_frame", "end_frame")

# Names of columns without their units, the best first.
ROLES: dict[str, tuple[str, ...]] = {
    "video": ("video", "video id", "videoid", "video name", "videoname",
              "video file", "video path", "filename", "file name", "file",
              "file path", "path", "media", "media file", "clip", "vid",
              "recording", "youtube id", "ytid", "url"),
    "label": ("label name", "class name", "action name", "label", "class",
              "event label", "action", "action label", "category", "behavior",
              "behaviour", "activity", "gesture", "event", "tag", "annotation",
              "value", "type", "name"),
    "start": ("start", "begin", "onset", "from", "starts", "beginning"),
    "end": ("end", "stop", "offset", "to", "until", "finish", "ends"),
    "duration": ("duration", "length", "dur"),
    "subset": ("subset", "split", "set", "partition"),
    "score": ("score", "confidence", "probability"),
    "fps": ("fps", "frame rate", "framerate"),
}
_UNITS = {
    "s": "seconds", "sec": "seconds", "secs": "seconds", "second": "seconds",
    "seconds": "seconds", "ss": "seconds", "ms": "milliseconds",
    "msec": "milliseconds", "millisecond": "milliseconds",
    "milliseconds": "milliseconds", "frame": "frames", "frames": "frames",
    "f": "frames", "idx": "frames", "index": "frames"}
# Words that say nothing about the unit; clocks are known in the cell.
_WORDS = {"time", "t", "hh", "mm", "timestamp", "at", "in", "of"}
_TIMES = ("start", "end", "duration")
_MOST_HEAD = 10  # lines before the header: "sep=;", remarks
_ORDER = ("seconds", "", "milliseconds", "frames")
# Keys of JSON that hold the actions of a video.
_LISTS = ("annotations", "actions", "events", "segments", "labels",
          "instances")
# Keys of JSON that hold start and end.
_PAIRS = ("segment", "interval", "timestamps")


class _Columns(NamedTuple):
    """Column and unit of each role; the unit of others is ""."""

    names: dict[str, tuple[str, str]]

    @property
    def is_enough(self) -> bool:
        """Whether rows can be actions of named videos."""
        return {"label", "start"} <= self.names.keys() and bool(
            {"end", "duration"} & self.names.keys())


def recognizes(file: File) -> bool:
    """Whether this is a table with the columns of actions, or such JSON."""
    if file.json is not None:
        rows = next(_json_rows(file.json), None)
        return rows is not None and _columns(list(rows[1]), {}).is_enough
    return not file.is_archive and tables.read_table(
        file.text, lambda cells: _columns(cells, {}).is_enough, _MOST_HEAD
        ) is not None


def is_table(file: File) -> bool:
    """Whether this has several columns, of whatever names."""
    if file.json is not None:
        return next(_json_rows(file.json), None) is not None
    first = file.text.lstrip().partition("\n")[0]
    return any(mark in first for mark in tables.DELIMITERS)


def read(file: File, content: Content) -> None:
    """Reads one action a row; wrong rows are problems that name the line."""
    chosen = {_with_unit(role): column
              for role, column in content.options.columns.items()}
    if file.json is not None:
        rows = [(f"entry {number}", {
            key: value if isinstance(value, str) else
            "" if value is None else json.dumps(value)
            for key, value in row.items()})
            for number, row in _json_rows(file.json)]
        names = list(dict.fromkeys(key for _, row in rows for key in row))
    else:
        table = tables.read_table(
            file.text, lambda cells: _columns(cells, chosen).is_enough,
            _MOST_HEAD) or tables.read_table(file.text)
        if table is None:
            raise InputError(f"{file.name}: holds no table")
        names = table.columns
        rows = [(f"line {row.line}", row.cells) for row in table.rows]
    columns = _columns(names, chosen)
    if missing := [column for column in content.options.columns.values()
                   if column not in names]:
        raise InputError(f"{file.name}: no column {', '.join(missing)}; it "
                         f"has {', '.join(names)}")
    if not columns.is_enough:
        raise InputError(
            f"{file.name}: the columns {', '.join(names)} are not known: name "
            "those of video, label, start and end, as --columns=video=File,"
            "label=Class,start=Begin,end=End")
    for place, cells in rows:
        _read_row(f"{file.name}, {place}", cells, columns, file, content)


def _read_row(where: str, cells: Mapping[str, str], columns: _Columns,
              file: File, content: Content) -> None:
    texts = {role: cells.get(name, "").strip()
             for role, (name, _) in columns.names.items()}
    if not texts.get("video") and "video" in columns.names:
        content.problems.append(f"{where}: has no video")
        return
    video = (content.video(texts["video"], subset=texts.get("subset", ""))
             if "video" in columns.names else content.unnamed_video(file.path))
    label = texts["label"]
    if not label and not any(texts.get(role) for role in _TIMES):
        return  # watched, without an action
    if not label:
        content.problems.append(f"{where}: has no label")
        return
    try:
        fps = tables.number(texts["fps"]) if texts.get("fps") else None
        start, end = _times(texts, columns, lambda: content.fps_of(video, fps),
                            content.options.first_frame)
        score = tables.number(texts["score"]) if texts.get("score") else None
    except ValueError as error:
        content.problems.append(f"{where}: {error}")
        return
    if start < 0 or end < start:
        problem = ("starts before 0" if start < 0 else "ends before it starts")
        content.problems.append(f"{where}: [{start:g}, {end:g}] {problem}")
        return
    if score is not None:
        content.remark("actions with a score, so of a program; they are "
                       "taken", where)
    content.add(video, label, start, end, where=where, score=score)


def _times(texts: Mapping[str, str], columns: _Columns, fps: Any,
           first_frame: int) -> tuple[float, float]:
    """Returns start and end in seconds; ValueError for what is no time."""
    def moment(role: str, frames: int = 0) -> float:
        unit = columns.names[role][1]
        text = texts[role]
        try:
            if unit == "frames":
                return (tables.number(text) + frames) / fps()
            if unit == "milliseconds" and ":" not in text:
                return tables.number(text) / 1000
            return tables.seconds(text)
        except ValueError as error:
            raise ValueError(f"the {role} {text!r} is no time") from error

    start = moment("start", -first_frame)
    if "end" in columns.names and texts["end"]:
        return start, moment("end", 1 - first_frame)
    if "duration" in columns.names and texts["duration"]:
        return start, start + moment("duration")
    raise ValueError("has no end")


def _with_unit(role: str) -> tuple[str, str]:
    """Returns the role and unit of a user's "start", "start_frame" or
    "end_ms"."""
    name, _, unit = role.partition("_")
    if name not in ROLES or unit and (name not in _TIMES
                                      or unit not in _UNITS):
        raise InputError(f"--columns: {role}: the columns are "
                         f"{', '.join(ROLES)}; times also with a unit, as "
                         "start_frame or start_ms")
    return name, _UNITS[unit] if unit else ""


def _columns(names: list[str], chosen: Mapping[tuple[str, str], str]
             ) -> _Columns:
    """Returns the columns of the roles, those that the user chose first."""
    given = {role: (column, unit) for (role, unit), column in chosen.items()}
    ranks: dict[str, tuple[int, int, str, str]] = {}
    for name in names:
        words = re.findall(r"[^\W\d_]+", re.sub(
            r"([a-z])([A-Z])", r"\1 \2", str(name)).lower())
        units = {_UNITS[word] for word in words if word in _UNITS}
        unit = next((one for one in _ORDER if one in units), "")
        plain = " ".join(word for word in words
                         if word not in _UNITS and word not in _WORDS)
        for role, known in ROLES.items():
            column, its_unit = given.get(role, ("", ""))
            if column == name if column else plain in known:
                rank = (0 if column else known.index(plain),
                        _ORDER.index(unit), name, its_unit or unit)
                ranks[role] = min(rank, ranks.get(role, rank))
    return _Columns({role: rank[2:] for role, rank in ranks.items()})


def _json_rows(content: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (number, row) of a list of objects, or of {video: rows}."""
    if isinstance(content, list):
        for number, row in enumerate(content):
            if isinstance(row, dict):
                yield number, _with_times(row)
    elif isinstance(content, dict):
        number = 0
        for video, value in content.items():
            is_list = video in _LISTS and isinstance(value, list)
            if isinstance(value, dict):
                value = next((value[key] for key in _LISTS
                              if isinstance(value.get(key), list)), None)
            if not isinstance(value, list) or not all(
                    isinstance(row, dict) and (is_list or "video" not in row)
                    for row in value):
                continue  # the key is not the name of a video
            for row in value or [{}]:
                yield number, _with_times(
                    row if is_list else {"video": video, **row})
                number += 1


def _with_times(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row of JSON with start and end in place of their pair."""
    for key in _PAIRS:
        if isinstance(pair := row.get(key), list) and len(pair) == 2:
            return row | dict(zip(("start", "end"), pair, strict=True))
    return row


def write(recordings: Sequence[Recording], folder: Path) -> dict[str, str]:
    """Returns a table with a header for each video."""
    return {f"{one.video_id}.csv": _table(one) for one in recordings}


def _table(recording: Recording) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, start, end in recording.timed():
        writer.writerow((recording.video_id, row["label"],
                         f"{row['score']:.6f}", f"{start / 1000:.3f}",
                         f"{end / 1000:.3f}", row["start_frame"],
                         row["end_frame"]))
    return text.getvalue()
