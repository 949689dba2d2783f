"""Training examples: random windows of videos, and their order.

The frames of a batch are written where they stay: a window of THUMOS takes
118 MB, too much to be copied into its batch.
"""

import copy
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from losa_jax.data.records import Video
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.windows import sampling
from losa_jax.data.windows.batch import Batch, Example
from losa_jax.data.windows.loader import Batches
from losa_jax.data.windows.readers import WindowReader
from losa_jax.data.windows.skipped_videos import pack_faults

# A video's number, and what draws its window and view.
Draw = tuple[int, np.random.Generator]


class TrainWindows:
    """A video's number and a random generator to one training example."""

    def __init__(self, videos: Sequence[Video], class_names: Sequence[str],
                 config: Any, *, reader: WindowReader,
                 augmented: bool = True):
        """
        Args:
          videos: the training set.
          class_names: in the order of the labels.
          config: the whole config (sections `window`, `data`).
          reader: of frames, or of features in their place.
          augmented: False shows the test view of a random window (used to
            measure feature statistics).
        """
        self._videos = videos
        self._class_names = list(class_names)
        self._config = config
        self._reader = reader
        self._augmented = augmented
        self._max_actions = max(
            1, max((len(video.actions) for video in videos), default=1))

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Examples, stacked.

        Returns:
          a training batch, see `batch`.
        """
        frames = self._reader.allocate(len(draws), self._config.window.samples)
        examples = [
            self(index, rng, None if frames is None else frames[row])
            for row, (index, rng) in enumerate(draws)]
        return {name: (frames if name == "frames" and frames is not None
                       else np.stack([one[name] for one in examples]))
                for name in examples[0]}

    def __call__(self, index: int, rng: np.random.Generator,
                 frames: np.ndarray | None = None) -> Example:
        """One example.

        Args:
          frames: uint8 [f, size, size, 3], where its frames are written;
            None makes new memory.
        """
        # With "skip" a video that fails is replaced by the next one: never
        # an endless retry, never a window of zeros.
        faults: list[tuple[str, str]] = []
        for attempt in range(len(self._videos)):
            number = (int(index) + attempt) % len(self._videos)
            video = self._videos[number]
            try:
                return {**self._example(number, video, rng, frames),
                        **pack_faults(faults)}
            except VideoDecodeError as error:
                if self._config.data.on_broken_video != "skip":
                    raise
                faults.append((video.video_id, str(error)))
        raise VideoDecodeError(
            f"none of {len(self._videos)} training videos can be read: look "
            f"at their disk first ({faults[-1][1]})")

    def _example(self, number: int, video: Video, rng: np.random.Generator,
                 frames: np.ndarray | None) -> Example:
        config = self._config.window
        ratio = tuple(config.short_crop_ratio) or None
        window = sampling.train_window(
            video.grid, video.actions, config.samples, rng, crop_ratio=ratio,
            min_action_kept=config.min_action_kept,
            align=sampling.clip_alignment(config))
        segments, labels, valid = sampling.window_actions(
            video.grid, window, video.actions, self._class_names,
            samples_per_token=config.samples / config.tokens,
            min_action_kept=config.min_action_kept,
            max_actions=self._max_actions)
        return {
            **self._reader.training_inputs(video, window, rng, frames,
                                           augmented=self._augmented),
            "valid_samples": np.int32(window.valid_samples),
            "segments": segments,
            "labels": labels,
            "action_valid": valid,
            "video_number": np.int32(number),
        }


def train_dataset(transform: TrainWindows, num_videos: int, *, seed: int,
                  batch_windows: int, num_threads: int,
                  num_epochs: int | None = None,
                  rows: Sequence[int] | None = None) -> Batches:
    """Shuffled batches; order and augmentation depend on the seed alone.

    Args:
      batch_windows: of a global batch.
      num_threads: that make batches.
      rows: of each global batch, those that this process reads; None: all.
        The iterator's position counts global batches, so it means the same
        to every process, however many there are.
    """
    rows = tuple(range(batch_windows)) if rows is None else tuple(rows)
    dataset = (
        grain.MapDataset.source(_Numbers(num_videos))
        .seed(seed).shuffle().repeat(num_epochs)
        .random_map(_draw))
    dataset = grain.MapDataset.source(
        _Rows(dataset, rows, batch_windows)).map(transform.batch)
    return Batches(dataset, num_threads)


def _draw(index: int, rng: np.random.Generator) -> Draw:
    # Grain takes its generator back as soon as this returns.
    return index, copy.deepcopy(rng)


class _Numbers:
    """0, 1, ..., n - 1 as a Grain source (a range is not one)."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return int(index)


class _Rows:
    """Some rows of each whole batch of a sequence."""

    def __init__(self, items: Sequence[Any], rows: tuple[int, ...],
                 batch_windows: int):
        self._items, self._rows = items, rows
        self._batch_windows = batch_windows

    def __len__(self) -> int:
        return len(self._items) // self._batch_windows

    def __getitem__(self, index: int) -> list[Any]:
        first = int(index) * self._batch_windows
        return [self._items[first + row] for row in self._rows]
