"""Windows of videos as training and testing examples, and their row.

The frames of a batch are written where they stay: a window of THUMOS takes
118 MB, too much to be copied into its batch.
"""

import copy
from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.features.tap_cache import TapStore
from losa_jax.data.records import Video, Window
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows import augment, sampling
from losa_jax.data.windows.loader import Batch, Batches, ReadAhead
from losa_jax.data.windows.skipped_videos import Example, pack_faults

# What windows are read from: features, or decoded frames.
FeatureStore = TapStore | FeatureFiles
WindowReader = FeatureStore | FrameCache


# A video's number, and what draws its window and view.
Draw = tuple[int, np.random.Generator]


class TrainWindows:
    """A video's number and a random generator to one training example."""

    def __init__(self, videos: Sequence[Video],
                 class_names: Sequence[str], config: Any, *,
                 cache: WindowReader, augmented: bool = True):
        """
        Args:
          videos: the training set.
          class_names: in the order of the labels.
          config: the whole config (sections `window`, `augment`, `data`).
          cache: reads the frames, or cached features in their place.
          augmented: False shows the test view of a random window (used to
            measure feature statistics).
        """
        self._videos = videos
        self._class_names = list(class_names)
        self._config = config
        self._cache = cache
        self._augmented = augmented
        self._max_actions = max(
            1, max((len(video.actions) for video in videos), default=1))

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Examples, stacked."""
        frames = None
        if isinstance(self._cache, FrameCache):
            frames = _no_frames(len(draws), self._config.window.frames,
                                self._config)
        return _stacked([
            self(index, rng, None if frames is None else frames[row])
            for row, (index, rng) in enumerate(draws)], frames)

    def __call__(self, index: int, rng: np.random.Generator,
                 frames: np.ndarray | None = None) -> Example:
        """One example.

        Args:
          frames: uint8 [f, size, size, 3], where its frames are written;
            None makes new memory.
        """
        # With "skip" a video that fails makes room for the next one: never
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

    def _example(self, number: int, video: Video,
                 rng: np.random.Generator, frames: np.ndarray | None
                 ) -> Example:
        config = self._config.window
        ratio = tuple(config.short_crop_ratio) or None
        window = sampling.train_window(
            video.grid, video.actions, config.frames, rng, crop_ratio=ratio,
            min_action_kept=config.min_action_kept,
            align=clip_alignment(config))
        segments, labels, valid = sampling.window_actions(
            video.grid, window, video.actions, self._class_names,
            samples_per_token=config.frames / config.tokens,
            min_action_kept=config.min_action_kept,
            max_actions=self._max_actions)
        return {
            **self._inputs(video, window, rng, frames),
            "valid_samples": np.int32(window.valid_samples),
            "segments": segments,
            "labels": labels,
            "action_valid": valid,
            "video_number": np.int32(number),
        }

    def _inputs(self, video: Video, window: Window,
                rng: np.random.Generator, frames: np.ndarray | None
                ) -> Example:
        """What the encoder reads: frames, or features of the test view."""
        if isinstance(self._cache, TapStore):
            views = self._cache.num_views(video) if self._augmented else 1
            view = int(rng.integers(views)) if views > 1 else 0
            return self._cache.read_window(video, window, view)
        if isinstance(self._cache, FeatureFiles):
            return self._cache.read_window(video, window)
        settings = self._config.augment
        if frames is None:
            (frames,) = _no_frames(1, window.num_samples, self._config)
        if not self._augmented:
            return _test_inputs(frames, self._cache, video, window, settings)
        clip: int = (self._config.window.clip_frames
                     if settings.per == "clip" else window.num_samples)
        draws = [augment.TrainView(video.info.height, video.info.width, rng,
                                   settings)
                 for _ in range(window.num_samples // clip)]
        decoded = self._cache.read_into(
            frames, video, window,
            lambda picture, place, out: draws[place // clip].picture(
                picture, out))
        for draw, part in zip(draws, np.split(frames, len(draws)),
                              strict=True):
            finished = draw.finish(part)
            if finished is not part:  # a window is large to copy in vain
                part[:] = finished
        return {"frames": frames, "decoded_frames": np.int32(decoded)}


def _test_inputs(frames: np.ndarray, reader: FrameCache, video: Video,
                 window: Window, settings: Any) -> Example:
    """Frames as testing sees them, written into `frames`.

    Args:
      settings: the config section `augment`.
    """
    decoded = reader.read_into(frames, video, window, augment.as_tested(
        settings.size, settings.test_resize))
    return {"frames": frames, "decoded_frames": np.int32(decoded)}


def _no_frames(windows: int, samples: int, config: Any) -> np.ndarray:
    """Memory for uint8 [windows, samples, size, size, 3]."""
    size = config.augment.size
    return np.empty((windows, samples, size, size, 3), np.uint8)


def _stacked(examples: Sequence[Example],
             frames: np.ndarray | None) -> Batch:
    """A batch of examples whose frames, if any, lie in `frames`."""
    return {name: (frames if name == "frames" and frames is not None
                   else np.stack([example[name] for example in examples]))
            for name in examples[0]}


def clip_alignment(window: Any) -> int:
    """Samples at whose multiples windows start."""
    return window.clip_frames if window.align_to_clips else 1


class TestWindows:
    """The number of a test window to its frames."""

    def __init__(self, videos: Sequence[Video], config: Any, *,
                 cache: WindowReader):
        self._videos = videos
        self._config = config
        self._cache = cache
        self.items = [(number, window) for number, video in enumerate(videos)
                      for window in _test_windows(video, config)]

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Windows of one length, stacked."""
        frames = None
        if isinstance(self._cache, FrameCache):
            frames = _no_frames(len(indices), self._window(
                indices[0])[1].num_samples, self._config)
        return _stacked([
            self(index, None if frames is None else frames[row])
            for row, index in enumerate(indices)], frames)

    def _window(self, index: int) -> tuple[int, Window]:
        return self.items[index if index >= 0 else -1 - index]

    def __call__(self, index: int, frames: np.ndarray | None = None
                 ) -> Example:
        """Input of window `index`; -1 - index is padding of its shape.

        A window that cannot be decoded and may be skipped is padding too,
        and tells of its fault.

        Args:
          frames: as for `TrainWindows`.
        """
        number, window = self._window(index)
        video = self._videos[number]
        faults: list[tuple[str, str]] = []
        inputs: Example | None
        if not isinstance(self._cache, FrameCache):
            inputs = self._cache.read_window(video, window)
        else:
            if frames is None:
                (frames,) = _no_frames(1, window.num_samples, self._config)
            try:
                inputs = None if index < 0 else _test_inputs(
                    frames, self._cache, video, window, self._config.augment)
            except VideoDecodeError as error:
                if self._config.data.on_broken_video != "skip":
                    raise
                faults.append((video.video_id, str(error)))
                inputs = None
            if inputs is None:
                frames[:] = 0
                inputs = {"frames": frames, "decoded_frames": np.int32(0)}
        is_real = index >= 0 and not faults
        return {**inputs, **pack_faults(faults),
                "valid_samples": np.int32(
                    window.valid_samples if is_real else 0),
                "window_number": np.int32(index)}


def train_dataset(transform: TrainWindows, num_videos: int, *, seed: int,
                  batch_windows: int, num_threads: int,
                  worker_processes: int = 0,
                  num_epochs: int | None = None,
                  rows: Sequence[int] | None = None) -> Batches:
    """Shuffled batches; order and augmentation depend on the seed alone.

    Args:
      batch_windows: of a global batch.
      num_threads, worker_processes: see `ReadAhead`.
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
    return Batches(dataset, ReadAhead(num_threads, worker_processes))


def _draw(index: int, rng: np.random.Generator) -> Draw:
    # Grain takes its generator back as soon as this returns.
    return index, copy.deepcopy(rng)


def _test_windows(video: Video, config: Any) -> list[Window]:
    settings = config.window
    if not settings.test_whole:
        return sampling.test_windows(
            video.grid, settings.frames, settings.overlap,
            align=clip_alignment(settings))
    # Few lengths, each of which is compiled once.
    stride = 2 ** (config.head.num_levels - 1)
    unit = -(-settings.frames // 4 // stride) * stride
    total = video.grid.num_samples
    length = max(settings.frames, -(-total // unit) * unit)
    return [Window(0, length, total)]


def test_dataset(transform: TestWindows, *, batch_windows: int,
                 num_threads: int, worker_processes: int = 0,
                 rows: Sequence[int] | None = None
                 ) -> tuple[Batches, list[list[int]]]:
    """All test windows, those of one length together.

    Args:
      num_threads, worker_processes: see `ReadAhead`.
      rows: as in `train_dataset`.

    Returns:
      the batches, and each global batch's window numbers; the last batch of
      a length is padded with -1 - index.
    """
    by_length: dict[int, list[int]] = {}
    for index, (_, window) in enumerate(transform.items):
        by_length.setdefault(window.num_samples, []).append(index)
    numbers: list[int] = []
    for _, indices in sorted(by_length.items()):
        numbers += indices
        numbers += [-1 - indices[0]] * (-len(indices) % batch_windows)
    rows = tuple(range(batch_windows)) if rows is None else tuple(rows)
    dataset = (
        grain.MapDataset.source(_Rows(numbers, rows, batch_windows))
        .map(transform.batch))
    return (Batches(dataset, ReadAhead(num_threads, worker_processes)),
            [numbers[first:first + batch_windows]
             for first in range(0, len(numbers), batch_windows)])


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
