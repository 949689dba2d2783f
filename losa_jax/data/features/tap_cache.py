"""Features of the frozen backbone on disk: computed once, read ever after.

A folder holds `cache.json` (what the features are, how many shards there
must be) and for each shard `taps-00000.arrayrecord` with one record a view of
a video (the plain one first, then augmented ones)
and `taps-00000.json` with each record's number, checksum and what is known
of the video. A shard's JSON is written last, so a shard without one does not
count. A record is a safetensors blob: `last` [n, u, c] and `taps`
[k, n, u, g, g, c] of the video's n clips, cut from its first sample on; or
`raw_taps`, every patch as the block gave it, neither standardized nor pooled.
"""

import dataclasses
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ml_dtypes
import numpy as np
from array_record.python import array_record_module
from safetensors import deserialize
from safetensors.numpy import save

from losa_jax.data.records import (
    AnnotatedVideo,
    BrokenVideo,
    Video,
    VideoInfo,
    Window,
)
from losa_jax.data.video.check import report_broken
from losa_jax.errors import InputError

INDEX_FILE = "cache.json"
FORMAT_VERSION = 4
_AnyVideo = TypeVar("_AnyVideo", Video, AnnotatedVideo)

_DTYPES = {"F32": np.float32, "F16": np.float16,
           "BF16": ml_dtypes.bfloat16}


def shard_path(folder: Path, shard: int, kind: str) -> Path:
    """Of "arrayrecord" or "json"."""
    return folder / f"taps-{shard:05d}.{kind}"


def write_index(folder: Path, facts: Mapping[str, Any], num_shards: int
                ) -> None:
    """Says what the folder is to hold.

    Raises:
      InputError: it holds features of something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = {"format_version": FORMAT_VERSION, "facts": dict(facts),
             "num_shards": num_shards}
    path = folder / INDEX_FILE
    if path.exists():
        found = _read_json(path)
        if found != index:
            raise InputError(
                f"{folder} holds {_difference(found, index)}: delete it or "
                "choose another --config.data.cache")
        return
    if any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no {INDEX_FILE}: "
                         "choose another --config.data.cache")
    _write_whole(path, json.dumps(index, indent=1).encode())


def is_written(folder: Path, shard: int) -> bool:
    """Whether a shard is complete."""
    return shard_path(folder, shard, "json").exists()


def stored_facts(folder: str | Path) -> dict[str, Any]:
    """What the features of a folder are; empty if there are none."""
    path = Path(folder) / INDEX_FILE
    return _read_json(path).get("facts", {}) if path.is_file() else {}


class ShardWriter:
    """Writes one shard; it counts once `close` has run."""

    def __init__(self, folder: Path, shard: int):
        self._folder, self._shard = folder, shard
        final = shard_path(folder, shard, "arrayrecord")
        self._temporary = final.with_name(f".{final.name}.{os.getpid()}")
        # One record a group: a video is read alone.
        self._writer = array_record_module.ArrayRecordWriter(
            str(self._temporary), "group_size:1,uncompressed")
        self._videos: dict[str, dict] = {}
        self._num_records = 0

    def add(self, video: Video,
            views: Sequence[Mapping[str, np.ndarray]]) -> None:
        """One video's features, the plain view first."""
        checksums = []
        for arrays in views:
            blob = save({name: np.ascontiguousarray(array)
                         for name, array in arrays.items()})
            self._writer.write(blob)
            checksums.append(zlib.crc32(blob))
        self._videos[video.video_id] = {
            "record": self._num_records, "crc32": checksums,
            "info": {**dataclasses.asdict(video.info),
                     "path": str(video.info.path)}}
        self._num_records += len(views)

    def close(self) -> None:
        """Makes the shard count."""
        self._writer.close()
        os.replace(self._temporary,
                   shard_path(self._folder, self._shard, "arrayrecord"))
        _write_whole(shard_path(self._folder, self._shard, "json"),
                     json.dumps(self._videos).encode())

    def abandon(self) -> None:
        """Removes what was begun."""
        if self._writer.is_open():
            self._writer.close()
        self._temporary.unlink(missing_ok=True)


class TapCache:
    """Reads windows from a complete folder."""

    def __init__(self, folder: str | Path, facts: Mapping[str, Any],
                 clip_samples: int):
        """
        Args:
          folder: written by --mode=cache.
          facts: what this run needs the features to be; others may be
            anything.
          clip_samples: samples of a clip.

        Raises:
          InputError: missing, unfinished, or of something else.
        """
        self._folder = Path(folder)
        self._clip_samples = clip_samples
        path = self._folder / INDEX_FILE
        if not path.is_file():
            raise InputError(f"{folder}: no cached features (no "
                             f"{INDEX_FILE}); make them with --mode=cache")
        index = _read_json(path)
        found = index.get("facts", {})
        same = {name: found.get(name) for name in facts} == dict(facts)
        if not same or index.get("format_version") != FORMAT_VERSION:
            wanted = {**index, "format_version": FORMAT_VERSION,
                      "facts": {**found, **facts}}
            raise InputError(
                f"{folder} holds {_difference(index, wanted)}: cache again "
                "into another folder, or set the keys as they were")
        missing = [shard for shard in range(index["num_shards"])
                   if not is_written(self._folder, shard)]
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of {index['num_shards']} shards "
                "are not written yet: run --mode=cache again, it goes on "
                "where it stopped")
        self._places: dict[str, tuple[int, dict]] = {}
        for shard in range(index["num_shards"]):
            for name, entry in _read_json(shard_path(
                    self._folder, shard, "json")).items():
                self._places[name] = shard, entry
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def check(self, videos: Sequence[AnnotatedVideo], on_broken_video: str
              ) -> tuple[dict[str, VideoInfo], list[BrokenVideo]]:
        """As `check_videos`: a video that is not in the cache is missing."""
        infos, lost = {}, []
        for video in videos:
            if video.video_id in self._places:
                entry = self._places[video.video_id][1]["info"]
                infos[video.video_id] = VideoInfo(
                    **{**entry, "path": Path(entry["path"])})
            else:
                lost.append(BrokenVideo(video.video_id, self._folder,
                                        "not among the cached features"))
        report_broken(lost, len(videos), on_broken_video, bool(infos))
        return infos, lost

    def grid(self, info: VideoInfo) -> None:
        """None: the samples are those of the video."""
        return None

    def num_views(self, video: Video) -> int:
        """Of the video, with the plain one."""
        return len(self._places[video.video_id][1]["crc32"])

    def read_windows(self, video: Video, windows: Sequence[Window],
                     view: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """`last` [n, u, c] and `taps` or `raw_taps` [k, n, u, g, g, c].

        Clips that are padding through and through are zero. View 0 is the
        plain one.

        Raises:
          InputError: the record is damaged, or a window does not begin
            with a clip.
        """
        arrays = self._read(video.video_id, view)
        for window in windows:
            if window.first_sample % self._clip_samples:
                raise InputError(
                    f"a window of {video.video_id} begins inside a clip: "
                    "cached features need --config.window.align_to_clips=True")
            yield self._cut(arrays, window.first_sample // self._clip_samples,
                            -(-window.valid_samples // self._clip_samples),
                            window.num_samples)

    def empty_window(self, num_samples: int) -> dict[str, np.ndarray]:
        """As `read_windows` gives them, of zeros."""
        return self._cut(self._read(next(iter(self._places)), 0), 0, 0,
                         num_samples)

    def _cut(self, arrays: Mapping[str, np.ndarray], first: int, count: int,
             num_samples: int) -> dict[str, np.ndarray]:
        """Some clips of a video, with padding to a window's length."""
        padding = num_samples // self._clip_samples - count

        def cut(array: np.ndarray, axis: int) -> np.ndarray:
            array = np.take(array, range(first, first + count), axis)
            pads = [(0, 0)] * array.ndim
            pads[axis] = (0, padding)
            return np.pad(array, pads)

        return {name: cut(array, 0 if name == "last" else 1)
                for name, array in arrays.items()}

    def _read(self, video_id: str, view: int) -> dict[str, np.ndarray]:
        shard, entry = self._places[video_id]
        path = shard_path(self._folder, shard, "arrayrecord")
        try:
            with self._lock:
                if shard not in self._readers:
                    self._readers[shard] = (
                        array_record_module.ArrayRecordReader(str(path)))
                blob = self._readers[shard].read(
                    [entry["record"] + view])[0]
            whole = zlib.crc32(blob) == entry["crc32"][view]
        except (RuntimeError, ValueError, IndexError):  # Riegeli's checks
            whole = False
        if not whole:
            raise InputError(
                f"{path}: the features of {video_id} are damaged: delete "
                f"{shard_path(self._folder, shard, 'json').name} and run "
                "--mode=cache again")
        # safetensors.numpy.load knows no bfloat16.
        return {name: np.frombuffer(
            tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
            for name, tensor in deserialize(blob)}


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The entries that differ, for people."""
    one, two = found.get("facts", {}), wanted["facts"]
    parts = [f"{name}={one.get(name)!r} (asked for {two.get(name)!r})"
             for name in sorted(set(one) | set(two))
             if one.get(name) != two.get(name)]
    return "features with " + ", ".join(parts) if parts else (
        f"features in {found.get('num_shards')} shards of format "
        f"{found.get('format_version')}, asked for "
        f"{wanted['num_shards']} of {wanted['format_version']}")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it and "
                         "run --mode=cache again") from error


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def split_shards(videos: Sequence[_AnyVideo], bytes_of: Mapping[str, float],
                 shard_bytes: float) -> list[list[_AnyVideo]]:
    """Videos in order, in shards of about this size."""
    shards: list[list[_AnyVideo]] = []
    size = shard_bytes
    for video in videos:
        if size >= shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(video)
        size += bytes_of[video.video_id]
    return shards
