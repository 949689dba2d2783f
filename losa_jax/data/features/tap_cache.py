"""Features of the frozen backbone on disk, computed once.

A folder holds `cache.json` (how the features were made) and for each shard
`taps-NAME.arrayrecord`, with one record for each view of a video (the plain
one first, then augmented ones), and `taps-NAME.json`, with each record's
number, checksum and the video's probe result, which is written last. The name
of a shard depends on its videos, so that commands that add shards at the same
time do not meet. A record is a safetensors blob: `last`
[n, u, c] and `taps` [k, n, u, g, g, c] of the video's n clips, the first of
which starts at its first sample; or `raw_taps`, every patch as the block gave
it. Of overlapping clips each has all of its tokens.
"""

import contextlib
import dataclasses
import hashlib
import json
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
from array_record.python import array_record_module
from safetensors import deserialize
from safetensors.numpy import save

from losa_jax.data.features.files import differences
from losa_jax.data.features.numbers import all_finite
from losa_jax.data.records import AnnotatedVideo, Video, VideoInfo, Window
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import atomic_file, make_folder, write_text
from losa_jax.utils.text_files import read_json

INDEX_FILE = "cache.json"
FORMAT_VERSION = 4
_REMEDY = "delete it and run --mode=cache again"
# Properties of a video that do not depend on how much of it was checked.
_FILE_FACTS = ("fps", "frame_count", "height", "width")
Item = TypeVar("Item")

_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def shard_path(folder: Path, shard: str, suffix: str) -> Path:
    """Returns a path of a shard; suffix "arrayrecord" or "json"."""
    return folder / f"taps-{shard}.{suffix}"


def shard_name(videos: Sequence[Video]) -> str:
    """Returns the name of a shard with these videos."""
    facts = [[video.video_id, video.info.fps, video.info.frame_count]
             for video in videos]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def read_entries(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns {video id: (name of the shard, entry there)} of all complete
    shards of a folder."""
    paths = sorted(folder.glob("taps-*.json"))
    return {name: (path.stem.removeprefix("taps-"), entry) for path in paths
            for name, entry in read_json(path, _REMEDY).items()}


def is_of(entry: Mapping[str, Any], info: VideoInfo) -> bool:
    """Whether features were made from a file of this rate, length and size."""
    return isinstance(then := entry.get("info"), dict) and all(
        then.get(key) == getattr(info, key) for key in _FILE_FACTS)


def remove_shard(folder: Path, shard: str) -> None:
    """Removes a shard, whose videos are then to be encoded again."""
    for suffix in ("json", "arrayrecord"):
        shard_path(folder, shard, suffix).unlink(missing_ok=True)


def write_index(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes what a folder is to hold; InputError if it holds anything else."""
    make_folder(folder)
    index = {"format_version": FORMAT_VERSION, "facts": dict(facts)}
    path = folder / INDEX_FILE
    if not any(folder.iterdir()):
        write_text(path, json.dumps(index, indent=1))
    elif not path.exists():
        raise InputError(f"{folder} is not empty and holds no {INDEX_FILE}. "
                         "Choose another --config.data.cache.")
    elif (stored := _read_index(path)) != index:
        raise InputError(
            f"{folder} holds {_difference(stored, index)}. Delete it or "
            "choose another --config.data.cache.")


def _read_index(path: Path) -> Any:
    index = read_json(path, _REMEDY)
    if isinstance(index, dict) and isinstance(index.get("facts"), dict):
        # Caches from before there was such a key have none.
        index["facts"].setdefault("clip_overlap", 0)
        index.pop("num_shards", None)  # which they had instead
    return index


def count_clips(num_samples: int, clip_samples: int, clip_step: int) -> int:
    """Returns the clips that begin every `clip_step` samples and together
    hold all samples; only the last one may be padded, by less than a step."""
    return 1 + -(-max(0, num_samples - clip_samples) // clip_step)


def stored_facts(folder: str | Path) -> dict[str, Any]:
    """Returns how the features of a folder were made; empty without any."""
    path = Path(folder) / INDEX_FILE
    return (read_json(path, _REMEDY).get("facts", {}) if path.is_file()
            else {})


def write_shard(folder: Path, shard: str, videos: Iterable[
        tuple[Video, Sequence[Mapping[str, np.ndarray]]]]) -> None:
    """Writes videos and the features of their views, the plain one first;
    InputError if these are not finite."""
    entries: dict[str, dict] = {}
    num_records = 0
    with atomic_file(shard_path(folder, shard, "arrayrecord")) as temporary:
        # A group of one record: a video is read alone.
        writer = array_record_module.ArrayRecordWriter(
            str(temporary), "group_size:1,uncompressed")
        try:
            for video, views in videos:
                checksums = []
                for arrays in views:
                    if not all(map(all_finite, arrays.values())):
                        raise InputError(
                            f"{video.video_id}: its features are not finite. "
                            "Set --config.data.cache_dtype=float32, or look "
                            "at the weights and the video.")
                    blob = save({name: np.ascontiguousarray(array)
                                 for name, array in arrays.items()})
                    writer.write(blob)
                    checksums.append(zlib.crc32(blob))
                entries[video.video_id] = {
                    "record": num_records, "crc32": checksums,
                    "info": {**dataclasses.asdict(video.info),
                             "path": str(video.info.path)}}
                num_records += len(views)
            writer.close()
        except RuntimeError as error:  # array_record's for a full disk
            raise OSError(str(error)) from error
        finally:
            with contextlib.suppress(RuntimeError):  # raised above already
                writer.close()
    write_text(shard_path(folder, shard, "json"), json.dumps(entries))


class TapCache:
    """Reads cached features of windows."""

    def __init__(self, folder: str | Path, facts: Mapping[str, Any],
                 clip_samples: int, clip_step: int,
                 taps: Sequence[int] | None = None):
        """Opens a folder that --mode=cache wrote with these facts, and maybe
        more; clips begin every `clip_step` samples. Of the stored taps,
        `taps` are read, None: all. InputError if it is missing or differs."""
        self._folder, self._clip_samples = Path(folder), clip_samples
        self._clip_step, self._taps = clip_step, taps
        path = self._folder / INDEX_FILE
        if not path.is_file():
            raise InputError(f"{folder}: no cached features (no "
                             f"{INDEX_FILE}). Make them with --mode=cache.")
        index = _read_index(path)
        if not isinstance(index, dict) or not isinstance(
                index.get("facts"), dict):
            raise InputError(f"{path}: no index of features: {_REMEDY}")
        wanted = {**index, "format_version": FORMAT_VERSION,
                  "facts": {**index.get("facts", {}), **facts}}
        if index != wanted:
            raise InputError(
                f"{folder} holds {_difference(index, wanted)}. Cache again "
                "into another folder, or set the keys as they were.")
        # The shard of each video, and its entry there.
        self._entries = read_entries(self._folder)
        self._readers: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __contains__(self, video_id: str) -> bool:
        return video_id in self._entries

    def reload(self) -> None:
        """Finds shards that were written since."""
        self._entries = read_entries(self._folder)

    def info_of(self, video: AnnotatedVideo) -> VideoInfo:
        """Returns the properties of a video; InputError if it is missing."""
        if video.video_id not in self._entries:
            raise InputError(
                f"not among the cached features of {self._folder}: set "
                "--config.data.videos, or run --mode=cache, which adds it")
        shard, entry = self._entries[video.video_id]
        try:
            info = entry["info"]
            return VideoInfo(**{**info, "path": Path(info["path"])})
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{shard_path(self._folder, shard, 'json')}: the entry of "
                f"{video.video_id} is damaged: {_REMEDY}") from error

    def check(self, video: AnnotatedVideo) -> VideoInfo:
        """As `info_of`, and reads the features of all views; InputError if
        they are damaged or not finite."""
        info = self.info_of(video)
        for view in range(len(self._entries[video.video_id][1]["crc32"])):
            self._read(video.video_id, view)
        return info

    def grid(self, info: VideoInfo) -> None:
        """None: the samples are those of the video."""

    def num_views(self, video: Video) -> int:
        """Returns the number of views of a video, with the plain one."""
        return len(self._entries[video.video_id][1]["crc32"])

    def read_windows(self, video: Video, windows: Sequence[Window],
                     view: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields `last` [n, u, c] and `taps` or `raw_taps` [k, n, u, g, g, c],
        zero in clips that real samples do not need; InputError if the record is
        damaged. Windows begin with a clip (window.align_to_clips)."""
        arrays = self._read(video.video_id, view)
        for window in windows:
            yield self._select(
                arrays, window.first_sample // self._clip_step,
                count_clips(window.valid_samples, self._clip_samples,
                            self._clip_step), window.num_samples)

    def empty_window(self, num_samples: int) -> dict[str, np.ndarray]:
        """Returns a window of zeros, as `read_windows`."""
        return self._select(self._read(next(iter(self._entries)), 0), 0, 0,
                            num_samples)

    def _select(self, arrays: Mapping[str, np.ndarray], first: int,
                count: int, num_samples: int) -> dict[str, np.ndarray]:
        """Selects clips of a video and pads them to a window's length."""
        selected = {}
        for name, array in arrays.items():
            axis = 0 if name == "last" else 1
            pads = [(0, 0)] * array.ndim
            pads[axis] = 0, num_samples // self._clip_step - count
            clips = range(first, first + count)
            selected[name] = np.pad(
                array[np.ix_(self._taps, clips)]
                if axis and self._taps is not None
                else np.take(array, clips, axis), pads)
        return selected

    def _read(self, video_id: str, view: int) -> dict[str, np.ndarray]:
        shard, entry = self._entries[video_id]
        path = shard_path(self._folder, shard, "arrayrecord")
        try:
            with self._lock:
                if shard not in self._readers:
                    self._readers[shard] = (
                        array_record_module.ArrayRecordReader(str(path)))
                blob, = self._readers[shard].read([entry["record"] + view])
            is_intact = zlib.crc32(blob) == entry["crc32"][view]
        except (RuntimeError, ValueError, IndexError, KeyError, TypeError):
            # Riegeli's checks, or a damaged entry.
            is_intact = False
        if not is_intact:
            raise InputError(
                f"{path}: the features of {video_id} are damaged. Delete "
                f"{shard_path(self._folder, shard, 'json').name} and run "
                "--mode=cache again.")
        # safetensors.numpy.load does not support bfloat16.
        arrays = {name: np.frombuffer(
            tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
            for name, tensor in deserialize(blob)}
        for name, array in arrays.items():
            if not all_finite(array):
                raise InputError(
                    f"{path}: {name} of {video_id} has numbers that are not "
                    "finite. Cache it again, with data.cache_dtype=float32 "
                    "or other weights.")
        return arrays


def _difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return "features with " + differences(*(
        {**index, **index.get("facts", {}), "facts": ""}
        for index in (stored, wanted)))


def split_shards(items: Sequence[Item], num_bytes: Sequence[float],
                 shard_bytes: float) -> list[list[Item]]:
    """Splits items of a number of bytes each, in order, into shards of about
    a size in bytes."""
    shards: list[list[Item]] = []
    size = shard_bytes
    for item, item_bytes in zip(items, num_bytes, strict=True):
        if size >= shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(item)
        size += item_bytes
    return shards
