"""Training batches: random windows of videos, in a random order.

A window is read in pieces: each process reads the samples that its devices
hold, and several threads may share a window.
"""

import copy
import json
import sys
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from losa_jax.data.records import Video
from losa_jax.data.windows import loss_weights, sampling
from losa_jax.data.windows.batch import Batch, Example
from losa_jax.data.windows.readers import WindowReader
from losa_jax.errors import InputError

# A video's number, and the generator that draws its window and view.
Draw = tuple[int, np.random.Generator]
# The most batches of a process that are in memory at once, for any number of
# threads: read ahead, put together, next, and in use.
BATCHES_IN_MEMORY = 4


class TrainWindows:
    """Makes pieces of training windows from random generators."""

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
        self._is_weighted = loss_weights.are_needed(videos)
        self._max_actions = max(
            1, max((len(video.actions) for video in videos), default=1))

    def pieces(self, samples: range | None, count: int) -> list[range]:
        """Divides samples of a window into at most `count` ranges."""
        samples = samples or range(self._config.window.samples)
        if not self._reader.reads_samples:
            return [samples]
        # Smaller pieces than clips would only seek more often.
        clips = -(-len(samples) // self._config.window.clip_samples)
        bounds = np.linspace(samples.start, samples.stop,
                             min(count, clips) + 1).round().astype(int)
        return [range(*pair) for pair in zip(bounds, bounds[1:], strict=False)]

    def example(self, draw: Draw, samples: range) -> Example:
        """Returns what `losa_jax.data.windows.batch` describes, of one window
        and only these samples of it.

        If they cannot be read, they are zeros and `readable` is False under
        on_broken_video=skip; else InputError.
        """
        number, rng = draw
        number %= len(self._videos)
        video, config = self._videos[number], self._config.window
        window = sampling.train_window(
            video.grid, (*video.actions, *video.hard_negatives),
            config.samples, rng,
            crop_ratio=tuple(config.short_crop_ratio) or None,
            min_action_kept=config.min_action_kept,
            align=sampling.clip_alignment(config))
        samples_per_token = config.samples / config.tokens
        segments, labels, valid = sampling.window_actions(
            video.grid, window, video.actions, self._class_names,
            samples_per_token=samples_per_token,
            min_action_kept=config.min_action_kept,
            max_actions=self._max_actions)
        weights = {"loss_weights": loss_weights.loss_weights(
            video, window, segments[valid], labels[valid], self._class_names,
            num_tokens=config.tokens, samples_per_token=samples_per_token,
            hard_negative_weight=self._config.loss.hard_negative_weight,
        )} if self._is_weighted else {}
        fault, decoded = "", 0
        try:
            inputs, decoded = self._reader.training_inputs(
                video, window, rng, samples, augmented=self._augmented)
        except InputError as error:
            if self._config.data.on_broken_video != "skip":
                raise
            fault = json.dumps([video.video_id, str(error)])
            inputs = self._reader.empty_window(
                len(samples) if self._reader.reads_samples
                else config.samples)
        return {
            **inputs, **weights,
            "readable": np.bool_(not fault),
            "valid_samples": np.int32(window.valid_samples),
            "segments": segments,
            "labels": labels,
            "action_valid": valid,
            "video_number": np.int32(number),
            "decoded_frames": np.int32(decoded),
            "fault": np.str_(fault),
        }


def train_batches(transform: TrainWindows, num_videos: int, *, seed: int,
                  batch_windows: int, num_threads: int,
                  rows: Sequence[int] | None = None,
                  samples: range | None = None, first_batch: int = 0,
                  num_batches: int | None = None) -> grain.IterDataset:
    """Returns shuffled batches; the seed determines order and augmentation.

    Of each global batch of `batch_windows`, this process reads `rows` and of
    each window `samples`; None: all. Batches begin with number `first_batch`,
    so that a run can continue with another number of threads or processes.
    Without `num_batches` they go on for ever.
    """
    draws = (grain.MapDataset.range(num_videos)
             .seed(seed).shuffle().repeat().random_map(_draw))
    rows = range(batch_windows) if rows is None else rows
    pieces = transform.pieces(samples, -(-num_threads // len(rows)))
    places = [(row, piece) for row in rows for piece in pieces]
    end = sys.maxsize if num_batches is None else (
        (first_batch + num_batches) * len(places))

    def example(index: int) -> Example:
        batch, place = divmod(index, len(places))
        row, piece = places[place]
        return transform.example(draws[batch * batch_windows + row], piece)

    return (grain.MapDataset.range(first_batch * len(places), end)
            .map(example)
            .to_iter_dataset(grain.ReadOptions(
                num_threads=min(num_threads, len(places)),
                prefetch_buffer_size=len(places)))
            .batch(len(places), drop_remainder=True,
                   batch_fn=lambda some: join_pieces(some, len(pieces))))


def join_pieces(examples: Sequence[Example], num_pieces: int) -> Batch:
    """Returns a batch of windows, each of which is `num_pieces` examples."""
    windows = [examples[first:first + num_pieces]
               for first in range(0, len(examples), num_pieces)]
    batch = {name: np.stack([window[0][name] for window in windows])
             for name in examples[0] if name != "frames"}
    if "frames" in examples[0]:
        frames = np.concatenate([one["frames"] for one in examples])
        batch["frames"] = frames.reshape(len(windows), -1, *frames.shape[1:])
    readable, decoded, faults = (
        np.reshape([one[name] for one in examples], (len(windows), num_pieces))
        for name in ("readable", "decoded_frames", "fault"))
    return {**batch, "readable": readable.all(axis=1),
            "decoded_frames": decoded.sum(axis=1, dtype=np.int32),
            # The pieces of a window are of one video; "" is no fault.
            "fault": np.array([max(row) for row in faults.tolist()])}


def _draw(index: int, rng: np.random.Generator) -> Draw:
    # Grain reuses its generator as soon as this returns.
    return int(index), copy.deepcopy(rng)
