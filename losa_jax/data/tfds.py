"""Writes and reads TensorFlow Datasets sets of videos, without TensorFlow.

(`tfds.core.GeneratorBasedBuilder` would import it to sort sets above 1 GB.)
"""

import contextlib
import functools
import io
import math
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format  # type: ignore[import-untyped]
from tensorflow_datasets.core.writer import ExampleWriter
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from losa_jax.data.annotations.data_set_index import find_data_set, read_index
from losa_jax.data.features.tap_cache import split_shards
from losa_jax.data.records import AnnotatedVideo, EncodedVideo, VideoInfo
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.errors import InputError
from losa_jax.utils.text_files import read_json

_REMEDY = "build the data set again"
# A protocol buffer holds less than 2 GiB.
MAX_EMBEDDED_BYTES = 2**31 - 2**20

Entry = Mapping[str, Any]  # of `losa_jax.data.annotations.data_set_index`

# The texts that TFDS keeps with a data set.
SETS: dict[str, dict[str, str]] = {
    "thumos14": {
        "description": "Untrimmed sports videos with the times of 20 actions: "
        "THUMOS-14's validation set, on which one trains, and its test set.",
        "homepage": "https://www.crcv.ucf.edu/THUMOS14/",
        "citation": "@misc{THUMOS14, title={{THUMOS} Challenge: Action "
        "Recognition with a Large Number of Classes}, author={Jiang, Y.-G. "
        "and others}, howpublished={http://crcv.ucf.edu/THUMOS14/}, "
        "year={2014}}"},
    "activitynet": {
        "description": "Untrimmed videos of the net with the times of 200 "
        "activities: ActivityNet 1.3.",
        "homepage": "http://activity-net.org/",
        "citation": "@inproceedings{caba2015activitynet, "
        "title={{ActivityNet}: A Large-Scale Video Benchmark for Human "
        "Activity Understanding}, author={Caba Heilbron, Fabian and others}, "
        "booktitle={CVPR}, year={2015}}"},
    "custom": {
        "description": "Untrimmed videos with the times of actions in them."},
}


class VideoBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Builds one of `SETS` in data_dir/<name>/<version>."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, name: str, *, index: Mapping[str, Any],
                 video_folder: Path, shard_bytes: float, data_dir: Path):
        """Takes a key of `SETS`, and the index (`annotations.data_set_index`)
        to store beside the records."""
        self.name = name
        self._index = index
        self._video_folder = video_folder
        self._shards = {
            split: split_shards(entries, [entry["bytes"] for entry in entries],
                                shard_bytes)
            for split, entries in index["videos"].items()}
        super().__init__(data_dir=data_dir, file_format="array_record")

    def write(self, beam_runner: str | None = None, beam_options: Any = None
              ) -> None:
        """Writes the set atomically; InputError if a video changed meanwhile
        or the disk is full."""
        # A killed process leaves its temporary folder behind.
        for folder in self.data_path.parent.glob(
                f"incomplete.*_{self.data_path.name}"):
            folder.rmtree()
        try:
            # TFDS announces every shard as a download.
            with (tempfile.TemporaryDirectory() as downloads,
                  contextlib.redirect_stdout(io.StringIO())):
                self.download_and_prepare(
                    download_dir=downloads,
                    download_config=tfds.download.DownloadConfig(
                        beam_runner=beam_runner, beam_options=beam_options))
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{self.data_dir}: cannot be written ({error}): make room "
                "and start the same command again") from error

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=features(self._index["class_names"]),
            metadata=tfds.core.MetadataDict(self._index), **SETS[self.name])

    def _shard_iterators_per_split(self, dl_manager: Any
                                   ) -> dict[str, list[Any]]:
        return {split: [functools.partial(
                    examples, shard, self._video_folder,
                    self._index["embedded"], f"{split} {number}/{len(shards)}")
                        for number, shard in enumerate(shards, 1)]
                for split, shards in self._shards.items()}

    def _download_and_prepare(self, **arguments: Any) -> None:
        super()._download_and_prepare(**arguments)
        # TFDS 4.9 sorts the lengths of Beam's shards as text: 0, 1, 10, 2.
        self.info.set_splits(tfds.core.splits.SplitDict([
            info.replace(shard_lengths=list(map(len, self._shards[split])))
            for split, info in self.info.splits.items()]))
        for path in self.data_path.glob("*.shard_infos.json"):
            path.unlink()

    def _example_writer(self) -> Any:
        return _DeterministicWriter(self.info.file_format)


class _DeterministicWriter(ExampleWriter):
    """Writes equal records as equal bytes: their fields are a protocol
    buffer's map, whose order differs between processes."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, (
            (key, tf_example_pb2.Example.FromString(record)
             .SerializeToString(deterministic=True))
            for key, record in examples))


def features(class_names: Sequence[str]) -> tfds.features.FeaturesDict:
    """Returns the features of a record; an unknown number is NaN."""
    # A protocol buffer's own floats have 32 bits, so float64 is kept as bytes.
    exact = tfds.features.Tensor(
        shape=(), dtype=np.float64, encoding=tfds.features.Encoding.BYTES)
    whole = tfds.features.Scalar(np.int64)
    return tfds.features.FeaturesDict({
        "video_id": tfds.features.Text(),
        # The content of the file; empty where only its path is stored.
        "video": tfds.features.Scalar(np.object_),
        "path": tfds.features.Text(),
        # The fields of `losa_jax.data.records.VideoInfo`.
        "fps": exact, "frame_count": whole, "duration_seconds": exact,
        "height": whole, "width": whole,
        "first_seconds": exact, "last_seconds": exact,
        "is_timed": tfds.features.Scalar(np.bool_),
        "lead_frames": whole, "is_seekable": tfds.features.Scalar(np.bool_),
        # As in the annotation file.
        "annotated_fps": exact, "annotated_duration_seconds": exact,
        "actions": tfds.features.Sequence({
            "start_seconds": exact, "end_seconds": exact,
            "label": tfds.features.ClassLabel(names=list(class_names))}),
    })


def examples(entries: Sequence[Entry], video_folder: Path, embedded: bool,
             shard_name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the video id and the record of each video of a shard; InputError
    if a file is missing, has changed, or is too large to embed."""
    for entry in tqdm(entries, desc=shard_name, unit="video", leave=False,
                      disable=None):
        path = video_folder / entry["file"]
        probed, annotated = entry["probed"], entry["annotated"]
        yield entry["video_id"], {
            **probed,
            "last_seconds": _number(probed["last_seconds"]),
            "video_id": entry["video_id"],
            "video": _content(path, entry["bytes"]) if embedded else b"",
            "path": entry["file"],
            "annotated_fps": _number(annotated["fps"]),
            "annotated_duration_seconds": _number(annotated["duration"]),
            "actions": [
                {"start_seconds": action["segment"][0],
                 "end_seconds": action["segment"][1],
                 "label": action["label"]}
                for action in annotated["annotations"]]}


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _content(path: Path, num_bytes: int) -> bytes:
    if num_bytes > MAX_EMBEDDED_BYTES:
        raise InputError(f"{path}: {num_bytes / 2**30:.1f} GiB are too many "
                         "for one record (2 at most): build with --paths")
    content = path.read_bytes() if path.is_file() else b""
    if len(content) != num_bytes:
        raise InputError(f"{path}: has {len(content)} bytes and had "
                         f"{num_bytes} when it was probed: start again when "
                         "nothing writes to it")
    return content


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
