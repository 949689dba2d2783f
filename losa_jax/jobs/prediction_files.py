"""Writes the files of predicted videos and reads them in another run.

A video's JSON holds all detections and is written last: it marks the video as
done, for later runs and for other processes that share the output folder. So
does NAME.error, the reason why a video cannot be read.
"""

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax import timeline
from losa_jax.data import predictions
from losa_jax.data.annotations.tools.layouts import (
    DEFAULT_FORMATS,
    OPENED_WITH,
    WRITERS,
)
from losa_jax.data.annotations.tools.recording import Recording, in_time
from losa_jax.data.reviews import REVIEWED_FILE
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError
from losa_jax.inference.localizer import Localizer
from losa_jax.report import page, plots
from losa_jax.utils import atomic_write, run_files, storage
from losa_jax.utils.text_files import read_json

STDIN = "-"
# As `score` prints it.
CLASSES_FROM = "classes from: the head itself, no external classifier"
INDEX_FILE = "index.html"
FAILURES_FILE = "failures.json"
# Files of all videos: no video's files may have these names.
RESERVED = tuple(Path(name).stem for name in (
    run_files.PREDICTIONS_FILE, FAILURES_FILE, INDEX_FILE, REVIEWED_FILE,
    "stdin"))
# The page has a slider for the score, so it also holds detections down to
# this share of the shown ones' threshold, and at least so many.
PAGE_SHARE, PAGE_LEAST = 0.5, 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags of `predict`.

    Attributes:
      output: folder to write to, also gs://BUCKET/FOLDER.
      threshold: lowest score shown; None takes each class's own.
      top_k: detections kept per video; None: as the run's evaluation.
      report: write an HTML page of each video, and an index.
      formats: some of `layouts.FORMATS`; those in OPENED_WITH get a folder
        each, which is written when all videos are done.
    """

    output: str | Path
    threshold: float | None = None
    top_k: int | None = None
    report: bool = False
    formats: tuple[str, ...] = DEFAULT_FORMATS

    @property
    def beside(self) -> list[str]:
        """The formats whose files lie beside the JSON of their video."""
        return [name for name in self.formats
                if name in WRITERS and name not in OPENED_WITH]


class Request(NamedTuple):
    """A video to predict on.

    Attributes:
      video_id: names its files.
      path: of the video; None where `source` is in a bucket.
      source: the name that the user gave; STDIN for standard input, of which
        `path` is a copy.
    """

    video_id: str
    path: Path | None
    source: str


class Clock(NamedTuple):
    """The properties of a video that its files hold."""

    duration_seconds: float
    fps: float
    frame_count: int


class PredictionFiles:
    """The output folder of a prediction.

    Attributes:
      done: ids of the videos whose files are complete.
      failures: {source: why it cannot be read}.
    """

    def __init__(self, localizer: Localizer, settings: Settings,
                 scratch: Path):
        """Makes the output folder; `scratch` is a local one for the files
        that go to a bucket. InputError for a threshold that is no score."""
        localizer.shown([], settings.threshold)
        self._localizer, self._settings = localizer, settings
        self._shown_from = {
            name: localizer.threshold_of(name)
            if settings.threshold is None else settings.threshold
            for name in localizer.class_names}
        self._is_remote = storage.is_remote(settings.output)
        self._folder = scratch if self._is_remote else Path(settings.output)
        self._lock = threading.Lock()  # of writing: plots are not for threads
        self.done: set[str] = set()
        self.failures: dict[str, str] = {}
        if not self._is_remote:
            atomic_write.make_folder(self._folder)

    def place(self, name: str) -> str:
        """Returns the path or address of a file in the output folder."""
        return f"{str(self._settings.output).rstrip('/')}/{name}"

    def is_resolved(self, request: Request) -> bool:
        """Whether a video is done, or cannot be read, by this process's
        knowledge; see `look`."""
        return (request.video_id in self.done
                or request.source in self.failures)

    def look(self, request: Request) -> bool:
        """Returns whether any process has done a video, or has written why it
        cannot be read, with this model and these settings."""
        content = self._valid(request, "json")
        if content:
            if content["shown_from"] == self._shown_from and (
                    content["source"] == request.source) and (
                    {*self._settings.beside} <= {*content.get(
                        "formats", DEFAULT_FORMATS)}) and (
                    not self._settings.report
                    or self.facts(f"{request.video_id}.html")):
                self.done.add(request.video_id)
        elif (
                failure := self._valid(request, "error")):
            self.failures[request.source] = failure["reason"]
        return self.is_resolved(request)

    def look_again(self, request: Request) -> None:
        """Looks for results of a video that this process could not read."""
        reason = self.failures.pop(request.source, None)
        if reason is not None and not self.look(request):
            self.failures[request.source] = reason

    def write_again(self, request: Request) -> bool:
        """Writes the files of a video whose detections are known: another
        threshold is asked for. Returns False where they are not."""
        content = self._valid(request, "json")
        if content is None:
            return False
        self.write(request, Clock(*(content[name] for name in Clock._fields)),
                   predictions.detections_of(content), content["made_by"])
        return True

    def write(self, request: Request, clock: Clock,
              detections: Sequence[Detection], made_by: Mapping[str, Any]
              ) -> int:
        """Writes the files of a video; returns the number of detections
        shown. `made_by` is that of the video when it was opened."""
        video_id = request.video_id
        rows = [as_row(one, clock.fps, clock.frame_count)
                for one in detections]
        shown = [row for row in rows
                 if row["score"] >= self._shown_from[row["label"]]]
        media = self._media(request)
        recording = Recording(video_id, media, clock.duration_seconds,
                              clock.fps, shown)
        with self._lock:
            for name in self._settings.beside:
                self._write_format(name, [recording], "")
            with self._written(f"{video_id}.png") as path:
                plots.plot_timeline(shown, path, title=video_id,
                                    duration_seconds=clock.duration_seconds)
            if self._settings.report:
                with self._written(f"{video_id}.html") as path:
                    self._write_page(path, video_id, media, clock, detections)
            with self._written(f"{video_id}.json") as path:
                _write_json(path, {
                    "video": video_id, "source": request.source,
                    **clock._asdict(), "shown_from": self._shown_from,
                    "formats": self._settings.beside,
                    "detections": in_time(shown),
                    "below_threshold": [
                        row for row in rows
                        if row["score"] < self._shown_from[row["label"]]],
                    "made_by": made_by})
        storage.remove(self.place(f"{video_id}.error"))
        self.done.add(video_id)
        return len(shown)

    def _write_format(self, name: str, recordings: Sequence[Recording],
                      folder: str) -> None:
        """Writes the files of a format into a folder below the output."""
        for file_name, text in WRITERS[name](
                recordings, self._folder / folder).items():
            with self._written(folder + file_name) as path:
                atomic_write.write_text(path, text)

    def _write_page(self, path: Path, video_id: str, media: Path | None,
                    clock: Clock, detections: Sequence[Detection]) -> None:
        page.write_video_page(
            path, media, title=video_id,
            duration_seconds=clock.duration_seconds, fps=clock.fps,
            predictions=[
                one[:4] for rank, one in enumerate(detections)
                if rank < PAGE_LEAST or one.score >= (
                    PAGE_SHARE * self._shown_from[one.label])],
            thresholds=self._shown_from, list_page=self._folder / INDEX_FILE)

    def write_failure(self, request: Request, error: InputError) -> None:
        """Notes that a video cannot be read. Where it could not be copied,
        other processes and later runs try it again."""
        self.failures[request.source] = str(error)
        with contextlib.suppress(FileNotFoundError, storage.TransferError):
            made_by = self.made_by(request)
            if not isinstance(error, storage.TransferError):
                with self._written(f"{request.video_id}.error") as path:
                    _write_json(path, {
                        "source": request.source, "reason": str(error),
                        "made_by": made_by})

    def merge(self, requests: Sequence[Request],
              failures: Mapping[str, str], on_video: Callable[[], object]
              ) -> None:
        """Writes predictions.json (all detections), failures.json, and the
        index of pages.

        Args:
          requests: videos, in this order; only those done are written.
          failures: {source: reason} of those that cannot be read.
          on_video: called for each; an exception ends the writing.
        """
        done = [one.video_id for one in requests if one.video_id in self.done]

        def pairs() -> Iterator[tuple[str, list[Detection]]]:
            for name in done:
                on_video()
                yield name, predictions.detections_of(
                    read_json(self._copy(f"{name}.json")))

        with self._written(run_files.PREDICTIONS_FILE) as path:
            predictions.write_predictions(
                path, pairs(),
                external_data={"used": False, "details": CLASSES_FROM})
        for name in self._settings.formats:
            if name in OPENED_WITH:
                with self._written(f"{name}/README.txt") as path:
                    atomic_write.write_text(path, OPENED_WITH[name] + "\n")
                self._write_format(name, [
                    self._recording(one) for one in requests
                    if one.video_id in self.done], f"{name}/")
        if self._settings.report and done:
            with self._written(INDEX_FILE) as path:
                page.write_folder_page(
                    path, [page.read_video_page(self._copy(f"{name}.html"))
                           for name in done],
                    title=Path(self._settings.output).absolute().name,
                    broken=failures)
        if failures:
            with self._written(FAILURES_FILE) as path:
                _write_json(path, failures)
        else:  # those of an earlier run
            with atomic_write.writing(self._folder / FAILURES_FILE):
                storage.remove(self.place(FAILURES_FILE))

    @contextlib.contextmanager
    def _written(self, name: str) -> Iterator[Path]:
        """Yields where a file is to be written, and copies it to a bucket."""
        path = self._folder / name
        atomic_write.make_folder(path.parent)
        yield path
        if self._is_remote:
            storage.store(path, self.place(name))
            path.unlink()

    def _copy(self, name: str) -> Path:
        """Returns a file of the output folder, from a bucket its copy, which
        the next one replaces; InputError where it is missing."""
        if not self._is_remote:
            return self._folder / name
        path = self._folder / f"{threading.get_ident()}.copy"
        try:
            storage.fetch(self.place(name), path)
        except FileNotFoundError as error:
            raise InputError(f"{self.place(name)}: is missing") from error
        return path

    def _recording(self, request: Request) -> Recording:
        """Returns the shown detections of a video that is done."""
        content = read_json(self._copy(f"{request.video_id}.json"))
        return Recording(request.video_id, self._media(request),
                         content["duration_seconds"], content["fps"],
                         content["detections"])

    def _media(self, request: Request) -> Path | None:
        """Returns the file of a video; None where links to it would lead
        nowhere, between a bucket and a disk."""
        return (None if request.source == STDIN or self._is_remote
                else request.path)

    def facts(self, name: str) -> tuple[int, int] | None:
        """Returns bytes and time of a file in the output folder, None where
        there is none."""
        try:
            return storage.facts(self.place(name))
        except FileNotFoundError:
            return None

    def _valid(self, request: Request, suffix: str) -> dict[str, Any] | None:
        """Reads what a run has written of a video; None where there is
        nothing that was made from this file by this model."""
        try:
            content = read_json(self._copy(f"{request.video_id}.{suffix}"))
            if suffix == "json":  # all of it is there
                predictions.detections_of(content)
                content["shown_from"], content["source"]
                Clock(*(content[name] for name in Clock._fields))
            return content if (
                content["made_by"] == self.made_by(request)) else None
        except (InputError, KeyError, TypeError, FileNotFoundError):
            return None

    def made_by(self, request: Request) -> dict[str, Any]:
        """Returns the facts that decide the detections: model and file."""
        num_bytes, modified_ns = storage.facts(
            request.source if request.path is None else str(request.path))
        return {"model": self._localizer.identity,
                "top_k": self._settings.top_k,
                "file_bytes": num_bytes,
                "file_modified_ns": modified_ns}


def _write_json(path: Path, content: Any) -> None:
    atomic_write.write_text(path, json.dumps(content, indent=1) + "\n")


def as_row(detection: Detection, fps: float, frame_count: int
           ) -> dict[str, Any]:
    """Returns a detection as a row of `Recording`."""
    first, last = timeline.frame_span(
        detection.start_seconds, detection.end_seconds, fps, frame_count)
    return {"label": detection.label, "score": detection.score,
            "start_seconds": detection.start_seconds,
            "end_seconds": detection.end_seconds,
            "start_frame": first, "end_frame": last}
