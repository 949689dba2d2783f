"""The index of a data set of `losa_jax.data.build`, metadata.json.

    {"format_version": 1, "embedded": true, "class_names": [...],
     "left_out": {video id: reason},
     "videos": {split: [entry, in the order of the split's records]}}
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.records import AnnotatedVideo, VideoInfo
from losa_jax.errors import InputError
from losa_jax.utils.text_files import read_json

FORMAT_VERSION = 1
INDEX_FILE = "metadata.json"  # TFDS's name
INFO_FILE = "dataset_info.json"  # TFDS's name


def make_index(splits: Mapping[str, Sequence[AnnotatedVideo]],
               infos: Mapping[str, VideoInfo], broken: Mapping[str, str],
               class_names: Sequence[str], *, embedded: bool
               ) -> dict[str, Any]:
    """Returns the index of the videos that `infos` has; `embedded` tells
    whether the records hold the files, or their paths."""
    videos: dict[str, list[dict]] = {}
    for split, chosen in splits.items():
        for video in (one for one in chosen if one.video_id in infos):
            probed = dataclasses.asdict(infos[video.video_id])
            path = Path(probed.pop("path"))
            videos.setdefault(split, []).append({
                "video_id": video.video_id,
                "file": path.name if embedded else str(path.absolute()),
                "bytes": path.stat().st_size,
                "probed": probed,
                "annotated": {
                    "subset": video.subset,
                    "duration": video.duration_seconds,
                    "fps": video.fps,
                    "annotations": [
                        {"label": action.label,
                         "label_id": class_names.index(action.label),
                         "segment": list(action[:2])}
                        for action in video.actions],
                    **_reviewed(video)}})
    return {"format_version": FORMAT_VERSION, "embedded": embedded,
            "class_names": list(class_names),
            "left_out": dict(broken), "videos": videos}


def _reviewed(video: AnnotatedVideo) -> dict[str, Any]:
    """Returns the keys of a review, which other videos do not have."""
    keys: dict[str, Any] = {}
    if video.reviewed_seconds is not None:
        keys["reviewed"] = [list(one) for one in video.reviewed_seconds]
    if video.hard_negatives:
        keys["rejected"] = [{"label": one.label, "segment": list(one[:2])}
                            for one in video.hard_negatives]
    return keys


def data_sets(folder: Path) -> list[Path]:
    """Returns the folder if it is a data set, else any two levels down."""
    if (folder / INFO_FILE).is_file():
        return [folder]
    # Names of versions; those of TFDS's temporary folders begin with letters.
    return sorted(path.parent for path in folder.glob(f"*/[0-9]*/{INFO_FILE}"))


def find_data_set(folder: str | Path) -> Path:
    """Returns the one data set of a folder, or raises InputError."""
    paths = data_sets(Path(folder))
    if not paths:
        raise InputError(f"{folder}: no finished data set of `python -m "
                         f"losa_jax.data.build` (no {INFO_FILE})")
    if len(paths) > 1:
        raise InputError(f"{folder} holds several data sets: give one of "
                         f"{', '.join(map(str, paths))}")
    return paths[0]


def read_index(data_set: Path) -> dict[str, Any]:
    """Reads the index of a data set; raises InputError for another file."""
    path = data_set / INDEX_FILE
    index = read_json(path, "build the data set again")
    if not isinstance(index, dict) or (
            index.get("format_version") != FORMAT_VERSION):
        raise InputError(f"{path}: not the index of a data set of this "
                         "version: build the data set again")
    return index


def database(index: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the annotations in the layout of `formats`."""
    return {entry["video_id"]: entry["annotated"]
            for entries in index["videos"].values() for entry in entries}
