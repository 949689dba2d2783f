"""Reads videos from a TFDS data set that `losa_jax.data.build` wrote."""

import threading
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf import json_format  # type: ignore[import-untyped]

from losa_jax.data.annotations.data_set_index import find_data_set, read_index
from losa_jax.data.records import AnnotatedVideo, EncodedVideo, VideoInfo
from losa_jax.data.tfds.builder import features
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.errors import InputError
from losa_jax.utils.text_files import read_json

_REMEDY = "build the data set again"


class StoredVideos:
    """The videos of a data set."""

    def __init__(self, folder: str | Path):
        """Opens --output of `losa_jax.data.build`, or the set in it;
        InputError without a finished one, or if it could run code."""
        self.path = find_data_set(folder)
        index = read_index(self.path)
        self.embedded: bool = index["embedded"]
        self.class_names: tuple[str, ...] = tuple(index["class_names"])
        self._left_out: dict[str, str] = index["left_out"]
        self._places = {
            entry["video_id"]: (split, number, entry)
            for split, entries in index["videos"].items()
            for number, entry in enumerate(entries)}
        features_path = self.path / "features.json"
        # TFDS could import code that the file names.
        if read_json(features_path, _REMEDY) != json_format.MessageToDict(
                features(self.class_names).to_proto()):
            raise InputError(f"{features_path}: is not as this version of "
                             "`losa_jax.data.build` writes it and could run "
                             f"code of others: {_REMEDY}")
        builder = tfds.builder_from_directory(self.path)
        self._lock = threading.Lock()
        self._records: dict[str, Any] = {
            split: builder.as_data_source(split) for split in index["videos"]}

    def info_of(self, video: AnnotatedVideo) -> VideoInfo:
        """Returns the result of the build's probe; InputError if the video is
        missing or has changed."""
        if video.video_id not in self._places:
            raise InputError(self._left_out.get(
                video.video_id, f"is not in {self.path}"))
        _, _, entry = self._places[video.video_id]
        path = self.path / entry["file"]
        if not self.embedded and not (
                path.is_file() and path.stat().st_size == entry["bytes"]):
            raise InputError(f"{path}: is missing or has another size than "
                             f"when the data set was built: {_REMEDY}")
        return VideoInfo(path=path, **entry["probed"])

    def read(self, video_id: str) -> EncodedVideo:
        """Returns the bytes of an embedded video; VideoDecodeError if its
        record is damaged."""
        split, number, _ = self._places[video_id]
        name = f"{self.path}: {video_id}"
        try:
            with self._lock:
                record = self._records[split][number]
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise VideoDecodeError(
                f"{name}: cannot be read ({error}): {_REMEDY}") from error
        if record["video_id"] != video_id.encode():
            raise VideoDecodeError(f"{name}: record {number} of {split} is "
                                   f"of another video: {_REMEDY}")
        return EncodedVideo(name, record["video"])
