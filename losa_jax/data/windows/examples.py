"""Training examples: random windows of videos, and their order."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from losa_jax.data.records import Video
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.windows import sampling
from losa_jax.data.windows.batch import Batch, Example
from losa_jax.data.windows.readers import WindowReader
from losa_jax.errors import InputError

# A video's number, and the generator that draws its window and view.
Draw = tuple[int, np.random.Generator]


class TrainWindows:
    """Makes training batches from video numbers and random generators."""

    def __init__(self, videos: Sequence[Video], class_names: Sequence[str],
                 config: Any, *, reader: WindowReader,
                 augmented: bool = True):
        """Takes the whole config; `augmented` is False for the test views of
        random windows, which measure feature statistics."""
        self._videos = videos
        self._class_names = list(class_names)
        self._config = config
        self._reader = reader
        self._augmented = augmented
        self._max_actions = max(
            1, max((len(video.actions) for video in videos), default=1))

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Returns a training batch, see `losa_jax.data.windows.batch`."""
        # Frames are written into the batch: those of one window of THUMOS
        # take 118 MB, too much to be copied into it.
        frames = self._reader.allocate(len(draws), self._config.window.samples)
        examples = [
            self._readable_example(index, rng,
                                   None if frames is None else frames[row])
            for row, (index, rng) in enumerate(draws)]
        return {name: (frames if name == "frames" and frames is not None
                       else np.stack([one[name] for one in examples]))
                for name in examples[0]}

    def _readable_example(self, index: int, rng: np.random.Generator,
                          frames: np.ndarray | None) -> Example:
        """Returns the example of video `index`; with on_broken_video=skip, of
        the next that is readable.
        """
        faults: list[tuple[str, str]] = []
        for attempt in range(len(self._videos)):
            number = (int(index) + attempt) % len(self._videos)
            try:
                return {**self._example(number, rng, frames),
                        "faults": np.str_(json.dumps(faults))}
            except InputError as error:
                if self._config.data.on_broken_video != "skip":
                    raise
                faults.append((self._videos[number].video_id, str(error)))
        raise VideoDecodeError(
            f"None of the {len(self._videos)} training videos can be read. "
            f"Check their disk first ({faults[-1][1]}).")

    def _example(self, number: int, rng: np.random.Generator,
                 frames: np.ndarray | None) -> Example:
        video, config = self._videos[number], self._config.window
        window = sampling.train_window(
            video.grid, video.actions, config.samples, rng,
            crop_ratio=tuple(config.short_crop_ratio) or None,
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
                  rows: Sequence[int] | None = None) -> grain.IterDataset:
    """Returns shuffled batches; the seed determines order and augmentation.

    The state of an iterator is the number of global batches, so a run can
    continue with another number of threads or processes. This process reads
    `rows` of each global batch of `batch_windows`; None: all. Without
    `num_epochs` it repeats for ever.
    """
    rows = range(batch_windows) if rows is None else rows
    dataset = (
        grain.MapDataset.range(num_videos)
        .seed(seed).shuffle().repeat(num_epochs).random_map(_draw)
        .batch(batch_windows, drop_remainder=True, batch_fn=list)
        .map(lambda draws: transform.batch([draws[row] for row in rows])))
    # Batches are handed out in order: with one more than threads, a thread
    # that finishes before its neighbor is not idle.
    return dataset.to_iter_dataset(grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=num_threads + 1))


def batches_in_memory(num_threads: int) -> int:
    """Returns the peak number of batches: made ahead, next, and in use."""
    return num_threads + 3


def _draw(index: int, rng: np.random.Generator) -> Draw:
    # Grain reuses its generator as soon as this returns.
    return int(index), copy.deepcopy(rng)
