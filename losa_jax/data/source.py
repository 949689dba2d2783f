"""One video of a data set, as the pipeline knows it."""

import dataclasses
from pathlib import Path
from typing import Any

from losa_jax import timeline
from losa_jax.data.annotations import Action
from losa_jax.data.video import VideoInfo


@dataclasses.dataclass(frozen=True)
class SourceVideo:
    """A probed video with its actions and its sample grid."""

    video_id: str
    info: VideoInfo
    grid: timeline.SampleGrid
    actions: tuple[Action, ...]

    @property
    def path(self) -> Path:
        return Path(self.info.path)


def video_grid(info: VideoInfo, window: Any) -> timeline.SampleGrid:
    """The samples of a video under the config section `window`."""
    return timeline.sample_grid(
        info.fps, info.frame_count, sampling=window.sampling,
        frame_stride=window.frame_stride, sample_fps=window.sample_fps,
        window_samples=window.frames)
