"""Reads the Moment Queries of Ego4D: clips of videos, their own time from 0.

    {"videos": [{"video_uid", "split", "clips": [{"clip_uid",
     "video_start_sec", "video_end_sec", "video_start_frame",
     "video_end_frame", "annotations": [{"labels": [{"label",
     "video_start_time", "video_end_time", "primary"}]}]}]}]}

in one file, or in moments_train.json,moments_val.json. A clip is a video here,
with the primary labels of all annotators. Clips without one are left out, and
those whose frames and seconds give no rate from 10 to 100 frames a second, as
ActionFormer and OpenTAD do. A list of the 110 classes, with or without numbers,
may follow; without it they are in the order of their names.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losa_jax.data.annotations.tables import read_class_list
from losa_jax.errors import InputError, listed
from losa_jax.utils.names import did_you_mean
from losa_jax.utils.text_files import nfc, read_json

logger = logging.getLogger(__name__)

_SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
_SLOWEST, _FASTEST = 10.0, 100.0  # frames a second of a clip that is used


def read_moments(paths: Sequence[Path], content: dict[str, Any]
                 ) -> dict[str, Any]:
    """Returns the database of files, of which the first one's content is
    given; InputError for an entry that is not of this layout."""
    numbers: dict[str, int] = {}
    database: dict[str, Any] = {}
    odd: list[str] = []
    for path in paths:
        if path.suffix == ".txt":
            numbers = {name: number for number, name in
                       enumerate(read_class_list(path))}
    for place, path in enumerate(paths):
        if path.suffix == ".txt":
            continue
        if place:
            content = read_json(path)
        videos = content.get("videos") if isinstance(content, dict) else None
        if not isinstance(videos, list):
            raise InputError(f"{path}: has no list \"videos\": give "
                             "moments_train.json,moments_val.json of Ego4D")
        for video in videos:
            name = (video.get("video_uid", "?")
                    if isinstance(video, dict) else "?")
            try:
                _add_clips(database, video, numbers, odd)
            except InputError as error:
                raise InputError(f"{path}: the video {name}: {error}"
                                 ) from error
            except (KeyError, TypeError, ValueError, AttributeError,
                    OverflowError) as error:
                raise InputError(
                    f"{path}: the video {name} is not of the layout of Moment "
                    f"Queries ({error!r}): copy the file again") from error
    if odd:
        logger.warning(
            "%s: %d clips are left out, for their frames and seconds give no "
            "rate from 10 to 100 a second:%s", paths[0], len(odd),
            listed(odd, 5))
    if not database:
        raise InputError(
            f"{paths[0]}: no clip has a primary label and from 10 to 100 "
            "frames a second: give moments_train.json, moments_val.json or "
            "both, not the file of the test set")
    return database


def _add_clips(database: dict[str, Any], video: dict[str, Any],
               numbers: dict[str, int], odd: list[str]) -> None:
    subset = _SUBSETS.get(str(video["split"]).lower(), video["split"])
    for clip in video["clips"]:
        start = max(float(clip["video_start_sec"]), 0.0)
        duration = float(clip["video_end_sec"]) - start
        frames = (int(clip["video_end_frame"])
                  - max(int(clip["video_start_frame"]), 0))
        name = nfc(clip["clip_uid"])
        if not duration > 0 or not _SLOWEST <= frames / duration <= _FASTEST:
            odd.append(name)
            continue
        annotations = []
        for annotator in clip.get("annotations", []):
            for row in annotator["labels"]:
                if not row["primary"]:
                    continue
                entry = {"label": row["label"], "segment": [
                    round(row[name] - start, 6) for name in (
                        "video_start_time", "video_end_time")]}
                if numbers:
                    if row["label"] not in numbers:
                        raise InputError(
                            f"the label {row['label']!r} is not in the list "
                            "of classes: give the list of this version"
                            + did_you_mean(str(row["label"]), numbers))
                    entry["label_id"] = numbers[row["label"]]
                annotations.append(entry)
        if not annotations:
            continue
        known = database.setdefault(name, {
            "subset": subset, "duration": duration, "fps": frames / duration,
            "annotations": []})
        if known["subset"] != subset:
            raise InputError(f"the clip {name} is of the subset "
                             f"{known['subset']} too: give the files of one "
                             "version")
        known["annotations"] += [one for one in annotations
                                 if one not in known["annotations"]]
