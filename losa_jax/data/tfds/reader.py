"""Videos from a TFDS data set that `losa_jax.data.build` wrote.

Facts and annotations come from its index; the bytes of a video are read by
`tfds.data_source` when one of its windows is decoded.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from losa_jax.data.annotations.data_set_index import (
    find_data_set,
    probed_info,
    read_index,
)
from losa_jax.data.records import (
    AnnotatedVideo,
    BrokenVideo,
    EncodedVideo,
    VideoInfo,
)
from losa_jax.data.video.check import REPORT, compare, report_broken
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.errors import InputError

FEATURES_FILE = "features.json"


def _refuse_foreign_classes(path: Path) -> None:
    """TFDS imports the module of every class that this file names."""
    def names(node: Any) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else (
                enumerate(node) if isinstance(node, list) else ()):
            if key == "pythonClassName":
                yield str(value)
            else:
                yield from names(value)

    try:
        foreign = [name for name in names(json.loads(path.read_bytes()))
                   if not name.startswith("tensorflow_datasets.")]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}): build the data "
                         "set anew") from error
    if foreign:
        raise InputError(f"{path} asks for code of {', '.join(foreign)}: "
                         "refused; get the data set from its makers")


class StoredVideos:
    """The videos of a data set."""

    def __init__(self, folder: str | Path):
        """
        Args:
          folder: --output of `losa_jax.data.build`, or the set in it.

        Raises:
          InputError: no finished data set, or one that could run code.
        """
        self.path = find_data_set(folder)
        index = read_index(self.path)
        self.embedded: bool = index["embedded"]
        self.class_names: tuple[str, ...] = tuple(index["class_names"])
        self._left_out: dict[str, str] = index["left_out"]
        self._places = {
            entry["video_id"]: (split, number, entry)
            for split, entries in index["videos"].items()
            for number, entry in enumerate(entries)}
        _refuse_foreign_classes(self.path / FEATURES_FILE)
        self._builder = tfds.builder_from_directory(self.path)
        self._sources: dict[str, Any] = {}
        self._lock = threading.Lock()
        for split, entries in index["videos"].items():
            if self._builder.info.splits[split].num_examples != len(entries):
                raise InputError(f"{self.path}: {split} has another number "
                                 "of records than of videos: build it anew")

    def check(self, videos: Sequence[AnnotatedVideo], on_broken_video: str,
              on_outside: str = "error"
              ) -> tuple[dict[str, VideoInfo], list[BrokenVideo]]:
        """As `check_videos`, of what was probed when the set was built.

        Raises:
          InputError: lists the videos that are not there, under "stop".
        """
        infos, lost = {}, []
        for video in videos:
            try:
                info = self._info(video)
                if on_broken_video != REPORT:
                    compare(video, info, on_outside)
                infos[video.video_id] = info
            except InputError as error:
                lost.append(BrokenVideo(video.video_id, self.path,
                                        str(error)))
        report_broken(lost, len(videos), on_broken_video, bool(infos))
        return infos, lost

    def _info(self, video: AnnotatedVideo) -> VideoInfo:
        if video.video_id not in self._places:
            raise InputError(self._left_out.get(
                video.video_id, f"is not in {self.path}"))
        entry = self._places[video.video_id][2]
        info = probed_info(entry, self.path)
        if not self.embedded:
            size = info.path.stat().st_size if info.path.is_file() else None
            if size != entry["bytes"]:
                raise InputError(
                    f"{info.path}: "
                    + ("is gone" if size is None else "is another file now")
                    + ": build the data set anew")
        return info

    def read(self, video_id: str) -> EncodedVideo:
        """The bytes of an embedded video.

        Raises:
          VideoDecodeError: the record is damaged.
        """
        split, number, _ = self._places[video_id]
        name = f"{self.path}: {video_id}"
        try:
            with self._lock:
                if split not in self._sources:
                    self._sources[split] = self._builder.as_data_source(
                        split)
                record = self._sources[split][number]
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise VideoDecodeError(
                f"{name}: cannot be read ({error}): build the data set anew"
            ) from error
        if record["video_id"] != video_id.encode():
            raise VideoDecodeError(
                f"{name}: record {number} of {split} is of another video: "
                "build the data set anew")
        return EncodedVideo(name, record["video"])
