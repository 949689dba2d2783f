"""One video of a data set, as the pipeline knows it."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losa_jax import timeline
from losa_jax.data.annotations.load import Action
from losa_jax.data.video.container import EncodedVideo
from losa_jax.data.video.probe import VideoInfo

if TYPE_CHECKING:  # imports TensorFlow Datasets, which most runs need not
    from losa_jax.data.tfds.reader import StoredVideos


@dataclasses.dataclass(frozen=True)
class SourceVideo:
    """A probed video with its actions and its sample grid.

    Attributes:
      stored: the TFDS data set that holds the video's bytes; None: a file.
    """

    video_id: str
    info: VideoInfo
    grid: timeline.SampleGrid
    actions: tuple[Action, ...]
    stored: "StoredVideos | None" = dataclasses.field(
        default=None, repr=False, compare=False)

    @property
    def path(self) -> Path:
        """The file, or where its record says that it lay."""
        return Path(self.info.path)

    def open(self) -> Path | EncodedVideo:
        """The file, or its bytes: what `read_frames` takes."""
        if self.stored is None:
            return self.path
        return self.stored.read(self.video_id)


def video_grid(info: VideoInfo, window: Any) -> timeline.SampleGrid:
    """The samples of a video under the config section `window`."""
    return timeline.sample_grid(
        info.fps, info.frame_count, sampling=window.sampling,
        frame_stride=window.frame_stride, sample_fps=window.sample_fps,
        window_samples=window.frames)
