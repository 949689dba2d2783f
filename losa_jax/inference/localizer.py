"""A finished model that tells what happens when in a video.

The seam between models and videos: `Localizer.predict_windows` comes from a
run or from an exported folder (`losa_jax.inference.load`); all else is the
same for both.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from losa_jax.data.records import Video
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.readers import FrameReader, test_rows
from losa_jax.data.windows.sampling import video_grid
from losa_jax.data.windows.stream import (
    VideoEnd,
    WindowStream,
)
from losa_jax.detection.nms import suppress
from losa_jax.detection.segments import Detection, Segments, detections
from losa_jax.detection.thresholds import DEFAULT_THRESHOLD
from losa_jax.errors import InputError
from losa_jax.inference.run_windows import (
    VideoSegments,
    nms_settings,
    run_windows,
)

# {"frames": uint8 [b, f, size, size, 3], "valid_samples": int32 [b]} to
# segments [b, m] in tokens of their window; b is `Localizer.batch_windows`.
PredictWindows = Callable[[Inputs], Segments]


class VideoResult(NamedTuple):
    """The result of one video.

    Attributes:
      video: as it was probed.
      detections: by descending score; all that NMS leaves, no threshold.
      error: why there are none, where the video could not be read.
    """

    video: Video
    detections: list[Detection]
    error: InputError | None = None


def _check_limits(threshold: float | None, top_k: int | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold={threshold}: must be a score within 0 "
                         "and 1, or None for each class's own")
    if top_k is not None and not (isinstance(top_k, Integral) and top_k >= 1):
        raise InputError(f"top_k={top_k}: must be 1 or more, or None for "
                         "config.evaluate.max_detections")


@dataclasses.dataclass(frozen=True)
class Localizer:
    """A model and all that it takes to use it on any video.

    Attributes:
      config: of the run; sections `window`, `augment` (size, test_resize),
        `data` (check, num_threads) and `evaluate` are used.
      class_names: in label order.
      thresholds: {class name: score 0..1 from which a detection of the class
        is worth showing}, at which its F1 was best; 0.5 for a class that is
        not there.
      identity: tells this model and its settings from any other.
      batch_windows: that `predict_windows` takes at once.
      predict_windows: {"frames": uint8 [b, f, size, size, 3] RGB,
        "valid_samples": int32 [b]} to `Segments` in tokens of each window.
    """

    config: ConfigDict
    class_names: tuple[str, ...]
    thresholds: Mapping[str, float]
    identity: str
    batch_windows: int
    predict_windows: PredictWindows

    def __call__(self, video: str | Path, *, threshold: float | None = None,
                 top_k: int | None = None) -> list[Detection]:
        """What happens when in a video, by descending score.

        Args:
          video: a file that FFmpeg reads.
          threshold: lowest score shown, 0..1; 0 shows all that is kept. None
            takes each class's own, 0.5 where the run measured none.
          top_k: detections that NMS keeps at most, 1 or more, in place of
            config.evaluate.max_detections.

        Returns:
          detections in seconds from the first frame.

        Raises:
          InputError: the file is missing or no whole video, or `threshold`
            or `top_k` is none.
        """
        _check_limits(threshold, top_k)
        result, = self.many([self.probe(video)], top_k=top_k)
        if result.error is not None:
            raise result.error
        return self.shown(result.detections, threshold)

    def probe(self, path: str | Path, video_id: str = "") -> Video:
        """What `many` takes of a file.

        Args:
          path: of the video.
          video_id: its name in results; "" is the file's without its end.

        Returns:
          what is known of the video: id, size, frame rate, samples.

        Raises:
          InputError: the file is missing or no whole video.
        """
        path = Path(path)
        info = probe_video(path, check=self.config.data.check)
        return Video(video_id or path.stem, info,
                           video_grid(info, self.config.window), ())

    def shown(self, detections: Sequence[Detection],
              threshold: float | None = None) -> list[Detection]:
        """Those whose score reaches the threshold, in the order given.

        Args:
          detections: in any order.
          threshold: lowest score shown, 0..1; None takes each class's own.

        Returns:
          some of the detections.

        Raises:
          InputError: `threshold` is none.
        """
        _check_limits(threshold, None)
        return [found for found in detections if found.score >= (
            self.threshold_of(found.label) if threshold is None
            else threshold)]

    def threshold_of(self, label: str) -> float:
        """Returns the score from which a class is shown; 0.5 without one."""
        return self.thresholds.get(label, DEFAULT_THRESHOLD)

    def many(self, videos: Sequence[Video], *, top_k: int | None = None,
             on_windows: Callable[[int], object] = lambda count: None
             ) -> Generator[VideoResult]:
        """Results of videos as they are done; windows of several share a
        batch.

        Args:
          videos: of `probe`.
          top_k: detections that NMS keeps at most of each video, 1 or more,
            in place of config.evaluate.max_detections.
          on_windows: called with the number of windows that were predicted
            since its last call.

        Returns:
          a generator of `VideoResult`s in the order given; a video that
          cannot be read to its end has an `error` in place of detections.

        Raises:
          InputError: `top_k` is none.
        """
        _check_limits(None, top_k)
        names = self.class_names
        settings = nms_settings(self.config.evaluate, max_kept=top_k)
        segments = self.video_segments(videos)
        stream = WindowStream(
            range(len(videos)), test_rows(FrameReader(self.config), videos),
            batch_windows=self.batch_windows,
            num_threads=self.config.data.num_threads)
        with contextlib.closing(iter(stream)) as batches:
            for item in run_windows(self.predict_windows, batches):
                if not isinstance(item, VideoEnd):
                    segments.add(*item)
                    on_windows(1)
                    continue
                left, _ = suppress(segments.take(item.video_number),
                                   len(names), settings)
                yield VideoResult(
                    videos[item.video_number],
                    [] if item.error else detections(left, names), item.error)

    def video_segments(self, videos: Sequence[Video]) -> VideoSegments:
        """Returns what collects the outputs of `predict_windows`."""
        window = self.config.window
        return VideoSegments([video.grid for video in videos],
                             window.samples / window.tokens)
