"""A finished model that localizes actions in videos."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from losa_jax.data.records import Video
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import batch, readers, sampling
from losa_jax.data.windows.stream import (
    VideoEnd,
    WindowRow,
    WindowStream,
)
from losa_jax.detection import metrics, nms
from losa_jax.detection.segments import Detection, Segments, detections
from losa_jax.errors import InputError
from losa_jax.inference import run_windows
from losa_jax.timeline import SampleGrid

# Opens a video while it is read. None leaves it out; an InputError in the
# block or before it is the result.
Opener = Callable[[], contextlib.AbstractContextManager[Video | None]]


class VideoResult(NamedTuple):
    """What NMS keeps, by descending score, or why a video is not readable."""

    number: int  # of the opener
    video: Video | None  # None if it was not opened
    detections: list[Detection]
    error: InputError | None = None


def _check_limits(threshold: float | None, top_k: int | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold={threshold}: must be a score from 0 to "
                         "1, or None for the threshold of each class")
    if top_k is not None and not (isinstance(top_k, Integral) and top_k >= 1):
        raise InputError(f"top_k={top_k}: give a whole number from 1 on, or "
                         "None for config.evaluate.max_detections")


@dataclasses.dataclass(frozen=True)
class Localizer:
    """A model and the settings with which it is used on videos.

    `losa_jax.load` makes one from a run or from an exported folder; only
    `predict_windows` differs between the two.

    Attributes:
      config: of the run; sections `window`, `augment` (size, test_resize),
        `data` (check, num_threads) and `evaluate` are used.
      class_names: in label order.
      thresholds: {class name: score 0..1 of its best F1}; a class that is
        missing has 0.5.
      identity: hash of the model and its settings.
      batch_windows: windows that `predict_windows` takes at once.
      predict_windows: {"frames": uint8 [b, f, size, size, 3] RGB,
        "valid_samples": int32 [b]} to `Segments` [b, m] in tokens of each
        window, with b = `batch_windows`.
    """

    config: ConfigDict
    class_names: tuple[str, ...]
    thresholds: Mapping[str, float]
    identity: str
    batch_windows: int
    predict_windows: Callable[[batch.Inputs], Segments]

    def __call__(self, video: str | Path, *, threshold: float | None = None,
                 top_k: int | None = None) -> list[Detection]:
        """Returns the detections in a video, by descending score.

        Args:
          video: a file that FFmpeg reads.
          threshold: lowest score, 0..1; None takes the threshold of each
            class.
          top_k: detections that NMS keeps at most, 1 or more; None takes
            config.evaluate.max_detections.

        Returns:
          detections in seconds on the clock that players show.

        Raises:
          InputError: the file is missing or damaged, or `threshold` or
            `top_k` is out of range.
        """
        _check_limits(threshold, top_k)
        probed = self.probe(video)
        result, = self.many([lambda: contextlib.nullcontext(probed)],
                            top_k=top_k)
        if result.error is not None:
            raise result.error
        return self.shown(result.detections, threshold)

    def probe(self, path: str | Path, video_id: str = "") -> Video:
        """Returns the properties of a video, for `many`.

        Args:
          path: of the video.
          video_id: its name in results; "" is the file's without suffix.

        Raises:
          InputError: the file is missing or damaged.
        """
        path = Path(path)
        info = probe_video(path, check=self.config.data.check)
        return Video(video_id or path.stem, info,
                     sampling.video_grid(info, self.config.window), ())

    def shown(self, detections: Sequence[Detection],
              threshold: float | None = None) -> list[Detection]:
        """Returns the detections that reach the threshold, in their order.

        Arguments and errors are those of `__call__`.
        """
        _check_limits(threshold, None)
        return [one for one in detections if one.score >= (
            self.threshold_of(one.label) if threshold is None else threshold)]

    def threshold_of(self, label: str) -> float:
        """Returns the threshold of a class."""
        return self.thresholds.get(label, metrics.DEFAULT_THRESHOLD)

    def many(self, openers: Sequence[Opener], *, top_k: int | None = None,
             on_windows: Callable[[int], object] = lambda count: None,
             stopped: Callable[[], bool] = lambda: False
             ) -> Generator[VideoResult]:
        """Yields the results of videos whose windows share batches.

        Args:
          openers: of the videos. They are called in order by the threads that
            read, when one is free.
          top_k: as of `__call__`.
          on_windows: called with the number of windows predicted since the
            last call.
          stopped: asked while waiting for windows; True ends the results.

        Raises:
          InputError: `top_k` is out of range.
        """
        _check_limits(None, top_k)
        names = self.class_names
        settings = run_windows.nms_settings(self.config.evaluate, top_k)
        videos: dict[int, Video] = {}
        grids: dict[int, SampleGrid] = {}
        segments = run_windows.VideoSegments(grids, self.config.window)
        reader = readers.FrameReader(self.config)

        def windows_of(number: int, decoder_threads: int
                       ) -> Generator[tuple[WindowRow, batch.Inputs]]:
            with openers[number]() as video:
                if video is None:
                    return
                videos[number], grids[number] = video, video.grid
                for window, inputs in reader.test_windows(video,
                                                          decoder_threads):
                    yield WindowRow(number, window), inputs

        stream = WindowStream(
            range(len(openers)), windows_of, batch_windows=self.batch_windows,
            num_threads=self.config.data.num_threads, stopped=stopped)
        with contextlib.closing(iter(stream)) as batches:
            for item in run_windows.run_windows(self.predict_windows, batches):
                if not isinstance(item, VideoEnd):
                    segments.add(*item)
                    on_windows(1)
                    continue
                number, error = item
                video = videos.pop(number, None)
                kept, _ = nms.suppress(segments.take(number), len(names),
                                       settings)
                grids.pop(number, None)
                if video is not None or error is not None:
                    yield VideoResult(
                        number, video,
                        [] if error else detections(kept, names), error)
