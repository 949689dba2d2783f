"""Writes a TensorFlow Datasets set of annotated videos, without TensorFlow.

(`tfds.core.GeneratorBasedBuilder` would import it to sort sets above 1 GB.)
"""

import contextlib
import functools
import io
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.writer import ExampleWriter
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from losa_jax.data.features.tap_cache import split_shards
from losa_jax.errors import InputError

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
