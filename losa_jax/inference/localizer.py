"""A finished model that says what happens when in a video.

The seam between models and videos: `Localizer.predict_windows` comes from a
work directory (`from_workdir`) or from an exported folder; all else is the
same for both.
"""

import contextlib
import dataclasses
import hashlib
import json
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from losa_jax.data.records import Video, Window
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows.sampling import video_grid
from losa_jax.data.windows.stream import VideoEnd, VideoWindow, stream_windows
from losa_jax.detection.merge import (
    VideoFinds,
    WindowFinds,
    finds_in_seconds,
    merge_windows,
)
from losa_jax.detection.segments import Candidates, Detection
from losa_jax.detection.thresholds import DEFAULT_THRESHOLD
from losa_jax.errors import InputError
from losa_jax.inference.exported import load_exported
from losa_jax.timeline import SampleGrid
from losa_jax.utils.run_files import CONFIG_FILE, THRESHOLDS_FILE

# (frames uint8 [b, f, size, size, 3], valid_samples int32 [b]) to candidates
# [b, m] in tokens of their window, and the scores of all classes [b, m, k]
# or None; b is `Localizer.batch_windows`.
PredictWindows = Callable[[np.ndarray, np.ndarray],
                          tuple[Candidates, jax.Array | None]]


class VideoResult(NamedTuple):
    """What was found in one video.

    Attributes:
      video: as it was probed.
      detections: by descending score; all that NMS leaves, no threshold.
      error: why there are none, where the video could not be read.
    """

    video: Video
    detections: list[Detection]
    error: InputError | None = None


@dataclasses.dataclass(frozen=True)
class Localizer:
    """A model and all that it takes to use it on any video.

    Attributes:
      config: of the run; sections `window`, `augment` (size, test_resize),
        `data` (check, num_threads) and `evaluate` are used.
      class_names: in label order.
      thresholds: score from which a detection of a class is worth showing.
      identity: tells this model and its settings from any other.
      batch_windows: that `predict_windows` takes at once.
      predict_windows: see `PredictWindows`.
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
          video: a file.
          threshold: lowest score; None takes `thresholds`, 0 keeps all.
          top_k: detections to keep at most, in place of
            config.evaluate.max_detections.

        Raises:
          InputError: the file is missing or no whole video.
        """
        result, = self.many([self.probe(video)], top_k=top_k)
        if result.error is not None:
            raise result.error
        return self.shown(result.detections, threshold)

    def probe(self, path: str | Path, video_id: str = "") -> Video:
        """A file as `many` takes it.

        Raises:
          InputError: the file is missing or no whole video.
        """
        path = Path(path)
        info = probe_video(path, check=self.config.data.check)
        return Video(video_id or path.stem, info,
                           video_grid(info, self.config.window), ())

    def shown(self, detections: Sequence[Detection],
              threshold: float | None = None) -> list[Detection]:
        """Those whose score reaches the threshold of their class."""
        return [found for found in detections if found.score >= (
            self.threshold_of(found.label) if threshold is None
            else threshold)]

    def threshold_of(self, label: str) -> float:
        """Score from which a detection of a class is shown."""
        return self.thresholds.get(label, DEFAULT_THRESHOLD)

    def many(self, videos: Sequence[Video], *,
             top_k: int | None = None,
             on_windows: Callable[[int], object] = lambda count: None
             ) -> Generator[VideoResult]:
        """Results of videos as they are done; windows of several share a
        batch.

        Args:
          videos: probed.
          top_k: as in `__call__`.
          on_windows: told how many windows were predicted since last.
        """
        found = [VideoFinds() for _ in videos]
        ended: list[VideoEnd] = []
        waiting: list[VideoWindow] = []
        # The device works on one batch while the next is read and what came
        # before is merged.
        running: list[tuple[int, Window]] = []
        rows: Any = None

        def take_running() -> None:
            for (number, _), finds in zip(running, self._finish(
                    [window for _, window in running],
                    [videos[number].grid for number, _ in running], rows),
                    strict=True):
                found[number].add(finds)
            on_windows(len(running))
            running.clear()

        def start_waiting() -> None:
            nonlocal rows
            started = self._start([item.window for item in waiting],
                                  [item.frames for item in waiting])
            if running:
                take_running()
            rows = started
            running.extend((item.video_number, item.window)
                           for item in waiting)
            waiting.clear()

        def done() -> Iterator[VideoResult]:
            held = {item.video_number for item in waiting} | {
                number for number, _ in running}
            for end in [e for e in ended if e.video_number not in held]:
                ended.remove(end)
                finds = found[end.video_number].take()
                yield VideoResult(
                    videos[end.video_number],
                    [] if end.error else merge_windows(
                        finds, self.class_names, self.config.evaluate,
                        max_kept=top_k), end.error)

        with contextlib.closing(stream_windows(
                videos, self.config,
                num_threads=self.config.data.num_threads)) as items:
            for item in items:
                if isinstance(item, VideoEnd):
                    ended.append(item)
                else:
                    waiting.append(item)
                    if len(waiting) == self.batch_windows:
                        start_waiting()
                yield from done()
        if waiting:
            start_waiting()
            yield from done()
        if running:
            take_running()
        yield from done()

    def find(self, windows: Sequence[Window], frames: Sequence[np.ndarray],
             grids: Sequence[SampleGrid]) -> Iterator[WindowFinds]:
        """What is in some windows, at most `batch_windows` of them.

        Args:
          windows: where each lies.
          frames: uint8 [f, size, size, 3] of each.
          grids: of each one's video.
        """
        return self._finish(windows, grids, self._start(windows, frames))

    def _start(self, windows: Sequence[Window],
               frames: Sequence[np.ndarray]) -> Any:
        """Sets the device to work on windows, at most a batch of them."""
        padding = self.batch_windows - len(windows)
        valid = np.array([window.valid_samples for window in windows]
                         + [0] * padding, np.int32)
        stack = np.stack([*frames, *[np.zeros_like(frames[0])] * padding])
        return self.predict_windows(stack, valid)

    def _finish(self, windows: Sequence[Window],
                grids: Sequence[SampleGrid], rows: Any
                ) -> Iterator[WindowFinds]:
        """Waits for what `_start` set going."""
        rows = jax.device_get(rows)
        settings = self.config.window
        for row, (window, grid) in enumerate(zip(windows, grids,
                                                 strict=True)):
            candidates, scores = jax.tree.map(
                lambda leaf, row=row: leaf[row], rows)
            yield finds_in_seconds(
                candidates, scores, grid, window.first_sample,
                settings.frames / settings.tokens)


def from_exported(folder: Path, *, which: str = "best", backbone: str = "",
                  batch_windows: int = 0, num_threads: int = 0) -> Localizer:
    """The model of an exported folder; no code of the model is needed.

    Arguments as `from_workdir`; the folder holds one checkpoint and its own
    backbone.

    Raises:
      InputError: see `load_exported`; or another checkpoint is asked for.
    """
    if backbone or which != "best":
        raise InputError(
            f"{folder}: an exported folder holds one checkpoint with its "
            "backbone: leave out --backbone and --which, or name the work "
            "directory of the run")
    model = load_exported(folder)
    config = ConfigDict(model.settings)
    if batch_windows:
        config.evaluate.batch_windows = batch_windows
    if num_threads:
        config.data.num_threads = num_threads
    return Localizer(
        config, model.class_names, model.thresholds,
        identity_of(config, model.class_names, model.checksums),
        config.evaluate.batch_windows, model.predict_windows)


def from_workdir(workdir: Path, *, which: str = "best", backbone: str = "",
                 batch_windows: int = 0, num_threads: int = 0
                 ) -> Localizer:
    """The model of a finished run.

    Args:
      workdir: of the run.
      which: checkpoint, `best` or `last`.
      backbone: folder of the converted backbone, where it is not any more
        where config.json says.
      batch_windows, num_threads: in place of config.evaluate.batch_windows
        and config.data.num_threads.

    Raises:
      InputError: no run, or one that cannot read videos.
    """
    # Here, not above: an exported folder runs without code of the model.
    from losa_jax.distributed import sharding
    from losa_jax.training import build
    from losa_jax.training.checkpoint import BEST, LAST
    from losa_jax.training.restore import restore_run
    from losa_jax.weights.backbones import FACTS_FILE

    config = read_config(workdir)
    if which not in (BEST, LAST):
        raise InputError(f"checkpoint {which!r}: choose {BEST} or {LAST}")
    if config.features.folder:
        raise InputError(
            f"{workdir}: this run reads files of features, not videos: it "
            "cannot predict on a video without the network that made them")
    if batch_windows:
        config.train.batch_windows = batch_windows
        config.evaluate.batch_windows = batch_windows
    if num_threads:
        config.data.num_threads = num_threads
    if backbone:
        config.backbone.checkpoint = backbone
    if not (Path(config.backbone.checkpoint) / FACTS_FILE).is_file():
        raise InputError(
            f"{workdir}: the backbone that it was trained with is not in "
            f"{config.backbone.checkpoint} (counted from the current "
            "folder): name its folder with --backbone=FOLDER")
    # The head's start and the cache served the training only.
    config.head.checkpoint, head_start = "", config.head.checkpoint
    config.data.cache = ""
    class_names = saved_class_names(workdir, which)
    # The devices here, not those of the training.
    config.mesh.data = config.mesh.clip = config.mesh.fsdp = 0
    mesh = build.build_mesh(config)
    model = build.build_model(config, len(class_names), mesh)
    config.head.checkpoint = head_start
    state, which = restore_run(config, workdir, which, model, mesh,
                               class_names)
    parameters, statistics = state.ema, state.statistics
    step = build.jit_candidates_step(config, model, mesh)

    def predict_windows(frames, valid_samples):
        batch = {"frames": frames, "valid_samples": valid_samples}
        batch = sharding.put(batch, sharding.batch_shardings(batch, mesh))
        return step(parameters, statistics, model.frozen, batch)

    return Localizer(
        config, class_names, read_thresholds(workdir),
        identity_of(config, class_names, (model.fingerprint, *map(
            _checksum, jax.tree.leaves((parameters, statistics))))),
        config.evaluate.batch_windows, predict_windows)


def read_config(workdir: Path) -> ConfigDict:
    """The settings that a run was made with.

    Raises:
      InputError: the folder holds no run.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file() or not (workdir / "checkpoints").is_dir():
        raise InputError(
            f"{workdir}: holds no finished run ({CONFIG_FILE} and "
            "checkpoints/): name the --workdir of a training")
    try:
        return ConfigDict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: not a run's settings ({error})"
                         ) from error


def saved_class_names(workdir: Path, which: str) -> tuple[str, ...]:
    """The classes of a run, in label order."""
    from losa_jax.training.checkpoint import LAST, Checkpoints

    checkpoints = Checkpoints(workdir)
    try:
        if checkpoints.latest_step(which) is None:
            which = LAST
        return tuple(checkpoints.facts(which)["class_names"])
    finally:
        checkpoints.close()


def read_thresholds(workdir: Path) -> dict[str, float]:
    """{class: score of best F1}; empty where a run has not measured any."""
    path = workdir / THRESHOLDS_FILE
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: float(entry["score"])
                for name, entry in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not the thresholds of a run ({error!r}): "
                         "delete it to use "
                         f"{DEFAULT_THRESHOLD}") from error


def identity_of(config: ConfigDict, class_names: Sequence[str],
                weights: Sequence[Any]) -> str:
    """Hash of all that decides what is found in a video.

    Args:
      config: of the run.
      class_names: in label order.
      weights: fingerprints of the parameters.
    """
    evaluate = {key: value for key, value in config.evaluate.items()
                if key not in ("batch_windows", "checkpoint", "output",
                               "tiou_thresholds")}
    facts = [config.window.to_dict(), config.augment.size,
             config.augment.test_resize, evaluate, list(class_names),
             list(weights)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()
                          ).hexdigest()[:16]


def _checksum(leaf: jax.Array) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).data)
