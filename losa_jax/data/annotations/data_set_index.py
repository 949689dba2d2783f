"""What a data set of `losa_jax.data.build` says of its videos.

TFDS keeps it as metadata.json beside the records, so that annotations and
probed facts are known without reading a single video. JSON keeps every
number exactly.

    {"format_version": 1, "embedded": true, "class_names": [...],
     "plan": {...}, "left_out": {video id: reason},
     "videos": {split: [entry, in the order of the split's records]}}
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.records import AnnotatedVideo, VideoInfo
from losa_jax.errors import InputError

FORMAT_VERSION = 1
INDEX_FILE = "metadata.json"  # TFDS's name
INFO_FILE = "dataset_info.json"  # TFDS's name; written last
PARTS_SUFFIX = ".parts"


def make_entry(video: AnnotatedVideo, info: VideoInfo, num_bytes: int,
               class_names: Sequence[str], *, embedded: bool
               ) -> dict[str, Any]:
    """One video, as it is kept in the index.

    Args:
      num_bytes: of the file.
      class_names: in the order of label_id.
      embedded: the records hold the file; else the path is what counts.
    """
    probed = dataclasses.asdict(info)
    path = Path(probed.pop("path"))
    return {
        "video_id": video.video_id,
        # Where the file once lay is no part of a set that holds it.
        "file": path.name if embedded else str(path.absolute()),
        "bytes": num_bytes,
        "probed": probed,
        "annotated": {
            "subset": video.subset,
            "duration": video.duration_seconds,
            "fps": video.fps,
            "annotations": [
                {"label": action.label,
                 "label_id": class_names.index(action.label),
                 "segment": [action.start_seconds, action.end_seconds]}
                for action in video.actions]}}


def probed_info(entry: Mapping[str, Any], folder: Path) -> VideoInfo:
    """Facts of a video; an embedded one's path is a name in the folder."""
    return VideoInfo(path=folder / entry["file"], **entry["probed"])


def find_data_set(folder: str | Path) -> Path:
    """The folder with dataset_info.json: itself, or one two levels down.

    Raises:
      InputError: none, an unfinished one, or several.
    """
    folder = Path(folder)
    if (folder / INFO_FILE).is_file():
        return folder
    found = sorted(path.parent for path in folder.glob(f"*/*/{INFO_FILE}"))
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{folder} holds several data sets: name one of "
                         f"{', '.join(map(str, found))}")
    unfinished = [*folder.glob(f"*/*{PARTS_SUFFIX}"),
                  *folder.glob(f"*{PARTS_SUFFIX}")]
    if unfinished:
        raise InputError(
            f"{folder}: the data set is not finished: run `python -m "
            "losa_jax.data.build` again, it goes on where it stopped")
    raise InputError(f"{folder}: no data set of `python -m "
                     f"losa_jax.data.build` (no {INFO_FILE})")


def is_data_set(folder: Path) -> bool:
    """Whether a folder is meant as one."""
    return (folder / INFO_FILE).is_file() or any(
        folder.glob(f"*/*/{INFO_FILE}"))


def read_index(data_set: Path) -> dict[str, Any]:
    """The index of a data set, checked.

    Raises:
      InputError: unreadable, or of another tool or version.
    """
    path = data_set / INDEX_FILE
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}): not a data set "
                         "of `python -m losa_jax.data.build`") from error
    if not isinstance(index, dict) or (
            index.get("format_version") != FORMAT_VERSION):
        raise InputError(f"{path}: not the index of a data set of this "
                         "version: build it anew")
    return index


def database(index: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations, in the layout of `formats`."""
    return {entry["video_id"]: entry["annotated"]
            for entries in index["videos"].values() for entry in entries}
