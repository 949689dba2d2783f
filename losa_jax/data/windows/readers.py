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
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.stream import WindowRow, sliding_windows
from losa_jax.utils.threads import thread_count

FeatureStore = TapCache | FeatureFiles


class FrameReader:
    """Decodes windows of videos."""

    # Whether a part of a window can be read without the rest.
    reads_samples = True

    def __init__(self, config: Any, cache: FrameCache | None = None):
        """Takes the whole config, and a cache of small sets of videos."""
        self._augment, self._window = config.augment, config.window
        self._cache = FrameCache(0.0) if cache is None else cache
        # Threads that a `WindowStream` reads test windows with.
        self.stream_threads = thread_count(config.data.num_threads)

    def empty_window(self, num_samples: int) -> Inputs:
        """Returns the inputs of a window of zeros; nothing is decoded."""
        size = self._augment.size
        return {"frames": np.zeros((num_samples, size, size, 3), np.uint8)}

    def training_inputs(self, video: Video, window: Window,
                        rng: np.random.Generator, samples: range, *,
                        augmented: bool = True) -> tuple[Inputs, int]:
        """Returns the encoder's inputs of samples of a training window, and
        how many frames were decoded.

        `rng` draws the augmentation, without which they are test views.
        VideoDecodeError if one cannot be decoded.
        """
        indices = window.frame_indices(video.grid)[
            samples.start:samples.stop]
        frames, num_decoded = self._cache.frames(video, indices,
                                                 skip_unneeded=True)
        clip = (self._window.clip_samples if self._augment.per == "clip"
                else window.num_samples)
        # All clips of the window are drawn, so that what this process reads
        # does not matter.
        num_views = window.num_samples // clip if augmented else 0
        views = [augment.TrainView(video.info.height, video.info.width, rng,
                                   self._augment) for _ in range(num_views)]
        inputs = self.empty_window(len(samples))
        for out, sample, frame in zip(inputs["frames"], samples, frames,
                                      strict=True):
            out[:] = (views[sample // clip].apply(frame) if augmented
                      else self._test_view(frame))
        return inputs, num_decoded

    def _test_view(self, frame: DecodedFrame) -> np.ndarray:
        return augment.test_view(frame.rgb(), self._augment.size,
                                 self._augment.test_resize)

    def test_windows(self, video: Video, decoder_threads: int = 1,
                     samples: range | None = None
                     ) -> Iterator[tuple[Window, Inputs]]:
        """Yields all test windows of a video and the encoder's inputs, of
        these samples of each (None: all); errors as `training_inputs`."""
        window, align = self._window, sampling.clip_alignment(self._window)
        if samples is None or len(samples) == window.samples:
            step = sampling.window_step(window.samples, window.overlap, align)
            views = self.test_samples(video, decoder_threads)
            for place, frames in sliding_windows(views, window.samples, step,
                                                 align):
                yield place, {"frames": frames}
            return
        places = sampling.test_windows(video.grid, window.samples,
                                       window.overlap, align)
        wanted = [place.first_sample + np.minimum(samples,
                                                  place.valid_samples - 1)
                  for place in places]
        numbers = np.unique(np.concatenate(wanted))
        left = zip(numbers, self.test_samples(video, decoder_threads, numbers),
                   strict=True)
        kept: dict[int, np.ndarray] = {}
        for place, some in zip(places, wanted, strict=True):
            kept = {number: view for number, view in kept.items()
                    if number >= some[0]}
            while some[-1] not in kept:
                number, view = next(left)
                kept[number] = view
            yield place, {"frames": np.stack([kept[n] for n in some])}

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

    reads_samples = False

    # Features are only copied: several threads gain nothing.
    stream_threads = 1

    def __init__(self, store: FeatureStore, config: Any):
        """Takes the whole config (sections `window`, `head`)."""
        self._store, self._config = store, config
        self.empty_window = store.empty_window

    def training_inputs(self, video: Video, window: Window,
                        rng: np.random.Generator, samples: range, *,
                        augmented: bool = True) -> tuple[Inputs, int]:
        """As `FrameReader.training_inputs`, of the whole window; `rng` draws a
        cached view."""
        views = self._store.num_views(video) if augmented else 1
        view = int(rng.integers(views)) if views > 1 else 0
        inputs, = self._store.read_windows(video, [window], view)
        return inputs, 0

    def test_windows(self, video: Video, decoder_threads: int = 1,
                     samples: range | None = None
                     ) -> Iterator[tuple[Window, Inputs]]:
        """As `FrameReader.test_windows`, of whole windows."""
        windows = sampling.test_windows_of(video, self._config)
        return zip(windows, self._store.read_windows(video, windows),
                   strict=True)


WindowReader = FrameReader | FeatureReader


def test_rows(reader: WindowReader, videos: Sequence[Video],
              samples: range | None = None
              ) -> Callable[[int, int], Iterator[tuple[WindowRow, Inputs]]]:
    """Returns the `windows_of` of a `WindowStream` over test windows."""
    return lambda number, decoder_threads: (
        (WindowRow(number, window), inputs) for window, inputs
        in reader.test_windows(videos[number], decoder_threads, samples))
