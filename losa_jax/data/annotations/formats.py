"""The layouts in which annotations circulate, made into one.

Each reader gives the "database" object of the ActivityNet layout:
{video id: {"subset", "duration", "fps", "annotations": [{"label",
"segment"}]}}; `load.load_annotations` checks it.

    ActivityNet, ActionFormer, OpenTAD, TadTR   one JSON file
    BMN           anet_anno_action.json,video_info_new.csv
    AFSD          val_Annotation.csv,val_video_info.csv
    THUMOS-14     the folder of <Class>_val.txt or <Class>_test.txt
    flat JSON     {video id: {"subset", "duration", "annotations", ...}}
    TFDS          the folder that `losa_jax.data.build` wrote

Two files are given with a comma between them. A new layout is a reader here
and a branch of `read_database`.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import data_set_index
from losa_jax.errors import InputError

# BMN's and others' video ids: ActivityNet's with this before them.
YOUTUBE_PREFIX = "v_"
_THUMOS_SUBSETS = {"val": "validation", "test": "test"}
AMBIGUOUS = "Ambiguous"


def read_database(source: str | Path) -> dict[str, Any]:
    """The database of a file, of two with a comma between, or of a folder.

    Raises:
      InputError: missing, or in none of the layouts.
    """
    first, _, second = str(source).partition(",")
    path, info = Path(first), Path(second) if second else None
    for one in (path, info):
        if one is not None and not one.exists():
            raise InputError(f"{one}: no such annotation file: check the "
                             "path, which counts from the current folder")
    if path.is_dir():
        if data_set_index.is_data_set(path):
            return data_set_index.database(
                data_set_index.read_index(data_set_index.find_data_set(path)))
        return _thumos_text(path)
    if path.suffix == ".csv":
        return _afsd(path, info)
    content = _read_json(path)
    if info is not None:
        return _bmn(content, info)
    if isinstance(content, dict) and isinstance(content.get("database"),
                                                dict):
        return content["database"]
    if _is_flat(content):
        return {video_id: _flat_entry(entry)
                for video_id, entry in content.items()}
    raise InputError(
        f"{path}: has no object \"database\" of videos; the format is in "
        "README, \"Your own videos\". BMN's file needs its table too: "
        "anet_anno_action.json,video_info_new.csv")


def read_ambiguous(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Ambiguous segments of THUMOS-14: `video start end` a line.

    Raises:
      InputError: missing, or a line of another form.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for video_id, start, end in _read_lines(Path(path)):
        found.setdefault(video_id, []).append((start, end))
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON: line {error.lineno}, column "
                         f"{error.colno}: {error.msg}; correct it there"
                         ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error}): save it as "
                         "UTF-8") from error


def _is_flat(content: Any) -> bool:
    return (isinstance(content, dict) and bool(content) and all(
        isinstance(entry, dict) and "annotations" in entry
        and "subset" in entry for entry in content.values()))


def _flat_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """THUMOS files with `frames` beside `duration` say the rate by both."""
    entry = dict(entry)
    duration, frames = entry.get("duration"), entry.get("frames")
    if "fps" not in entry and duration and frames and all(
            isinstance(one, (int, float)) for one in (duration, frames)):
        entry["fps"] = frames / duration
    return entry


def _read_table(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    missing = [name for name in needed if not rows or name not in rows[0]]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; it needs "
                         f"{', '.join(needed)}")
    return rows


def _numbers(path: Path, number: int, row: dict[str, str], *names: str
             ) -> list[float]:
    """Fields of a row (counted from 0, below the head) as numbers."""
    try:
        return [float(row[name]) for name in names]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}, row {number + 2}: "
            f"{', '.join(f'{name}={row[name]!r}' for name in names)}: "
            "numbers are needed") from error


def _bmn(content: Any, info: Path) -> dict[str, Any]:
    """BMN's JSON says no subset: the table does."""
    database: dict[str, Any] = {}
    for number, row in enumerate(_read_table(
            info, ("video", "subset", "seconds", "fps"))):
        name = row["video"]
        entry = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entry, dict):
            raise InputError(f"{info}: {name} is not among the annotations: "
                             "give the two files of one data set")
        seconds, fps = _numbers(info, number, row, "seconds", "fps")
        database[name.removeprefix(YOUTUBE_PREFIX)] = {
            "subset": row["subset"],
            "duration": entry.get("duration_second", seconds),
            "fps": fps,
            "annotations": entry.get("annotations", [])}
    return database


def _afsd(path: Path, info: Path | None) -> dict[str, Any]:
    """AFSD's two tables of one subset."""
    if info is None:
        raise InputError(f"{path}: AFSD's annotations need their table of "
                         "videos too: val_Annotation.csv,val_video_info.csv")
    subset = next((name for key, name in _THUMOS_SUBSETS.items()
                   if path.name.lower().startswith(key)), "test")
    database: dict[str, Any] = {}
    for number, row in enumerate(_read_table(
            info, ("video", "fps", "count"))):
        fps, count = _numbers(info, number, row, "fps", "count")
        if fps <= 0:
            raise InputError(f"{info}, row {number + 2}: fps={fps:g}: give "
                             "the frames a second")
        database[row["video"]] = {
            "subset": subset, "fps": fps, "duration": count / fps,
            "annotations": []}
    for number, row in enumerate(_read_table(
            path, ("video", "type", "start", "end"))):
        if row["video"] not in database:
            raise InputError(f"{path}, row {number + 2}: {row['video']} is "
                             f"not in {info}: give the two files of one "
                             "subset")
        database[row["video"]]["annotations"].append({
            "label": row["type"],
            "segment": _numbers(path, number, row, "start", "end")})
    return database


def _thumos_text(folder: Path) -> dict[str, Any]:
    """One file a class; Ambiguous segments are kept under their name."""
    database: dict[str, Any] = {}
    files = sorted(path for path in folder.glob("*.txt")
                   if re.fullmatch(r".+_(val|test)\.txt", path.name))
    if not files:
        raise InputError(f"{folder}: no <Class>_val.txt or <Class>_test.txt "
                         "in it: name the folder of THUMOS' annotations")
    for path in files:
        label, _, key = path.stem.rpartition("_")
        for video_id, start, end in _read_lines(path):
            entry = database.setdefault(video_id, {
                "subset": _THUMOS_SUBSETS[key], "annotations": []})
            if label != AMBIGUOUS:
                entry["annotations"].append(
                    {"label": label, "segment": [start, end]})
    return database


def _read_lines(path: Path) -> list[tuple[str, float, float]]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})"
                         ) from error
    found = []
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts:
            continue
        try:
            video_id, start, end = parts
            found.append((video_id, float(start), float(end)))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {line!r} is no `video "
                             "start end`") from error
    return found
