"""What is known of videos and their actions: plain records, no I/O."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from losa_jax import timeline


class Action(NamedTuple):
    """One annotated action."""

    start_seconds: float
    end_seconds: float
    label: str


@dataclasses.dataclass(frozen=True)
class AnnotatedVideo:
    """What the annotations say of a video; the video itself may differ.

    Attributes:
      correction: what was corrected while reading; "" for nothing.
    """

    video_id: str
    subset: str
    duration_seconds: float | None
    fps: float | None
    actions: tuple[Action, ...]
    correction: str = ""


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The content of one annotation file, or of several read as one.

    Attributes:
      class_names: in label order: the given list, else by `label_id` where
        every action has one, else sorted.
      label_ids: what `class_names` were ordered by: the `label_id`, or None,
        of each action of each video; None for a given list.
    """

    path: Path
    videos: dict[str, AnnotatedVideo]
    class_names: tuple[str, ...]
    label_ids: Mapping[str, tuple[int | None, ...]] | None = None

    def subset(self, name: str) -> tuple[AnnotatedVideo, ...]:
        """Videos of a subset (case does not matter), in file order."""
        return tuple(video for video in self.videos.values()
                     if video.subset == name.lower())


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What probing a video file showed.

    Attributes:
      path: the file.
      fps: frames a second of the grid (see `losa_jax.data.video.decode`).
      frame_count: frames of the grid, as many as the decoder gives.
      duration_seconds: frame_count / fps.
      height, width: pixels of an upright frame.
      first_seconds: time stamp of the first frame.
      last_seconds: time stamp of the last frame; None if not looked at.
      is_timed: False if frames are found by counting, not by time stamps.
    """

    path: Path
    fps: float
    frame_count: int
    duration_seconds: float
    height: int
    width: int
    first_seconds: float = 0.0
    last_seconds: float | None = None
    is_timed: bool = True


class BrokenVideo(NamedTuple):
    """A video that cannot be used, and why."""

    video_id: str
    path: Path
    reason: str


@dataclasses.dataclass(frozen=True)
class EncodedVideo:
    """The bytes of a video file that lies inside another file.

    Attributes:
      name: for messages.
      content: as they were in the video's own file.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class Video:
    """A probed video with its actions and its sample grid.

    Attributes:
      read_encoded: gives the bytes of a video that lies in a data set; None:
        `info.path` is a file.
    """

    video_id: str
    info: VideoInfo
    grid: timeline.SampleGrid
    actions: tuple[Action, ...]
    read_encoded: Callable[[], EncodedVideo] | None = dataclasses.field(
        default=None, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """The file, or where the data set says that it was."""
        return Path(self.info.path)

    def open(self) -> Path | EncodedVideo:
        """The file, or its bytes: what `decode.iterate_frames` takes."""
        return self.path if self.read_encoded is None else self.read_encoded()


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of one video.

    Attributes:
      first_sample: where it starts on the video's sample grid.
      num_samples: its length with padding, the same for every window.
      valid_samples: real samples at its start; the rest is padding.
    """

    first_sample: int
    num_samples: int
    valid_samples: int

    def frame_indices(self, grid: timeline.SampleGrid) -> np.ndarray:
        """Frames to decode, int64 [f]; padding repeats the last real one."""
        offsets = np.minimum(np.arange(self.num_samples),
                             self.valid_samples - 1)
        return grid.frame_indices(self.first_sample + offsets)
