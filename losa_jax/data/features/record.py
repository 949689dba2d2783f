"""What a folder of extracted features is: features.json beside the files.

    {"format_version": 1,
     "facts": {"stride_frames": 4, "clip_frames": 16, "width": 384, ...},
     "videos": {"video_1": {"fps": 30.0, "frame_count": 900, "length": 222}},
     "broken": {"video_2": "reason"}}

Feature i of a video stands for the middle of its clip, frame
i * stride_frames + clip_frames / 2 of a clock of `fps` frames a second: that
of the file, or what it was read at. Several processes write a file each
(features.1.json ...); a reader takes all.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from losa_jax.errors import InputError

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class FeatureRecord:
    """A folder's record.

    Attributes:
      facts: how the features were made, equal for all videos.
      videos: {video id: {"fps", "frame_count", "length"}}, `length` the
        number of features; a video that is listed may have no file yet.
    """

    facts: dict[str, Any]
    videos: dict[str, dict[str, Any]]


def record_path(folder: Path, process_index: int = 0) -> Path:
    """Of the record that a process writes."""
    number = f".{process_index}" if process_index else ""
    return folder / f"features{number}.json"


def read_record(folder: Path) -> FeatureRecord | None:
    """None where there is none.

    Raises:
      InputError: damaged, of another version, or of two extractions.
    """
    facts: dict[str, Any] | None = None
    videos: dict[str, dict[str, Any]] = {}
    for path in [record_path(folder),
                 *sorted(folder.glob("features.[0-9]*.json"))]:
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text())
            version = content["format_version"]
            if version == FORMAT_VERSION:
                videos |= content["videos"]
                different = facts not in (None, content["facts"])
                facts = content["facts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: damaged ({error!r}); delete it and run "
                "--mode=extract again, features that are there stay"
            ) from error
        if version != FORMAT_VERSION:
            raise InputError(f"{path}: format {version}, this program reads "
                             f"{FORMAT_VERSION}: extract again")
        if different:
            raise InputError(f"{path}: of another extraction than the other "
                             "records beside it; keep one of them")
    return None if facts is None else FeatureRecord(facts, videos)


def write_record(folder: Path, facts: Mapping[str, Any],
                 videos: Mapping[str, Mapping[str, Any]],
                 broken: Mapping[str, str], process_index: int) -> None:
    """Whole or not at all; keeps what it said of other videos.

    Raises:
      InputError: the folder holds features that were made otherwise.
    """
    before = read_record(folder)
    if before is not None and before.facts != dict(facts):
        raise InputError(
            f"{folder} holds features made with "
            + ", ".join(f"{name}={before.facts.get(name)!r} (asked for "
                        f"{facts.get(name)!r})"
                        for name in sorted({*before.facts, *facts})
                        if before.facts.get(name) != facts.get(name))
            + ": choose another --output")
    path = record_path(folder, process_index)
    if path.is_file():
        videos = {**json.loads(path.read_text())["videos"], **videos}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps({
        "format_version": FORMAT_VERSION, "facts": dict(facts),
        "videos": videos, "broken": dict(broken)}, indent=1) + "\n")
    os.replace(temporary, path)
