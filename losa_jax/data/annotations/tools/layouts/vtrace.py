"""V-TRACE: tables of labels or predictions beside videos, and older JSON."""

import re
from typing import Any

from losa_jax.data.annotations.tools import tables
from losa_jax.data.annotations.tools.content import Content
from losa_jax.data.annotations.tools.file import File
from losa_jax.data.annotations.tools.tables import Row
from losa_jax.utils.text_files import parse_json

TITLE = "V-TRACE"

_META = re.compile(r"#\s*trace-meta:\s*(\{.*\})\s*$")


def recognizes(file: File) -> bool:
    """Whether this is a table with labelId and timestamp, or its JSON."""
    if file.json is not None:
        database = (file.json.get("database")
                    if isinstance(file.json, dict) else None)
        return isinstance(database, dict) and any(
            isinstance(row, dict) and {"time_segment", "frame_segment"}
            & row.keys() for entry in database.values()
            if isinstance(entry, dict)
            and isinstance(entry.get("annotations"), list)
            for row in entry["annotations"])
    return not file.is_archive and tables.read_table(
        _without_meta(file.text), _is_header, 1) is not None


def _is_header(columns: list[str]) -> bool:
    return {"labelId", "timestamp"} <= set(columns)


def _without_meta(text: str) -> str:
    return "\n".join("" if line.startswith("#") else line
                     for line in text.split("\n")).lstrip("\n")


def read(file: File, content: Content) -> None:
    """Reads labels and accepted predictions."""
    if file.json is not None:
        _read_json(file, content)
        return
    meta: dict[str, Any] = {}
    comments = 0
    for line in file.text.split("\n"):
        if not line.startswith("#"):
            break
        comments += 1
        if match := _META.match(line.strip()):
            meta = parse_json(match[1], file.name)
    table = tables.read_table(_without_meta(file.text), _is_header, 1)
    assert table is not None
    is_raw = "review" not in table.columns and "score" in table.columns
    stem = re.sub(r"(?i)\.pred$", "", file.path.stem)
    name = str(meta.get("video") or stem)
    taken = []
    for row in table.rows:
        where = f"{file.path.name}, line {row.line + comments}"
        review = row.get("review").lower()
        if review == "rejected":
            content.remark("predictions that were rejected, left out", where)
        elif not (is_raw or review == "pending" or (
                not review and row.get("source") == "model"
                )) or content.predicted(where):
            taken.append((where, row))
    if is_raw and table.rows and not taken:
        return  # nobody opened the video
    video = content.video(
        name, subset=meta.get("subset"), fps=meta.get("fps"),
        duration_seconds=meta.get("duration"), beside=file.path)
    for where, row in taken:
        _add(row, where, video, content)


def _add(row: Row, where: str, video: tuple[str, ...], content: Content
         ) -> None:
    label = row.get("labelId")
    try:
        start = tables.seconds(row.get("timestamp"))
        score = tables.number(row.get("score")) if row.get("score") else None
        if row.get("type") == "point" or not row.get("endTimestamp"):
            content.point(video, label, start)
        else:
            content.add(video, label, start, tables.seconds(
                row.get("endTimestamp")), where=where, score=score)
    except ValueError as error:
        content.problems.append(f"{where}: {error}")


def _read_json(file: File, content: Content) -> None:
    for name, entry in file.json["database"].items():
        video = content.video(
            name, subset=entry.get("subset"), is_id=True,
            duration_seconds=entry.get("duration"), fps=entry.get("fps"))
        for number, row in enumerate(entry.get("annotations", [])):
            where = f"{file.path.name}, {name}, annotation {number}"
            try:
                if "time_segment" in row or "segment" in row:
                    start, end = map(float, row.get("time_segment")
                                     or row["segment"])
                else:  # from 0, the last included
                    fps = content.fps_of(video, content.videos[video].fps)
                    first, last = row["frame_segment"]
                    start, end = first / fps, (last + 1) / fps
                content.add(video, str(row["label"]), start, end, where=where)
            except (KeyError, TypeError, ValueError) as error:
                content.problems.append(f"{where}: needs label and "
                                        f"time_segment ({error!r})")
