"""What windows are read from: video files, or features of their frames."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.features.tap_cache import TapCache
from losa_jax.data.records import Video, Window
from losa_jax.data.video.frame import DecodedFrame
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows import augment, sampling
from losa_jax.data.windows.batch import Example, Inputs
from losa_jax.data.windows.stream import WindowRow, sliding_windows

FeatureStore = TapCache | FeatureFiles


class FrameReader:
    """Decodes windows of videos."""

    def __init__(self, config: Any, cache: FrameCache | None = None):
        """Takes the whole config, and a cache of small sets of videos."""
        self._augment, self._window = config.augment, config.window
        self._cache = FrameCache(0.0) if cache is None else cache
        # Threads that a `WindowStream` reads test windows with.
        self.stream_threads: int = config.data.num_threads

    def allocate(self, num_windows: int, num_samples: int) -> np.ndarray:
        """Returns zeros for a batch, uint8 [n, f, size, size, 3]."""
        size = self._augment.size
        return np.zeros((num_windows, num_samples, size, size, 3), np.uint8)

    def empty_window(self, num_samples: int) -> Inputs:
        """Returns the inputs of a window of zeros; nothing is decoded."""
        return {"frames": self.allocate(1, num_samples)[0]}

    def training_inputs(self, video: Video, window: Window,
                        rng: np.random.Generator, out: np.ndarray | None, *,
                        augmented: bool = True) -> Example:
        """Returns the encoder's inputs of a training window.

        Frames are written into `out`, [f, size, size, 3] of `allocate`;
        `rng` draws the augmentation, without which they are test views.
        VideoDecodeError if one cannot be decoded.
        """
        assert out is not None
        frames, num_decoded = self._cache.frames(
            video, window.frame_indices(video.grid), skip_unneeded=True)
        clip = (self._window.clip_samples if self._augment.per == "clip"
                else window.num_samples)
        num_views = window.num_samples // clip if augmented else 0
        views = [augment.TrainView(video.info.height, video.info.width, rng,
                                   self._augment) for _ in range(num_views)]
        for i, frame in enumerate(frames):
            out[i] = (views[i // clip].apply(frame) if augmented
                      else self._test_view(frame))
        for i, view in enumerate(views):
            view.finish(out[i * clip:(i + 1) * clip])
        return {"frames": out, "decoded_frames": np.int32(num_decoded)}

    def _test_view(self, frame: DecodedFrame) -> np.ndarray:
        return augment.test_view(frame.rgb(), self._augment.size,
                                 self._augment.test_resize)

    def test_windows(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[tuple[Window, Inputs]]:
        """Returns all test windows of a video and the encoder's inputs; errors
        as `training_inputs`."""
        window, align = self._window, sampling.clip_alignment(self._window)
        step = sampling.window_step(window.samples, window.overlap, align)
        samples = self.test_samples(video, decoder_threads)
        return ((place, {"frames": frames}) for place, frames in (
            sliding_windows(samples, window.samples, step, align)))

    def clips(self, video: Video, clip_frames: int, stride_frames: int,
              decoder_threads: int = 1
              ) -> Iterator[tuple[Window, np.ndarray]]:
        """Yields where each clip of a video is (see `num_clips`), and its
        frames, uint8 [f, size, size, 3]; errors as `test_windows`."""
        starts = stride_frames * np.arange(sampling.num_clips(
            video.grid.num_samples, clip_frames, stride_frames))
        # Samples between the clips are left out.
        samples = np.unique(starts[:, None] + np.arange(clip_frames))
        step = min(stride_frames, clip_frames)
        for window, frames in sliding_windows(
                self.test_samples(video, decoder_threads, samples),
                clip_frames, step):
            yield dataclasses.replace(
                window, first_sample=starts[window.first_sample // step]
            ), frames

    def test_samples(self, video: Video, decoder_threads: int = 1,
                     samples: np.ndarray | None = None
                     ) -> Iterator[np.ndarray]:
        """Yields the test views of samples (rising numbers; None: all), uint8
        [size, size, 3]; errors as `test_windows`."""
        if samples is None:
            samples = np.arange(video.grid.num_samples)
        frames, _ = self._cache.frames(
            video, video.grid.frame_indices(samples), threads=decoder_threads)
        last = None
        for frame in frames:
            if frame is not last:  # one frame may serve several samples
                last, view = frame, self._test_view(frame)
            yield view

    def full_samples(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[np.ndarray]:
        """Returns all samples at the file's own size, uint8 [H, W, 3]."""
        indices = video.grid.frame_indices(np.arange(video.grid.num_samples))
        frames, _ = self._cache.frames(video, indices, threads=decoder_threads)
        return (frame.rgb() for frame in frames)


class FeatureReader:
    """Reads features in place of frames."""

    # Features are only copied: several threads gain nothing.
    stream_threads = 1

    def __init__(self, store: FeatureStore, config: Any):
        """Takes the whole config (sections `window`, `head`)."""
        self._store, self._config = store, config
        self.empty_window = store.empty_window

    def allocate(self, num_windows: int, num_samples: int) -> None:
        """None: features are not written into a batch."""

    def training_inputs(self, video: Video, window: Window,
                        rng: np.random.Generator, out: np.ndarray | None, *,
                        augmented: bool = True) -> Example:
        """As `FrameReader.training_inputs`; `rng` draws a cached view."""
        views = self._store.num_views(video) if augmented else 1
        view = int(rng.integers(views)) if views > 1 else 0
        inputs, = self._store.read_windows(video, [window], view)
        return inputs

    def test_windows(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[tuple[Window, Inputs]]:
        """As `FrameReader.test_windows`."""
        windows = sampling.test_windows_of(video, self._config)
        return zip(windows, self._store.read_windows(video, windows),
                   strict=True)


WindowReader = FrameReader | FeatureReader


def test_rows(reader: WindowReader, videos: Sequence[Video]
              ) -> Callable[[int, int], Iterator[tuple[WindowRow, Inputs]]]:
    """Returns the `windows_of` of a `WindowStream` over test windows."""
    return lambda number, decoder_threads: (
        (WindowRow(number, window), inputs) for window, inputs
        in reader.test_windows(videos[number], decoder_threads))
