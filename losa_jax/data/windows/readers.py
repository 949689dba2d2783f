"""What windows are read from: video files, or features of their frames.

`FrameReader` decodes videos, `FeatureReader` reads cached features of our
backbones or files of other tools; the rest of the pipeline asks a
`WindowReader` and does not know which one it has.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.features.tap_cache import TapCache
from losa_jax.data.records import Video, Window
from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.frame_cache import FrameCache
from losa_jax.data.windows import augment
from losa_jax.data.windows.batch import Example, Inputs
from losa_jax.data.windows.sampling import (
    clip_alignment,
    num_clips,
    test_windows_of,
    window_step,
)
from losa_jax.data.windows.stream import (
    WindowRow,
    sliding_windows,
)

# Features in place of videos: both know which videos they have.
FeatureStore = TapCache | FeatureFiles


class WindowReader(Protocol):
    """Reads windows of videos.

    Attributes:
      stream_threads: threads that a `WindowStream` reads test windows with.
    """

    stream_threads: int

    def allocate(self, num_windows: int, num_samples: int
                 ) -> np.ndarray | None:
        """Memory for the frames of a batch, uint8 [n, f, size, size, 3];
        None where windows are features."""
        ...

    def empty_window(self, num_samples: int) -> Inputs:
        """Inputs of a window, of zeros; nothing is decoded."""
        ...

    def training_inputs(self, video: Video, window: Window,
                        rng: np.random.Generator, out: np.ndarray | None, *,
                        augmented: bool = True) -> Example:
        """What the encoder reads of a training window.

        Args:
          rng: draws the augmentation.
          out: [f, size, size, 3] of `allocate`, where frames are written.
          augmented: False gives the test view.

        Raises:
          VideoDecodeError: a frame cannot be decoded.
        """
        ...

    def test_windows(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[tuple[Window, Inputs]]:
        """All test windows of a video and what the encoder reads of them.

        Raises:
          VideoDecodeError: a frame cannot be decoded.
        """
        ...


def test_rows(reader: WindowReader, videos: Sequence[Video]
              ) -> Callable[[int, int], Iterator[tuple[WindowRow, Inputs]]]:
    """The test windows of videos, as a `WindowStream` takes them."""
    def windows_of(number: int, decoder_threads: int
                   ) -> Iterator[tuple[WindowRow, Inputs]]:
        for window, inputs in reader.test_windows(videos[number],
                                                  decoder_threads):
            yield WindowRow(number, window), inputs

    return windows_of


class FrameReader:
    """Decodes videos; keeps the frames of small sets in memory."""

    def __init__(self, config: Any, cache: FrameCache | None = None):
        """
        Args:
          config: the whole config (sections `window`, `augment`, `data`).
          cache: None keeps nothing.
        """
        self._augment, self._window = config.augment, config.window
        self._cache = FrameCache(0.0) if cache is None else cache
        self.stream_threads: int = config.data.num_threads

    def allocate(self, num_windows: int, num_samples: int) -> np.ndarray:
        """See `WindowReader.allocate`."""
        size = self._augment.size
        return np.empty((num_windows, num_samples, size, size, 3), np.uint8)

    def empty_window(self, num_samples: int) -> Inputs:
        """See `WindowReader.empty_window`."""
        size = self._augment.size
        return {"frames": np.zeros((num_samples, size, size, 3), np.uint8)}

    def training_inputs(self, video: Video, window: Window,
                        rng: np.random.Generator, out: np.ndarray | None, *,
                        augmented: bool = True) -> Example:
        """See `WindowReader.training_inputs`."""
        settings = self._augment
        if out is None:
            out, = self.allocate(1, window.num_samples)
        if not augmented:
            decoded = self._cache.read_into(
                out, video, window,
                augment.as_tested(settings.size, settings.test_resize))
            return {"frames": out, "decoded_frames": np.int32(decoded)}
        clip: int = (self._window.clip_samples if settings.per == "clip"
                     else window.num_samples)
        draws = [augment.TrainView(video.info.height, video.info.width, rng,
                                   settings)
                 for _ in range(window.num_samples // clip)]
        decoded = self._cache.read_into(
            out, video, window,
            lambda picture, place, pixels: draws[place // clip].picture(
                picture, pixels))
        for draw, part in zip(draws, np.split(out, len(draws)), strict=True):
            finished = draw.finish(part)
            if finished is not part:  # a window is large to copy in vain
                part[:] = finished
        return {"frames": out, "decoded_frames": np.int32(decoded)}

    def test_windows(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[tuple[Window, Inputs]]:
        """See `WindowReader.test_windows`; one pass over the video."""
        window, align = self._window, clip_alignment(self._window)
        samples = self.test_samples(video, decoder_threads)
        for place, frames in sliding_windows(
                samples, window.samples,
                window_step(window.samples, window.overlap, align), align):
            yield place, {"frames": frames}

    def clips(self, video: Video, clip_frames: int, stride_frames: int,
              decoder_threads: int = 1
              ) -> Iterator[tuple[Window, np.ndarray]]:
        """The clips that lie inside a video, uint8 [f, size, size, 3], and
        where each starts; see `num_clips`.

        Raises:
          VideoDecodeError: a frame cannot be decoded.
        """
        count = num_clips(video.grid.num_samples, clip_frames, stride_frames)
        starts = stride_frames * np.arange(count)
        # What no clip shows is not asked for, so behind each other the
        # clips overlap by what they share, or not at all.
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
        """Samples of a video as testing sees them, uint8 [size, size, 3].

        Args:
          samples: rising numbers; None means all.

        Raises:
          VideoDecodeError: when a frame is due that cannot be decoded.
        """
        settings = self._augment
        if samples is None:
            samples = np.arange(video.grid.num_samples)
        indices = video.grid.frame_indices(samples)
        view = functools.partial(augment.test_picture, size=settings.size,
                                 resize=settings.test_resize)
        kept = self._cache.kept_frames(video)
        frames: Iterator[Any] = (
            iterate_frames(video.open(), indices, info=video.info,
                           threads=decoder_threads) if kept is None
            else (kept[index] for index in indices.tolist()))
        last: Any = None
        for frame in frames:
            if frame is not last:  # one frame may serve several samples
                last = frame
                shown = view(frame if kept is None else frame.rgb())
            yield shown

    def full_samples(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[np.ndarray]:
        """Every sample at the file's own size, uint8 [H, W, 3]."""
        indices = video.grid.frame_indices(np.arange(video.grid.num_samples))
        return iterate_frames(video.open(), indices, info=video.info,
                              threads=decoder_threads)


class FeatureReader:
    """Reads features in place of frames."""

    # They are only copied: nothing is gained by several threads.
    stream_threads = 1

    def __init__(self, store: FeatureStore, config: Any):
        """
        Args:
          config: the whole config (sections `window`, `head`).
        """
        self._store, self._config = store, config

    def allocate(self, num_windows: int, num_samples: int) -> None:
        """See `WindowReader.allocate`."""
        return None

    def empty_window(self, num_samples: int) -> Inputs:
        """See `WindowReader.empty_window`."""
        return self._store.empty_window(num_samples)

    def training_inputs(self, video: Video, window: Window,
                        rng: np.random.Generator, out: np.ndarray | None, *,
                        augmented: bool = True) -> Example:
        """See `WindowReader.training_inputs`; `rng` draws one of the cached
        views."""
        views = self._store.num_views(video) if augmented else 1
        view = int(rng.integers(views)) if views > 1 else 0
        inputs, = self._store.read_windows(video, [window], view)
        return inputs

    def test_windows(self, video: Video, decoder_threads: int = 1
                     ) -> Iterator[tuple[Window, Inputs]]:
        """See `WindowReader.test_windows`."""
        windows = test_windows_of(video, self._config)
        yield from zip(windows, self._store.read_windows(video, windows),
                       strict=True)
