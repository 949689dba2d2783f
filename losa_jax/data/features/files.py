"""Features that somebody else extracted: one .npy or .npz file a video.

I3D, TSP, VideoMAEv2, InternVideo2 features circulate so. Frame rate and
duration come from the annotations, or from the record that --mode=extract
writes beside its files (data/features/record.py): no video is opened.
"""

import dataclasses
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax import timeline
from losa_jax.data.features.record import FeatureRecord, read_record
from losa_jax.data.records import (
    AnnotatedVideo,
    BrokenVideo,
    Video,
    VideoInfo,
    Window,
)
from losa_jax.data.video.check import report_broken
from losa_jax.errors import InputError

SUFFIXES = (".npy", ".npz")
# A video lasts a clip longer than its features reach, and files of features
# are cut a little differently; more than this share is another video.
MOST_MISSING = 0.2
# What a record of an extraction says of all its files.
MEASURES = ("stride_frames", "clip_frames", "width")


@dataclasses.dataclass(frozen=True)
class FeatureSettings:
    """The config section `features`.

    Attributes:
      folder: of the files, <prefix><video id>.npy.
      prefix, suffix: of the file names, around the video id ("v_", "").
      stride_frames: from one clip to the next.
      clip_frames: of a clip.
      fps: of the videos where the annotations say none; 0 needs theirs.
      channels_first: files hold [channels, time].
      width: channels.
    """

    folder: str
    stride_frames: float
    clip_frames: float
    width: int
    prefix: str = ""
    suffix: str = ""
    fps: float = 0.0
    channels_first: bool = False


class FeatureFiles:
    """Reads windows of features."""

    def __init__(self, settings: FeatureSettings, resized_to: int = 0,
                 cache_gib: float = 0.0):
        """
        Args:
          resized_to: every video becomes so many features; 0: as they are.
          cache_gib: memory for files that stay open in it.

        Raises:
          InputError: the folder is missing, or a setting is.
        """
        self._folder = Path(settings.folder)
        self._record = read_record(self._folder)
        if self._record is not None:
            _check_settings(settings, self._record)
        for name in MEASURES:
            if getattr(settings, name) <= 0:
                raise InputError(f"config.features.{name}="
                                 f"{getattr(settings, name)}: set it to what "
                                 "the features were made with")
        if not self._folder.is_dir():
            raise InputError(f"config.features.folder={settings.folder} is "
                             "no folder: name that of the feature files")
        self._settings, self._resized_to = settings, resized_to
        self._budget = int(cache_gib * 2**30)
        self._kept: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def path(self, video_id: str) -> Path | None:
        """The file of a video; None if there is none."""
        stem = f"{self._settings.prefix}{video_id}{self._settings.suffix}"
        paths = [self._folder / f"{stem}{suffix}" for suffix in SUFFIXES]
        return next((path for path in paths if path.is_file()), None)

    def check(self, videos: Sequence[AnnotatedVideo], on_broken_video: str
              ) -> tuple[dict[str, VideoInfo], list[BrokenVideo]]:
        """Facts of every video; `VideoInfo.path` is the file of features.

        Raises:
          InputError: names all files that are missing or do not fit.
        """
        infos, lost = {}, []
        for video in videos:
            try:
                infos[video.video_id] = self._info(video)
            except InputError as error:
                lost.append(BrokenVideo(video.video_id, self._folder,
                                        str(error)))
        report_broken(lost, len(videos), on_broken_video, bool(infos))
        return infos, lost

    def _info(self, video: AnnotatedVideo) -> VideoInfo:
        path = self.path(video.video_id)
        if path is None:
            raise InputError(f"no {self._settings.prefix}{video.video_id}"
                             f"{self._settings.suffix}"
                             f"({'|'.join(SUFFIXES)})")
        count = len(self._read(path))
        if self._record is not None and path.stem in self._record.videos:
            entry = self._record.videos[path.stem]
            return _recorded_info(video, path, count, entry)
        fps = video.fps or self._settings.fps
        if not fps or not video.duration_seconds:
            missing = "fps" if not fps else "duration"
            raise InputError(f"the annotations say no {missing}" + (
                "; set config.features.fps if it is one for all"
                if missing == "fps" else ""))
        frames = round(video.duration_seconds * fps)
        covered = ((count - 1) * self._settings.stride_frames
                   + self._settings.clip_frames)
        slack = max(MOST_MISSING * frames, 4 * self._settings.clip_frames)
        if abs(covered - frames) > slack:
            raise InputError(
                f"{path.name} holds {count} features, {covered:.0f} frames "
                f"of {fps:g} fps; the annotations say {frames}: another "
                "config.features.stride_frames, clip_frames or fps?")
        return VideoInfo(
            path=path, fps=fps, frame_count=frames,
            duration_seconds=video.duration_seconds, height=0, width=0,
            first_seconds=0.0, last_seconds=None)

    def grid(self, info: VideoInfo) -> timeline.SampleGrid:
        """Where a video's features stand in time."""
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
        """`last` float32 [t, 1, c], zero behind a window's real samples."""
        features = self._read(video.path)
        if self._resized_to:
            features = resize_linearly(features, self._resized_to)
        for window in windows:
            first = window.first_sample
            part = features[first:first + window.valid_samples]
            padding = window.num_samples - len(part)
            part = np.pad(part, ((0, padding), (0, 0)))
            yield {"last": np.asarray(part[:, None], np.float32)}

    def empty_window(self, num_samples: int) -> dict[str, np.ndarray]:
        """As `read_windows` gives them, of zeros."""
        return {"last": np.zeros((num_samples, 1, self._settings.width),
                                 np.float32)}

    def _read(self, path: Path) -> np.ndarray:
        """[t, c]; a memory map where it is not kept in memory."""
        with self._lock:
            if str(path) in self._kept:
                return self._kept[str(path)]
        features = load_features(path, self._settings)
        with self._lock:
            if features.nbytes <= self._budget:
                features = np.array(features)
                self._budget -= features.nbytes
                self._kept[str(path)] = features
        return features


def _check_settings(settings: FeatureSettings, record: FeatureRecord
                    ) -> None:
    """Refuses settings that are not those of the extraction."""
    if any(getattr(settings, name) != record.facts.get(name)
           for name in MEASURES):
        raise InputError(
            f"{settings.folder} holds features that --mode=extract made "
            "otherwise than config.features says: set " + " ".join(
                f"--config.features.{name}={record.facts.get(name)}"
                for name in MEASURES))


def _recorded_info(video: AnnotatedVideo, path: Path, count: int,
                   entry: dict[str, Any]) -> VideoInfo:
    """As the extraction read the video; the annotations may round."""
    fps, frames = entry["fps"], entry["frame_count"]
    if count != entry["length"]:
        raise InputError(f"{path.name} holds {count} features, its record "
                         f"says {entry['length']}: extract it again")
    seconds = frames / fps
    said = video.duration_seconds or seconds
    if abs(said - seconds) > MOST_MISSING * seconds:
        raise InputError(
            f"{path.name} is of a video of {seconds:.1f} s, the annotations "
            f"say {said:.1f}: another video")
    return VideoInfo(
        path=path, fps=fps, frame_count=frames, duration_seconds=seconds,
        height=0, width=0, first_seconds=0.0, last_seconds=None)


def load_features(path: Path, settings: FeatureSettings) -> np.ndarray:
    """[t, c] of a file, checked.

    Raises:
      InputError: unreadable, or of another shape.
    """
    try:
        # Never pickled objects: the files come from strangers.
        content: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                names = content.files
                content = content["feats" if "feats" in names else names[0]]
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from error
    if settings.channels_first and content.ndim >= 2:
        content = np.moveaxis(content, 0, -1)
    content = content.reshape(-1, content.shape[-1]) if content.ndim in (
        2, 3, 4) and content.size == content.shape[-1] * max(
        content.shape[:-1]) else content
    if content.ndim != 2 or content.shape[1] != settings.width:
        hint = ""
        if content.ndim == 2 and content.shape[0] == settings.width:
            hint = "; set config.features.channels_first=True"
        raise InputError(f"{path.name} has the shape {content.shape}, not "
                         f"(time, {settings.width}){hint}")
    if not len(content):
        raise InputError(f"{path.name} holds no features: extract it again")
    return content


def resize_linearly(features: np.ndarray, length: int) -> np.ndarray:
    """[length, c], half-pixel centers, ends repeated (torch's `interpolate`
    with align_corners=False, as ActionFormer's forced upsampling)."""
    old = len(features)
    center = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0,
                     old - 1)
    left = np.floor(center).astype(int)
    right = np.minimum(left + 1, old - 1)
    share = (center - left)[:, None]
    return features[left] * (1 - share) + features[right] * share
