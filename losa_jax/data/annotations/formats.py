"""Reads the public layouts of annotation files into one.

Each reader returns the "database" object of the ActivityNet layout:
{video id: {"subset", "duration", "fps", "annotations": [{"label",
"segment"}]}}; `load.load_annotations` checks it.

    ActivityNet, ActionFormer, OpenTAD, TadTR   one JSON file
    BMN           anet_anno_action.json,video_info_new.csv
    AFSD          val_Annotation.csv,val_video_info.csv
    THUMOS-14     the folder of <Class>_val.txt or <Class>_test.txt
    flat JSON     {video id: {"subset", "duration", "annotations", ...}}
    TFDS          the folder that `losa_jax.data.build` wrote

Two files are separated by a comma.
"""

import contextlib
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import data_set_index
from losa_jax.errors import InputError
from losa_jax.utils.text_files import read_json, read_text

# Some files have this before ActivityNet's video ids.
YOUTUBE_PREFIX = "v_"


def read_database(paths: str | Path) -> dict[str, Any]:
    """Reads a file, two files separated by a comma, or a folder; InputError
    if it is missing or in none of the layouts."""
    first, _, second = str(paths).partition(",")
    path, info = Path(first), Path(second) if second else None
    for one in filter(None, (path, info)):
        if not one.exists():
            raise InputError(f"{one}: no such annotation file: check the "
                             "path, which is relative to the current folder")
    if path.is_dir():
        if data_set_index.data_sets(path):
            return data_set_index.database(
                data_set_index.read_index(data_set_index.find_data_set(path)))
        return _read_thumos_folder(path)
    if path.suffix == ".csv":
        return _read_afsd(path, info)
    content = read_json(path)
    if info is not None:
        return _read_bmn(content, info)
    if isinstance(content, dict):
        if isinstance(content.get("database"), dict):
            return content["database"]
        if content and all(
                isinstance(entry, dict) and entry.keys() >= {
                    "annotations", "subset"} for entry in content.values()):
            for entry in content.values():  # THUMOS files may have frames
                with contextlib.suppress(KeyError, TypeError,
                                         ZeroDivisionError):
                    entry.setdefault("fps",
                                     entry["frames"] / entry["duration"])
            return content
    raise InputError(
        f"{path}: has no object \"database\" of videos; the format is in "
        "docs/videos.md. BMN's file needs its table too: "
        "anet_anno_action.json,video_info_new.csv")


def read_ambiguous(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Reads ambiguous segments of THUMOS-14 in seconds, by video; InputError
    for a missing file or a line that is not `video start end`."""
    segments: dict[str, list[tuple[float, float]]] = {}
    for video_id, start, end in _read_segments(Path(path)):
        segments.setdefault(video_id, []).append((start, end))
    return segments


def _read_table(path: Path, text: tuple[str, ...], numbers: tuple[str, ...]
                ) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields "file, row" and the columns of each row."""
    rows = csv.DictReader(read_text(path).splitlines())
    columns = text + numbers
    missing = [name for name in columns if name not in (rows.fieldnames or ())]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; it needs "
                         f"{', '.join(columns)}")
    for number, row in enumerate(rows, 2):
        where = f"{path}, row {number}"
        try:
            yield where, row | {name: float(row[name]) for name in numbers}
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: " + ", ".join(
                f"{name}={row[name]!r}" for name in numbers)
                + ": numbers are needed") from error


def _read_bmn(content: Any, info: Path) -> dict[str, Any]:
    """Reads BMN's pair: only the table has the subsets."""
    database: dict[str, Any] = {}
    for where, row in _read_table(info, ("video", "subset"),
                                  ("seconds", "fps")):
        name = row["video"]
        entry = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entry, dict):
            raise InputError(f"{where}: {name} has no annotations: give the "
                             "two files of one data set")
        database[name.removeprefix(YOUTUBE_PREFIX)] = {
            "subset": row["subset"],
            "duration": entry.get("duration_second", row["seconds"]),
            "fps": row["fps"],
            "annotations": entry.get("annotations", [])}
    return database


def _read_afsd(path: Path, info: Path | None) -> dict[str, Any]:
    """Reads AFSD's two tables of one subset."""
    if info is None:
        raise InputError(f"{path}: AFSD's annotations need their table of "
                         "videos too: val_Annotation.csv,val_video_info.csv")
    subset = "validation" if path.name.lower().startswith("val") else "test"
    database: dict[str, Any] = {}
    for where, row in _read_table(info, ("video",), ("fps", "count")):
        if row["fps"] <= 0:
            raise InputError(f"{where}: fps={row['fps']:g} is not positive")
        database[row["video"]] = {
            "subset": subset, "fps": row["fps"],
            "duration": row["count"] / row["fps"], "annotations": []}
    for where, row in _read_table(path, ("video", "type"), ("start", "end")):
        if row["video"] not in database:
            raise InputError(f"{where}: {row['video']} is not in {info}: give "
                             "the two files of one subset")
        database[row["video"]]["annotations"].append({
            "label": row["type"], "segment": [row["start"], row["end"]]})
    return database


def _read_thumos_folder(folder: Path) -> dict[str, Any]:
    """Reads one file a class; videos with Ambiguous segments only are kept."""
    database: dict[str, Any] = {}
    for path in sorted(folder.glob("*.txt")):
        match = re.fullmatch(r"(.+)_(val|test)\.txt", path.name)
        if match is None:
            continue
        label, subset = match.groups()
        for video_id, *segment in _read_segments(path):
            entry = database.setdefault(video_id, {
                "subset": "validation" if subset == "val" else "test",
                "annotations": []})
            if label != "Ambiguous":
                entry["annotations"].append(
                    {"label": label, "segment": segment})
    if not database:
        raise InputError(f"{folder}: no <Class>_val.txt or <Class>_test.txt "
                         "in it: give the folder of THUMOS' annotations")
    return database


def _read_segments(path: Path) -> list[tuple[str, float, float]]:
    segments = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            if line.strip():
                video_id, start, end = line.split()
                segments.append((video_id, float(start), float(end)))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {line!r} is not `video "
                             "start end`") from error
    return segments
