"""Features of other tools, or of --mode=extract: a .npy or .npz file a video.

Frame rate and duration come from the annotations, or from the record that
--mode=extract writes beside its files, features.json: no video is opened.

    {"format_version": 1,
     "facts": {"stride_frames": 4, "clip_frames": 16, "width": 384, ...},
     "videos": {"video_1": {"fps": 30.0, "frame_count": 900, "length": 222}},
     "broken": {"video_2": "reason"}}

Feature i of a video stands for the middle of its clip, frame
i * stride_frames + clip_frames / 2 at `fps` frames per second. Each process
writes a record of its own (features.1.json ...); a reader takes all.
"""

import functools
import json
import os
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from losa_jax import timeline
from losa_jax.data.features.numbers import require_byte_order, require_finite
from losa_jax.data.records import AnnotatedVideo, Video, VideoInfo, Window
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.folder_files import (
    FolderFiles,
    quoted,
    require_file_name,
)
from losa_jax.utils.names import VIDEO_ENDINGS, without_ending
from losa_jax.utils.numpy_file import read_array
from losa_jax.utils.text_files import nfc, read_json

FORMAT_VERSION = 1
_REMEDY = "delete it and run --mode=extract again; finished features stay"
SUFFIXES = (".npy", ".npz")
# A video lasts a clip longer than its features reach, and feature files are
# cut a little differently; a larger share means another video.
MOST_MISSING = 0.2
# If half of so many videos, or more, miss a larger share, the features are of
# copies with another frame rate.
_FEW_VIDEOS, _USUALLY_MISSING = 3, 0.05
# Settings that are equal for all files of an extraction.
MEASURES = ("stride_frames", "clip_frames", "width")


class FeatureFiles:
    """Reads windows of features."""

    def __init__(self, settings: Any, resized_to: int = 0,
                 cache_gib: float = 0.0, joined_widths: Sequence[int] = ()):
        """Takes the config section `features`, the number of features that a
        video is resized to (0: as they are), memory for features, and the
        channels of each of joined folders if they matter.
        InputError if the folder or a setting is missing, or the folder's
        record has other settings."""
        names = settings.folder.split(",")
        for name in names:
            if not name or not Path(name).is_dir():
                raise InputError(f"config.features.folder={name} is no "
                                 "folder: name that of the feature files")
        self._folder, *self._others = map(Path, names)
        self._record = read_record(self._folder)
        facts = self._record.facts if self._record is not None else {}
        if self._others or tuple(settings.channels):
            # The features of a head are joined, or a part of the folder's.
            facts = facts and facts | {"width": settings.width}
        for name in MEASURES:
            value = getattr(settings, name)
            if facts and value != facts.get(name):
                raise InputError(
                    f"{settings.folder} holds features that --mode=extract "
                    "made with other settings than config.features. Set "
                    + " ".join(f"--config.features.{name}={facts.get(name)}"
                               for name in MEASURES))
            if value <= 0:
                raise InputError(f"config.features.{name}={value}: set it to "
                                 "what the features were made with")
        self._settings, self._resized_to = settings, resized_to
        self._joined_widths = tuple(joined_widths)
        self._budget = int(cache_gib * 2**30)
        self._kept: dict[Path, np.ndarray] = {}
        # {video id: the share of its frames that is covered too much, or too
        # little; how often the features cover it; frames a second}
        self._covered: dict[str, tuple[float, float, float]] = {}
        self._lock = threading.Lock()

    def info_of(self, video: AnnotatedVideo) -> VideoInfo:
        """Returns the properties of a video, with the file of its features as
        `path`; InputError if this is missing, or of another video."""
        settings = self._settings
        path = self._find(video.video_id)
        count = len(self._read(path))
        stem = nfc(path.stem)
        if self._record is not None and stem in self._record.videos:
            return _recorded_info(video, path, count,
                                  self._record.videos[stem])
        fps = video.fps or settings.fps
        if not fps:
            raise InputError("the annotations give no fps; set "
                             "config.features.fps if it is one for all")
        if not video.duration_seconds:
            raise InputError("the annotations give no duration")
        frames = round(video.duration_seconds * fps)
        covered = (count - 1) * settings.stride_frames + settings.clip_frames
        # The last clip that does not fit is often left out.
        step = max(settings.clip_frames, settings.stride_frames)
        slack = max(MOST_MISSING * frames, 4 * step)
        if abs(covered - frames) > slack:
            raise InputError(
                f"{path.name} holds {count} features, {covered:.0f} frames "
                f"of {fps:g} fps; the annotations give {frames}: another "
                "config.features.stride_frames, clip_frames or fps?")
        excess = max(abs(covered - frames) - 2 * step, 0)
        self._covered[video.video_id] = (excess / frames, covered / frames, fps)
        return VideoInfo(path, fps, frames, video.duration_seconds, height=0,
                         width=0)

    def check_rate(self) -> None:
        """Raises InputError if the features of most videos, of all those whose
        properties were asked for, cover another length than the video's."""
        if len(self._covered) < _FEW_VIDEOS:
            return
        excess, covered, fps = map(float, np.median(
            list(self._covered.values()), axis=0))
        if excess > _USUALLY_MISSING:
            raise InputError(
                f"{self._folder}: the features of {len(self._covered)} videos "
                f"cover {covered:.2f} of their lengths (the median) if they "
                f"have {fps:g} frames a second, so they seem to be of copies "
                f"with about {fps * covered:.3g}: set config.features.fps (the "
                "annotations' fps comes first), stride_frames and clip_frames "
                "to what they were made with")

    def check(self, video: AnnotatedVideo) -> VideoInfo:
        """As `info_of`, and reads all numbers; InputError as `info_of`, or if
        a number is not finite."""
        info = self.info_of(video)
        if info.path not in self._kept:
            require_finite(self._read(info.path), info.path)
        return info

    def _find(self, video_id: str) -> Path:
        """Returns the file of a video; InputError, which names the nearest
        files, if there is not just one."""
        require_file_name(video_id)
        stem, *other = [
            f"{self._settings.prefix}{name}{self._settings.suffix}"
            for name in dict.fromkeys([video_id, without_ending(video_id)])]
        paths = self._paths(stem)
        if not paths and other:
            paths = self._paths(*other)
        if len(paths) > 1:
            raise InputError(
                f"several files: {quoted(path.name for path in paths)} in "
                f"{self._folder}; keep one")
        if not paths:
            raise InputError("; ".join([
                f"no file {stem}.npy or {stem}.npz in {self._folder}",
                *self._hints(stem)]))
        return paths[0]

    def _paths(self, stem: str) -> list[Path]:
        paths = [path for suffix in SUFFIXES
                 if (path := self._folder / f"{stem}{suffix}").is_file()]
        # macOS stores other characters; an ending may be in capitals.
        return paths or [
            path for name in self._listing.named(stem)
            if name.lower().endswith(SUFFIXES) and (
                (path := self._folder / name).is_file() or path.is_symlink())]

    @functools.cached_property
    def _listing(self) -> FolderFiles:
        return FolderFiles(self._folder, "folder of features",
                           "config.features.folder")

    def _convert_hint(self) -> str:
        folder = shlex.quote(str(self._folder))
        return (f"python -m losa_jax.convert {folder} --output=FEATURES makes "
                ".npy files of all .pt files of the folder; set "
                "--config.features.folder=FEATURES")

    def _hints(self, stem: str) -> Iterator[str]:
        """Yields what may be meant in place of a file that is missing."""
        listing = self._listing
        others = listing.named(stem)
        has_arrays = any(name.lower().endswith(SUFFIXES)
                         for name in listing.files)
        videos = [name for name in others or (
            [] if has_arrays else listing.files)
            if name.lower().endswith(tuple(VIDEO_ENDINGS))]
        if videos:
            yield (f"{quoted(videos[:1])} is a video: make features of the "
                   "videos with --config.data.videos="
                   f"{quoted([str(self._folder)])} --mode=extract "
                   "--output=FOLDER, and set --config.features.folder=FOLDER")
        elif others:
            yield f"{quoted(others)} is not read: " + (
                self._convert_hint() if others[0].endswith((".pt", ".pth"))
                else f"save its array with numpy.save('{stem}.npy', array)")
        elif near := listing.nearest(stem):
            yield from listing.hints(near)
            name, suffix = os.path.splitext(near[0])
            before, is_part, after = nfc(name).partition(nfc(stem))
            if is_part and (before or after) and suffix in SUFFIXES and (
                    "/" not in name):
                old = self._settings
                yield (f"set --config.features.prefix={before}{old.prefix} "
                       f"--config.features.suffix={old.suffix}{after}")
        elif any(name.endswith((".pt", ".pth")) for name in listing.files):
            yield self._convert_hint()
        elif not has_arrays:
            yield ("the folder holds no .npy or .npz file but "
                   f"{quoted(listing.files[:3]) or 'nothing'}")

    def grid(self, info: VideoInfo) -> timeline.SampleGrid:
        """Returns the times of a video's features."""
        return timeline.feature_grid(
            info.fps, info.frame_count, len(self._read(Path(info.path))),
            stride_frames=self._settings.stride_frames,
            clip_frames=self._settings.clip_frames,
            resized_to=self._resized_to)

    def num_views(self, video: Video) -> int:
        """One: the files hold no augmented features."""
        return 1

    def read_windows(self, video: Video, windows: Sequence[Window],
                     view: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields `last` float32 [t, 1, c], zero after a window's real samples;
        InputError if the file cannot be read or a number is not finite."""
        try:
            yield from self._read_windows(video.path, windows)
        except InputError as error:
            raise InputError(f"video {video.video_id}: {error}") from error

    def _read_windows(self, path: Path, windows: Sequence[Window]
                      ) -> Iterator[dict[str, np.ndarray]]:
        features = self._read(path)
        is_checked = path in self._kept
        if self._resized_to:
            if not is_checked:
                require_finite(features, path)
            features = RESIZE[self._settings.resize](features,
                                                     self._resized_to)
            is_checked = True
        for window in windows:
            first = window.first_sample
            part = features[first:first + window.valid_samples]
            if not is_checked:
                require_finite(part, path, first)
            part = np.pad(part, ((0, window.num_samples - len(part)), (0, 0)))
            yield {"last": np.asarray(part[:, None], np.float32)}

    def empty_window(self, num_samples: int) -> dict[str, np.ndarray]:
        """Returns a window of zeros, as `read_windows`."""
        return {"last": np.zeros((num_samples, 1, self._settings.width),
                                 np.float32)}

    def _read(self, path: Path) -> np.ndarray:
        """Returns [t, c]; where it is not kept in memory, a memory map that is
        not checked for numbers that are not finite."""
        if path in self._kept:
            return self._kept[path]
        features = load_features(path, self._settings, [
            _same_video(path, folder) for folder in self._others],
            self._joined_widths)
        if features.nbytes <= self._budget:
            require_finite(features, path)
        with self._lock:
            if features.nbytes <= self._budget and path not in self._kept:
                self._budget -= features.nbytes
                self._kept[path] = np.array(features)
        return features


def _recorded_info(video: AnnotatedVideo, path: Path, count: int,
                   entry: dict[str, Any]) -> VideoInfo:
    """As the extraction read the video; annotations may be rounded."""
    fps, frames = entry["fps"], entry["frame_count"]
    if count != entry["length"]:
        raise InputError(f"{path.name} holds {count} features, its record "
                         f"says {entry['length']}: extract it again")
    seconds = frames / fps
    annotated = video.duration_seconds or seconds
    if abs(annotated - seconds) > MOST_MISSING * seconds:
        raise InputError(
            f"{path.name} is of a video of {seconds:.1f} s, the annotations "
            f"say {annotated:.1f}: another video")
    return VideoInfo(path, fps, frames, seconds, height=0, width=0)


def _same_video(path: Path, folder: Path) -> Path:
    """Returns the file of the same video in another folder."""
    paths = [folder / f"{path.stem}{suffix}" for suffix in (
        path.suffix, *SUFFIXES)]
    other = next((one for one in paths if one.is_file()), None)
    if other is None:
        raise InputError(f"no file {path.stem}.npy or {path.stem}.npz in "
                         f"{folder}, whose features are joined: copy it there, "
                         "or leave the video out")
    return other


def load_features(path: Path, settings: Any, others: Sequence[Path] = (),
                  widths: Sequence[int] = ()) -> np.ndarray:
    """Loads [t, c], with the channels of `others` behind those of the first
    file; InputError if one is unreadable or they are of another shape, or have
    other channels than `widths`, if these are given."""
    content = _load_rows(path, settings)
    if others:
        parts = [content, *(_load_rows(other, settings) for other in others)]
        for other, part in zip(others, parts[1:], strict=True):
            if part.ndim != 2 or content.ndim != 2 or (
                    len(part) != len(content)):
                raise InputError(
                    f"{other} has the shape {part.shape} and {path} "
                    f"{content.shape}: features are joined only if they are "
                    "of equal lengths, so extract them with one stride")
        channels = tuple(part.shape[1] for part in parts)
        if widths and channels != tuple(widths):
            raise InputError(
                f"{path} and {', '.join(map(str, others))} have {channels} "
                f"channels, and config.head.input_widths={tuple(widths)}: give "
                "the folders of config.features.folder in this order")
        content = np.concatenate(parts, 1)
    if content.ndim == 2 and tuple(settings.channels):
        first, end = settings.channels
        if content.shape[1] < end:
            raise InputError(
                f"{path} has {content.shape[1]} channels, and "
                f"config.features.channels={(first, end)}: give those of "
                "these features, or ()")
        content = content[:, first:end]
    if content.ndim != 2 or content.shape[1] != settings.width:
        hint = ""
        if content.ndim == 2 and content.shape[0] == settings.width:
            hint = "; set config.features.channels_first=True"
        raise InputError(f"{path} has the shape {content.shape}, not "
                         f"(time, {settings.width}){hint}")
    if not len(content):
        raise InputError(f"{path} holds no features: extract it again")
    return content


def _load_rows(path: Path, settings: Any) -> np.ndarray:
    """Loads the array of a file, [t, c] unless it has another shape."""
    content = read_array(path, settings.array, usual="feats",
                         setting="--config.features.array")
    if settings.channels_first and content.ndim >= 2:
        content = np.moveaxis(content, 0, -1)
    if content.ndim in (3, 4) and (
            content.size == content.shape[-1] * max(content.shape[:-1])):
        content = content.reshape(-1, content.shape[-1])
    if content.ndim == 2 and content.size:
        require_byte_order(content, path)
    return content


def resize_linearly(features: np.ndarray, length: int) -> np.ndarray:
    """Resizes to [length, c] with half-pixel centers and repeated ends, as
    torch's `interpolate` with align_corners=False (ActionFormer's forced
    upsampling)."""
    old = len(features)
    center = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0,
                     old - 1)
    left = np.floor(center).astype(int)
    right = np.minimum(left + 1, old - 1)
    share = (center - left)[:, None]
    return features[left] * (1 - share) + features[right] * share


def resize_by_averaging(features: np.ndarray, length: int) -> np.ndarray:
    """Resizes to [length, c] as torchvision's `roi_align(aligned=True)` over
    the row of features (OpenTAD): a result is the mean of equally many samples
    of the interpolated row, of which there are at least as many as features."""
    samples = -(-len(features) // length)
    return resize_linearly(features, length * samples).reshape(
        length, samples, -1).mean(axis=1)


RESIZE = {"linear": resize_linearly, "average": resize_by_averaging}


class FeatureRecord(NamedTuple):
    """The record of a folder; a listed video may have no file yet."""

    facts: dict[str, Any]
    # {video id: {"fps", "frame_count", "length": the number of features}}
    videos: dict[str, dict[str, Any]]


def record_path(folder: Path, process_index: int = 0) -> Path:
    """Returns the path of the record that a process writes."""
    number = f".{process_index}" if process_index else ""
    return folder / f"features{number}.json"


def read_record(folder: Path) -> FeatureRecord | None:
    """Reads the records of a folder, None without any; InputError if they are
    damaged, of another version, or of two extractions."""
    record: FeatureRecord | None = None
    for path in [*folder.glob(record_path(folder).name),
                 *sorted(folder.glob("features.[0-9]*.json"))]:
        content = read_json(path, _REMEDY)
        if not isinstance(content, dict) or (
                content.get("format_version") != FORMAT_VERSION):
            raise InputError(f"{path}: no record of this version: {_REMEDY}")
        record = record or FeatureRecord(content["facts"], {})
        if record.facts != content["facts"]:
            raise InputError(f"{path}: of another extraction than the other "
                             "records beside it. Keep one of them.")
        record.videos.update(content["videos"])
    return record


def write_record(folder: Path, facts: Mapping[str, Any],
                 videos: Mapping[str, Mapping[str, Any]],
                 broken: Mapping[str, str], process_index: int) -> None:
    """Writes the record of a process and keeps its other videos; InputError
    if the folder holds features that were made with other facts."""
    before = read_record(folder)
    if before is not None and before.facts != dict(facts):
        raise InputError(
            f"{folder} holds features made with "
            f"{differences(before.facts, facts)}. Choose another "
            "--output.")
    path = record_path(folder, process_index)
    if path.is_file():
        videos = {**json.loads(path.read_text())["videos"], **videos}
    write_text(path, json.dumps({
        "format_version": FORMAT_VERSION, "facts": dict(facts),
        "videos": videos, "broken": dict(broken)}, indent=1) + "\n")


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Returns "name=1 (asked for 2), ..." of the entries that differ."""
    return ", ".join(
        f"{name}={stored.get(name)!r} (asked for {wanted.get(name)!r})"
        for name in sorted({*stored, *wanted})
        if stored.get(name) != wanted.get(name))
