"""Converts the times of actions: seconds, frames, samples, tokens.

Four clocks run along one video:

    seconds   from the first frame
    frames    of the file, at `fps` per second; frame i lasts from i to i + 1
    samples   the frames that the backbone sees; sample i stands for the
              stretch from i to i + 1 samples and shows its middle frame
    tokens    of a window of samples, on the grid of the detection head

    frames    |0|1|2|3|4|5|6|7|8|9|...          frames_per_sample = 2
    samples   | 0 | 1 | 2 | 3 | 4 |...          frame 1, 3, 5, 7, 9
    tokens    |   0   |   1   |...              samples_per_token = 2
                  ^       ^
    token coordinate 0.0  1.0: a token's coordinate is its middle

A head's point t is at token coordinate t, as in ActionFormer. OpenTAD differs:
its end-to-end recipes put token 0 at second 0 and sample i at frame `i *
stride`; its head learns the half-token shift.
"""

import dataclasses
import math

import numpy as np

from losa_jax.errors import InputError

# Two annotations of one label are the same action if both ends agree to
# this many seconds; shorter annotations are no action (ActionFormer).
SAME_ACTION_SECONDS = 1e-3


@dataclasses.dataclass(frozen=True)
class SampleGrid:
    """The samples of one video: which frames they show, when they happen."""

    fps: float
    frame_count: int
    # May be a fraction (29.97 fps sampled at 10 fps).
    frames_per_sample: float
    offset_frames: float = 0.0  # where sample 0 begins
    sample_count: int = 0  # 0: as many as cover the video

    @property
    def duration_seconds(self) -> float:
        """Duration of the whole video."""
        return self.frame_count / self.fps

    @property
    def num_samples(self) -> int:
        """Samples that cover every frame; the last may reach past the end."""
        # The small number keeps 300 frames / (30 / 10) at 100 samples.
        samples = self.frame_count / self.frames_per_sample
        return self.sample_count or max(1, math.ceil(samples - 1e-6))

    def frame_indices(self, sample_index: np.ndarray) -> np.ndarray:
        """Returns the frames that samples show: int64 of the same shape.

        Samples outside the video show its nearest frame, as padding.
        """
        sample_index, last = np.asarray(sample_index), self.frame_count - 1
        middle = (sample_index + 0.5) * self.frames_per_sample
        frames = np.floor(middle + 1e-6).astype(np.int64)
        frames = np.where(sample_index >= self.num_samples, last, frames)
        return np.clip(frames, 0, last)

    def samples_from_seconds(self, seconds: np.ndarray) -> np.ndarray:
        """Returns sample coordinates: 0.0 is where sample 0 begins."""
        frames = np.asarray(seconds) * self.fps - self.offset_frames
        return frames / self.frames_per_sample

    def seconds_from_samples(self, samples: np.ndarray | float) -> np.ndarray:
        """Inverts `samples_from_seconds`."""
        frames = np.asarray(samples) * self.frames_per_sample
        return (frames + self.offset_frames) / self.fps


def sample_grid(fps: float, frame_count: int, *, sampling: str,
                frame_stride: int = 1, sample_fps: float = 0.0,
                window_samples: int = 0) -> SampleGrid:
    """Returns the grid of one video under a sampling rule.

    "stride" takes every `frame_stride`-th frame; "fps" takes `sample_fps`
    samples per second at any frame rate; "resize" spreads `window_samples`
    over the whole video (ActivityNet's recipe). Each number is positive.
    """
    number = {"stride": frame_stride, "fps": sample_fps,
              "resize": window_samples}.get(sampling, 0)
    if number <= 0:
        raise InputError(
            f"config.window.sampling={sampling!r}: choose stride (frame_stride "
            "above 0), fps (sample_fps above 0) or resize (samples above 0)")
    return SampleGrid(fps, frame_count, {
        "stride": float(number), "fps": fps / number,
        "resize": frame_count / number}[sampling])


def feature_grid(fps: float, frame_count: int, num_features: int, *,
                 stride_frames: float, clip_frames: float,
                 resized_to: int = 0) -> SampleGrid:
    """Returns the grid of a file of features; a sample is one of them.

    Feature i stands for the middle of its clip, frame i * stride_frames +
    clip_frames / 2. If `resized_to` is not 0, features are interpolated to so
    many, which share the stretch that the clips cover (ActionFormer).
    """
    if resized_to:
        covered = (num_features - 1) * stride_frames + clip_frames
        return SampleGrid(fps, frame_count, covered / resized_to,
                          sample_count=resized_to)
    return SampleGrid(fps, frame_count, float(stride_frames),
                      offset_frames=(clip_frames - stride_frames) / 2,
                      sample_count=num_features)


def tokens_from_seconds(seconds: np.ndarray, grid: SampleGrid,
                        first_sample: int, samples_per_token: float
                        ) -> np.ndarray:
    """Converts seconds to token coordinates of the window at `first_sample`."""
    samples = grid.samples_from_seconds(seconds) - first_sample
    return samples / samples_per_token - 0.5


def seconds_from_tokens(tokens: np.ndarray, grid: SampleGrid, first_sample: int,
                        samples_per_token: float) -> np.ndarray:
    """Inverts `tokens_from_seconds`, clipped to the video's duration."""
    samples = (np.asarray(tokens) + 0.5) * samples_per_token + first_sample
    return np.clip(grid.seconds_from_samples(samples), 0.0,
                   grid.duration_seconds)


def frame_span(start_seconds: float, end_seconds: float, fps: float,
               frame_count: int) -> tuple[int, int]:
    """Returns the frames (first, one past the last) of a stretch."""
    first = min(max(0, round(start_seconds * fps)), frame_count - 1)
    return first, min(max(first + 1, round(end_seconds * fps)), frame_count)
