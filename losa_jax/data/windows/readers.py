"""What windows are read from: video files, or features of their frames.

`FrameReader` decodes videos, `FeatureReader` reads cached features of our
backbones or files of other tools, with the same methods.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.features.tap_cache import TapCache
from losa_jax.data.records import Video, Window
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.frame import DecodedFrame
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows import augment
from losa_jax.data.windows.batch import Example, Inputs
from losa_jax.data.windows.sampling import (
    clip_alignment,
    num_clips,
    test_windows_of,
    window_step,
)
from losa_jax.data.windows.stream import WindowRow, sliding_windows

FeatureStore = TapCache | FeatureFiles


class FrameReader:
    """Decodes windows of videos.

    Attributes:
      stream_threads: threads that a `WindowStream` reads test windows with.
    """

    def __init__(self, config: Any, cache: FrameCache | None = None):
        """
        Args:
          config: the whole config (sections `window`, `augment`, `data`).
          cache: holds the frames of small sets; None keeps nothing.
        """
        self._augment, self._window = config.augment, config.window
        self._cache = FrameCache(0.0) if cache is None else cache
        self.stream_threads: int = config.data.num_threads

    def allocate(self, num_windows: int, num_samples: int) -> np.ndarray:
        """Allocates frames of a batch, uint8 [n, f, size, size, 3]."""
        size = self._augment.size
        return np.empty((num_windows, num_samples, size, size, 3), np.uint8)

    def empty_window(self, num_samples: int) -> Inputs:
        """Returns the inputs of a window of zeros; nothing is decoded."""
        size = self._augment.size
        return {"frames": np.zeros((num_samples, size, size, 3), np.uint8)}

    def training_inputs(self, video: Video, window: Window,
                        rng: np.random.Generator, out: np.ndarray | None, *,
                        augmented: bool = True) -> Example:
        """Returns the encoder's inputs of a training window.

        Args:
          rng: draws the augmentation.
          out: [f, size, size, 3] of `allocate`, where frames are written.
          augmented: False gives the test view.

        Raises:
          VideoDecodeError: a frame cannot be decoded.
        """
        if out is None:
            out, = self.allocate(1, window.num_samples)
        if not augmented:
            num_decoded = self._cache.read_into(
                out, video, window, self._write_test_view)
            return {"frames": out, "decoded_frames": np.int32(num_decoded)}
        clip: int = (self._window.clip_samples if self._augment.per == "clip"
                     else window.num_samples)
        views = [augment.TrainView(video.info.height, video.info.width, rng,
                                   self._augment)
                 for _ in range(window.num_samples // clip)]
        num_decoded = self._cache.read_into(
            out, video, window,
            lambda frame, i, pixels: views[i // clip].apply(frame, pixels))
        for view, part in zip(views, np.split(out, len(views)), strict=True):
            finished = view.finish(part)
            if finished is not part:  # avoids a copy of the window
                part[:] = finished
        return {"frames": out, "decoded_frames": np.int32(num_decoded)}

    def _write_test_view(self, frame: DecodedFrame, i: int, out: np.ndarray
                         ) -> None:
        out[:] = self._test_view(frame)

    def _test_view(self, frame: DecodedFrame) -> np.ndarray:
        return augment.test_view(frame.rgb(), self._augment.size,
                                 self._augment.test_resize)

    def test_windows(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[tuple[Window, Inputs]]:
        """Yields all test windows of a video and the encoder's inputs.

        Raises:
          VideoDecodeError: a frame cannot be decoded.
        """
        window, align = self._window, clip_alignment(self._window)
        samples = self.test_samples(video, decoder_threads)
        for place, frames in sliding_windows(
                samples, window.samples,
                window_step(window.samples, window.overlap, align), align):
            yield place, {"frames": frames}

    def clips(self, video: Video, clip_frames: int, stride_frames: int,
              decoder_threads: int = 1
              ) -> Iterator[tuple[Window, np.ndarray]]:
        """Yields where each clip of a video is (see `num_clips`), and its
        frames, uint8 [f, size, size, 3]; errors as `test_windows`."""
        count = num_clips(video.grid.num_samples, clip_frames, stride_frames)
        starts = stride_frames * np.arange(count)
        # Samples between the clips are left out. In the rest, clips overlap
        # by what they share, or not at all.
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
        indices = video.grid.frame_indices(samples)
        kept = self._cache.kept_frames(video)
        frames: Iterable[DecodedFrame] = (
            iterate_frames(video.open(), indices, video.info,
                           threads=decoder_threads) if kept is None
            else map(kept.__getitem__, indices.tolist()))
        last = None
        for frame in frames:
            if frame is not last:  # one frame may serve several samples
                last, view = frame, self._test_view(frame)
            yield view

    def full_samples(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[np.ndarray]:
        """Yields every sample at the file's own size, uint8 [H, W, 3]."""
        indices = video.grid.frame_indices(np.arange(video.grid.num_samples))
        for frame in iterate_frames(video.open(), indices, video.info,
                                    threads=decoder_threads):
            yield frame.rgb()


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
        windows = test_windows_of(video, self._config)
        yield from zip(windows, self._store.read_windows(video, windows),
                       strict=True)


WindowReader = FrameReader | FeatureReader


def test_rows(reader: WindowReader, videos: Sequence[Video]
              ) -> Callable[[int, int], Iterator[tuple[WindowRow, Inputs]]]:
    """Returns the `windows_of` of a `WindowStream` over test windows."""
    def windows_of(number: int, decoder_threads: int
                   ) -> Iterator[tuple[WindowRow, Inputs]]:
        for window, inputs in reader.test_windows(videos[number],
                                                  decoder_threads):
            yield WindowRow(number, window), inputs

    return windows_of
