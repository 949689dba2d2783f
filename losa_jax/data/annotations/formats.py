"""Reads the public layouts of annotation files into one.

Each reader returns the "database" object of the ActivityNet layout:
{video id: {"subset", "duration", "fps", "annotations": [{"label",
"segment"}]}}; `load.load_annotations` checks it.

    ActivityNet, ActionFormer, OpenTAD, TadTR   one JSON file
    BMN           anet_anno_action.json,video_info_new.csv
    mmaction2     anet_anno_train.json: the file's name tells the subset
    AFSD          val_Annotation.csv,val_video_info.csv
    THUMOS-14     the folder of <Class>_val.txt or <Class>_test.txt
    flat JSON     {video id: {"subset", "duration", "annotations", ...}}
    MultiTHUMOS, Charades   with the list of their classes: `numbered_classes`
    EPIC-KITCHENS-100, EPIC-SOUNDS   with other tables: `epic`
    Ego4D         moments_train.json,moments_val.json: `ego4d`
    TFDS          the folder that `losa_jax.data.build` wrote

Files are separated by commas.
"""

import contextlib
import logging
import math
import os
import re
from pathlib import Path
from typing import Any

from losa_jax.data.annotations import (
    data_set_index,
    ego4d,
    epic,
    numbered_classes,
    other_files,
)
from losa_jax.data.annotations.tables import read_table, subset_by_name
from losa_jax.errors import InputError, listed
from losa_jax.utils.text_files import nfc, read_json, read_lines, read_text

logger = logging.getLogger(__name__)

# Some files have this before ActivityNet's video ids.
YOUTUBE_PREFIX = "v_"
# The subset of mmaction2's videos where the file's name tells none.
_NO_SUBSET = "all"


def read_database(paths: str | Path) -> dict[str, Any]:
    """Reads a file, several files separated by commas, or a folder;
    InputError if one is missing or they are in none of the layouts."""
    # A name that has commas itself is one file.
    files = [Path(paths)] if os.path.exists(paths) else [
        Path(part.strip()) for part in str(paths).split(",")]
    for one in files:
        if not one.exists():
            raise InputError(f"{one}: no such annotation file: check the "
                             "path, which is relative to the current folder")
        if files.count(one) > 1:
            raise InputError(f"{one}: is given twice: give each file once")
    # Lists of classes may stand anywhere.
    path, *others = sorted(files, key=lambda one: one.suffix == ".txt")
    if path.is_dir():
        if data_set_index.data_sets(path):
            return data_set_index.database(
                data_set_index.read_index(data_set_index.find_data_set(path)))
        return _read_thumos_folder(path)
    if path.suffix.lower() == ".csv":
        database = _read_tables(path, others)
        if database is not None:
            return database
    text = read_text(path)
    if not text.lstrip().startswith(("{", "[")):
        raise _unknown_layout(path, text)
    content = read_json(path)
    entries = [one for one in content.values() if isinstance(one, dict)
               ] if isinstance(content, dict) else []
    lists = [one["actions"] for one in entries
             if "subset" in one and "actions" in one]
    if lists and (others or any(
            isinstance(actions, list) and actions
            and isinstance(actions[0], list) for actions in lists)):
        return numbered_classes.read_super_events(path, content, others)
    if isinstance(content, dict) and "videos" in content and (
            "database" not in content):
        return ego4d.read_moments([path, *others], content)
    if others:
        table = _only(path, others)
        if table.suffix.lower() != ".csv":
            raise InputError(
                f"{path}: has no actions with numbers for classes, so "
                f"{table.name} beside it has no use: leave it out "
                "(--config.data.class_names=FILE sets the order of classes)")
        return _read_bmn(path, content, table)
    if isinstance(content, dict):
        if isinstance(content.get("database"), dict):
            return content["database"]
        if any("subset" in one for one in entries):
            for entry in entries:  # THUMOS files may have frames
                with contextlib.suppress(KeyError, TypeError,
                                         ZeroDivisionError):
                    entry.setdefault("fps",
                                     entry["frames"] / entry["duration"])
            return content
        if any("duration_second" in one and "annotations" in one
               for one in entries):
            return _read_mmaction(path, content)
    raise _unknown_layout(path, text, content)


def _read_tables(path: Path, others: list[Path]) -> dict[str, Any] | None:
    """Reads tables; None if the first one is of no known layout."""
    if any(epic.is_table(one) for one in (path, *others)
           if one.suffix.lower() == ".csv"):
        return epic.read_epic([path, *others])
    text = read_text(path)
    if not text.strip():
        raise _unknown_layout(path, text)
    columns = set(other_files.columns(text))
    if columns >= {"id", "actions"}:
        tables = [path, *(one for one in others if one.suffix == ".csv")]
        return numbered_classes.read_charades(
            tables, [one for one in others if one not in tables])
    if others or columns >= {"type", "startFrame"}:
        return _read_afsd(path, _only(path, others) if others else None)
    return None


def _only(path: Path, others: list[Path]) -> Path:
    """Returns the one other file of a pair."""
    if len(others) > 1:
        raise InputError(f"{path}: takes one file behind it, not "
                         f"{', '.join(map(str, others))}")
    return others[0]


def _unknown_layout(path: Path, text: str, content: Any = None) -> InputError:
    near = [name for name in content if re.fullmatch(
        "(?i)data_?bases?", name)] if isinstance(content, dict) else []
    if near:
        return InputError(f"{path}: has no object \"database\" of videos but "
                          f"{near[0]!r}: rename the key, or make it an object")
    return InputError(
        f"{path}: {other_files.describe(path, text, content)}")


def read_ambiguous(path: str | Path) -> dict[str, list[tuple[float, float]]]:
    """Reads ambiguous segments of THUMOS-14 in seconds, by video; InputError
    for a missing file or a line that is not `video start end`."""
    segments: dict[str, list[tuple[float, float]]] = {}
    for video_id, start, end in _read_segments(Path(path)):
        if not 0 <= start <= end < math.inf:
            raise InputError(f"{path}: {video_id}: the segment [{start}, "
                             f"{end}] is not start and end in seconds")
        segments.setdefault(video_id, []).append((start, end))
    return segments


def _as_entry(entry: dict[str, Any], **known: Any) -> dict[str, Any]:
    """Returns an entry of BMN or mmaction2 under the keys of ActivityNet."""
    others = {key: value for key, value in entry.items() if key not in (
        "duration_second", "duration_frame", "feature_frame", "rfps")}
    return {**others, "duration": entry.get("duration_second"),
            **known}


def _add(database: dict[str, Any], name: str, entry: dict[str, Any],
         where: str) -> None:
    if name in database:
        raise InputError(f"{where}: the video {name} is there twice: remove "
                         "one of its rows")
    database[name] = entry


def _read_mmaction(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Reads one of mmaction2's files, which have one subset each."""
    subset = subset_by_name(path) or _NO_SUBSET
    if subset == _NO_SUBSET:
        logger.warning(
            "%s: has no subsets, and its name has none of train, val, test: "
            "all its videos are of the subset %r. BMN's table has subsets: "
            "anet_anno_action.json,video_info_new.csv", path, _NO_SUBSET)
    database: dict[str, Any] = {}
    for name, entry in content.items():
        if isinstance(entry, dict):
            entry = _as_entry(entry, subset=subset)
        _add(database, name.removeprefix(YOUTUBE_PREFIX), entry, str(path))
    return database


def _read_bmn(path: Path, content: Any, info: Path) -> dict[str, Any]:
    """Reads BMN's pair: only the table has the subsets."""
    database: dict[str, Any] = {}
    without_row = set(content) if isinstance(content, dict) else set()
    for where, row in read_table(info, ("video", "subset"),
                                  ("seconds", "fps")):
        name = row["video"]
        entry = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entry, dict):
            raise InputError(f"{where}: {name} has no annotations: give the "
                             "two files of one data set")
        without_row.discard(name)
        _add(database, name.removeprefix(YOUTUBE_PREFIX), _as_entry(
            {"duration_second": row["seconds"], **entry},
            subset=row["subset"], fps=row["fps"]), where)
    if without_row:
        logger.warning("%s: %d videos are not in %s and are left out:%s", path,
                       len(without_row), info, listed(sorted(without_row), 5))
    return database


def _read_afsd(path: Path, info: Path | None) -> dict[str, Any]:
    """Reads AFSD's two tables of one subset."""
    if info is None:
        raise InputError(f"{path}: AFSD's annotations need their table of "
                         "videos too: val_Annotation.csv,val_video_info.csv")
    subset = "validation" if path.name.lower().startswith("val") else "test"
    database: dict[str, Any] = {}
    for where, row in read_table(info, ("video",), ("fps", "count")):
        if row["fps"] <= 0:
            raise InputError(f"{where}: fps={row['fps']:g} is not positive")
        _add(database, row["video"], {
            "subset": subset, "fps": row["fps"],
            "duration": row["count"] / row["fps"], "annotations": []}, where)
    for where, row in read_table(path, ("video", "type"), ("start", "end")):
        if row["video"] not in database:
            raise InputError(f"{where}: {row['video']} is not in {info}: give "
                             "the two files of one subset")
        database[row["video"]]["annotations"].append({
            "label": row["type"], "segment": [row["start"], row["end"]]})
    return database


def _read_thumos_folder(folder: Path) -> dict[str, Any]:
    """Reads one file a class; videos with Ambiguous segments only are kept."""
    database: dict[str, Any] = {}
    others = []
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(r"(?i)(.+)_(val|test)\.txt", path.name)
        if match is None:
            others.append(path.name)
            continue
        label = nfc(match[1])
        subset = "validation" if match[2].lower() == "val" else "test"
        for video_id, *segment in _read_segments(path):
            entry = database.setdefault(video_id, {
                "subset": subset, "annotations": []})
            if entry["subset"] != subset:
                raise InputError(f"{path}: the video {video_id} is in files "
                                 "of _val and of _test: correct one of them")
            if label != "Ambiguous":
                entry["annotations"].append(
                    {"label": label, "segment": segment})
    if not database:
        raise InputError(f"{folder}: no <Class>_val.txt or <Class>_test.txt "
                         "in it: give the folder of THUMOS' annotations, or "
                         "the file of the annotations. Files of annotation "
                         "tools are converted: "
                         f"{other_files.convert_command(folder)}")
    if others:
        logger.warning("%s: not read, for their names are not <Class>_val.txt "
                       "or <Class>_test.txt:%s", folder, listed(others, 5))
    return database


def _read_segments(path: Path) -> list[tuple[str, float, float]]:
    segments = []
    for number, line in read_lines(path):
        try:
            video_id, start, end = line.rsplit(maxsplit=2)
            segments.append((video_id, float(start), float(end)))
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {line!r} is not `video "
                             "start end`") from error
    return segments
