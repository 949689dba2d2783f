"""TensorFlow Datasets builders of videos with actions; no TensorFlow.

Each is built shard by shard (`tfds.core.ShardBasedBuilder`): the records of
a shard are written as they come. `GeneratorBasedBuilder` would put all above
1 GB through files of its shuffle, which needs TensorFlow.

Numbers that must stay exact are kept as the bytes of a float64, since a
protocol buffer's own floats have 32 bits.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from losa_jax.data.annotations.data_set_index import probed_info
from losa_jax.errors import InputError

FILE_FORMAT = "array_record"
# A protocol buffer holds less than 2 GiB.
MAX_EMBEDDED_BYTES = 2**31 - 2**20

Entry = Mapping[str, Any]  # of `losa_jax.data.annotations.data_set_index`


class _Videos(tfds.core.ShardBasedBuilder, skip_registration=True):
    """What the three sets share."""

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = ""
    HOMEPAGE = ""
    CITATION = ""

    def __init__(self, *, index: Mapping[str, Any],
                 shards: Mapping[str, Sequence[Sequence[Entry]]],
                 folder: Path, data_dir: Path):
        """
        Args:
          index: see `losa_jax.data.annotations.data_set_index`; kept beside
            the records.
          shards: the entries of each shard of each split.
          folder: of the video files.
          data_dir: TFDS makes <name>/<version> in it.
        """
        self._index, self._shards, self._folder = index, shards, folder
        super().__init__(data_dir=data_dir, file_format=FILE_FORMAT)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=features(self._index["class_names"]),
            metadata=tfds.core.MetadataDict(self._index),
            description=self.DESCRIPTION, homepage=self.HOMEPAGE or None,
            citation=self.CITATION or None)

    def _shard_iterators_per_split(self, dl_manager: Any
                                   ) -> dict[str, list[Any]]:
        del dl_manager  # nothing is downloaded
        return {split: [functools.partial(
                    examples, entries, self._folder, self._index["embedded"])
                        for entries in shards]
                for split, shards in self._shards.items()}

    def _example_writer(self) -> Any:
        return _SameBytes(super()._example_writer())


class _SameBytes:
    """Writes records of equal content as equal bytes.

    The fields of a record are a protocol buffer's map, which comes in
    another order from every process.
    """

    def __init__(self, writer: Any):
        self._writer = writer
        self.file_format = writer.file_format

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return self._writer.write(path, (
            (key, tf_example_pb2.Example.FromString(record)
             .SerializeToString(deterministic=True))
            for key, record in examples))


class Thumos14(_Videos, skip_registration=True):
    """THUMOS-14, temporal action localization."""

    DESCRIPTION = ("Untrimmed sports videos with the times of 20 actions: "
                   "THUMOS-14's validation set, on which one trains, and its "
                   "test set.")
    HOMEPAGE = "https://www.crcv.ucf.edu/THUMOS14/"
    CITATION = """\
@misc{THUMOS14, title={{THUMOS} Challenge: Action Recognition with a Large
  Number of Classes}, author={Jiang, Y.-G. and Liu, J. and Roshan Zamir, A.
  and Toderici, G. and Laptev, I. and Shah, M. and Sukthankar, R.},
  howpublished={http://crcv.ucf.edu/THUMOS14/}, year={2014}}"""


class Activitynet(_Videos, skip_registration=True):
    """ActivityNet-v1.3."""

    DESCRIPTION = ("Untrimmed videos of the net with the times of 200 "
                   "activities: ActivityNet 1.3.")
    HOMEPAGE = "http://activity-net.org/"
    CITATION = """\
@inproceedings{caba2015activitynet, title={{ActivityNet}: A Large-Scale Video
  Benchmark for Human Activity Understanding}, author={Caba Heilbron, Fabian
  and Escorcia, Victor and Ghanem, Bernard and Niebles, Juan Carlos},
  booktitle={CVPR}, year={2015}}"""


class Custom(_Videos, skip_registration=True):
    """One annotation file and one folder of videos."""

    DESCRIPTION = "Untrimmed videos with the times of actions in them."


BUILDERS = {builder.name: builder
            for builder in (Thumos14, Activitynet, Custom)}


def features(class_names: Sequence[str]) -> tfds.features.FeaturesDict:
    """Of one record; a number that is not known is NaN."""
    exact = tfds.features.Tensor(
        shape=(), dtype=np.float64, encoding=tfds.features.Encoding.BYTES)
    whole = tfds.features.Scalar(np.int64)
    return tfds.features.FeaturesDict({
        "video_id": tfds.features.Text(),
        # The file as it is (mp4, ...); empty where only its path is kept.
        "video": tfds.features.Scalar(np.object_),
        "path": tfds.features.Text(),
        # As probed: the time model is that of `losa_jax.data.video.decode`.
        "fps": exact, "frame_count": whole, "duration_seconds": exact,
        "height": whole, "width": whole,
        "first_seconds": exact, "last_seconds": exact,
        "is_timed": tfds.features.Scalar(np.bool_),
        # As the annotation file says.
        "annotated_fps": exact, "annotated_duration_seconds": exact,
        "actions": tfds.features.Sequence({
            "start_seconds": exact, "end_seconds": exact,
            "label": tfds.features.ClassLabel(names=list(class_names))}),
    })


def examples(entries: Sequence[Entry], folder: Path, embedded: bool
             ) -> Iterator[tuple[str, dict[str, Any]]]:
    """(video id, record) of each video.

    Raises:
      InputError: a file is gone, has changed, or is too large to embed.
    """
    for entry in entries:
        info = probed_info(entry, folder)
        said = entry["annotated"]
        yield entry["video_id"], {
            "video_id": entry["video_id"],
            "video": _content(info.path, entry["bytes"]) if embedded else b"",
            "path": entry["file"],
            "fps": info.fps, "frame_count": info.frame_count,
            "duration_seconds": info.duration_seconds,
            "height": info.height, "width": info.width,
            "first_seconds": info.first_seconds,
            "last_seconds": _known(info.last_seconds),
            "is_timed": info.is_timed,
            "annotated_fps": _known(said["fps"]),
            "annotated_duration_seconds": _known(said["duration"]),
            "actions": [
                {"start_seconds": action["segment"][0],
                 "end_seconds": action["segment"][1],
                 "label": action["label"]}
                for action in said["annotations"]]}


def _known(number: float | None) -> float:
    return math.nan if number is None else number


def _content(path: Path, num_bytes: int) -> bytes:
    if num_bytes > MAX_EMBEDDED_BYTES:
        raise InputError(f"{path}: {num_bytes / 2**30:.1f} GiB are too many "
                         "for one record (2 at most): build with --paths")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})"
                         ) from error
    if len(content) != num_bytes:
        raise InputError(f"{path}: has {len(content)} bytes and had "
                         f"{num_bytes} when it was probed: wait until it is "
                         "whole and start again")
    return content
