"""Plain records of videos and their actions; no I/O."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from losa_jax import timeline


class Action(NamedTuple):
    """One annotated action."""

    start_seconds: float
    end_seconds: float
    label: str
    label_id: int | None = None  # as in the annotation file


@dataclasses.dataclass(frozen=True)
class AnnotatedVideo:
    """The annotations of a video; its file may differ."""

    video_id: str
    subset: str
    duration_seconds: float | None
    fps: float | None
    actions: tuple[Action, ...]
    correction: str = ""  # what was corrected while reading
    # (start, end) in which no action is missing; None: the whole video.
    reviewed_seconds: tuple[tuple[float, float], ...] | None = None
    # Stretches that look like an action of the class and hold none.
    hard_negatives: tuple[Action, ...] = ()


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The content of one annotation file, or of several read as one."""

    path: Path
    videos: dict[str, AnnotatedVideo]
    class_names: tuple[str, ...]  # in label order
    classes_given: bool = False
    added_classes: tuple[str, ...] = ()  # the last ones, which reviews added

    def subset(self, name: str) -> tuple[AnnotatedVideo, ...]:
        """Returns the videos of a subset (any case), in file order."""
        return tuple(video for video in self.videos.values()
                     if video.subset == name.lower())


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """The properties of a video file."""

    path: Path
    fps: float  # of the grid, see `losa_jax.data.video.decode`
    frame_count: int  # of the grid, as many as the decoder returns
    duration_seconds: float  # frame_count / fps
    height: int  # pixels of an upright frame
    width: int
    first_seconds: float = 0.0  # time stamp of the first decoded frame
    last_seconds: float | None = None  # of the last one; None: not probed
    is_timed: bool = True  # False if frames are counted, for lack of stamps
    # Frames of the grid before the first decoded one: the file starts with
    # another stream, and players show 0:00 there.
    lead_frames: int = 0
    # False if decoding in the middle needs what an earlier packet brought.
    is_seekable: bool = True


class EncodedVideo(NamedTuple):
    """The bytes of a video file that another file holds."""

    name: str  # for messages
    content: bytes

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Video:
    """A probed video; `read_encoded` returns its bytes where it is part of a
    data set. `AnnotatedVideo` describes what was reviewed."""

    video_id: str
    info: VideoInfo
    grid: timeline.SampleGrid
    actions: tuple[Action, ...]
    read_encoded: Callable[[], EncodedVideo] | None = dataclasses.field(
        default=None, repr=False, compare=False)
    reviewed_seconds: tuple[tuple[float, float], ...] | None = None
    hard_negatives: tuple[Action, ...] = ()

    @property
    def path(self) -> Path:
        """The file, or its name in the data set."""
        return Path(self.info.path)

    def open(self) -> Path | EncodedVideo:
        """Returns the file, or its bytes: see `decode.iterate_frames`."""
        return self.path if self.read_encoded is None else self.read_encoded()


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a video, in samples of its grid."""

    first_sample: int
    num_samples: int  # with padding at the end
    valid_samples: int  # without

    def frame_indices(self, grid: timeline.SampleGrid) -> np.ndarray:
        """Returns frames to decode, int64 [f]; padding repeats the last."""
        offsets = np.minimum(np.arange(self.num_samples),
                             self.valid_samples - 1)
        return grid.frame_indices(self.first_sample + offsets)
