"""How a folder of extracted features was made: features.json beside the files.

    {"format_version": 1,
     "facts": {"stride_frames": 4, "clip_frames": 16, "width": 384, ...},
     "videos": {"video_1": {"fps": 30.0, "frame_count": 900, "length": 222}},
     "broken": {"video_2": "reason"}}

Feature i of a video stands for the middle of its clip, frame
i * stride_frames + clip_frames / 2 at `fps` frames per second. Each process
writes a file of its own (features.1.json ...); a reader takes all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.text_files import read_json

FORMAT_VERSION = 1
_REMEDY = "delete it and run --mode=extract again; finished features stay"


class FeatureRecord(NamedTuple):
    """The record of a folder; a listed video may have no file yet."""

    facts: dict[str, Any]
    # {video id: {"fps", "frame_count", "length": the number of features}}
    videos: dict[str, dict[str, Any]]


def record_path(folder: Path, process_index: int = 0) -> Path:
    """Returns the path of the record that a process writes."""
    number = f".{process_index}" if process_index else ""
    return folder / f"features{number}.json"


def read_record(folder: Path) -> FeatureRecord | None:
    """Reads the records of a folder, None without any; InputError if they are
    damaged, of another version, or of two extractions."""
    record: FeatureRecord | None = None
    for path in [*folder.glob(record_path(folder).name),
                 *sorted(folder.glob("features.[0-9]*.json"))]:
        content = read_json(path, _REMEDY)
        if not isinstance(content, dict) or (
                content.get("format_version") != FORMAT_VERSION):
            raise InputError(f"{path}: no record of this version: {_REMEDY}")
        record = record or FeatureRecord(content["facts"], {})
        if record.facts != content["facts"]:
            raise InputError(f"{path}: of another extraction than the other "
                             "records beside it. Keep one of them.")
        record.videos.update(content["videos"])
    return record


def write_record(folder: Path, facts: Mapping[str, Any],
                 videos: Mapping[str, Mapping[str, Any]],
                 broken: Mapping[str, str], process_index: int) -> None:
    """Writes the record of a process and keeps its other videos; InputError
    if the folder holds features that were made with other facts."""
    before = read_record(folder)
    if before is not None and before.facts != dict(facts):
        raise InputError(
            f"{folder} holds features made with "
            f"{differences(before.facts, facts)}. Choose another "
            "--output.")
    path = record_path(folder, process_index)
    if path.is_file():
        videos = {**json.loads(path.read_text())["videos"], **videos}
    write_text(path, json.dumps({
        "format_version": FORMAT_VERSION, "facts": dict(facts),
        "videos": videos, "broken": dict(broken)}, indent=1) + "\n")


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns "name=1 (asked for 2), ..." of the entries that differ."""
    return ", ".join(
        f"{name}={stored.get(name)!r} (asked for {wanted.get(name)!r})"
        for name in sorted({*stored, *wanted})
        if stored.get(name) != wanted.get(name))
