"""Writes the files of predicted videos and reads them in a later run.

A video's JSON holds all detections and is written last: it marks the video as
done.
"""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax import timeline
from losa_jax.data import predictions, records
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError
from losa_jax.inference.localizer import Localizer
from losa_jax.jobs.setup import write_json
from losa_jax.report import files, page, plots
from losa_jax.utils import atomic_write, run_files
from losa_jax.utils.text_files import read_json

STDIN = "-"
# As `score` prints it.
CLASSES_FROM = "classes from: the head itself, no external classifier"
INDEX_FILE = "index.html"
# The page has a slider for the score, so it also holds detections down to
# this share of the shown ones' threshold, and at least so many.
PAGE_SHARE, PAGE_LEAST = 0.5, 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags of `predict`.

    Attributes:
      output: folder to write to.
      threshold: lowest score shown; None takes each class's own.
      top_k: detections kept per video; None: as the run's evaluation.
      report: write an HTML page of each video, and an index.
    """

    output: Path
    threshold: float | None = None
    top_k: int | None = None
    report: bool = False


class Request(NamedTuple):
    """A video to predict on.

    Attributes:
      video_id: names its files.
      path: of the video.
      source: the name that the user gave; STDIN for standard input, of which
        `path` is a copy.
    """

    video_id: str
    path: Path
    source: str


class PredictionFiles:
    """Files of videos that are done: {video id: detections} in `results`."""

    def __init__(self, localizer: Localizer, settings: Settings):
        """Raises InputError for a threshold that is no score."""
        localizer.shown([], settings.threshold)
        self._localizer, self._settings = localizer, settings
        self._shown_from = {
            name: localizer.threshold_of(name)
            if settings.threshold is None else settings.threshold
            for name in localizer.class_names}
        self.results: dict[str, list[Detection]] = {}

    def reuse(self, request: Request) -> bool:
        """Takes a video's result of an earlier run if it is still valid.

        Its files are written again if only the threshold has changed.
        """
        try:
            content = read_json(self._path(request.video_id, "json"))
            detections = [
                Detection(row["start_seconds"], row["end_seconds"],
                          row["label"], row["score"])
                for row in (*content["detections"],
                            *content["below_threshold"])]
            if content["made_by"] != self._made_by(request.path):
                return False
            is_current = (content["shown_from"] == self._shown_from
                          and content["source"] == request.source)
        except (InputError, KeyError, TypeError):
            return False
        detections.sort(key=lambda one: -one.score)
        html = self._path(request.video_id, "html")
        if is_current and (html.is_file() or not self._settings.report):
            self.results[request.video_id] = detections
            return True
        try:
            video = self._localizer.probe(request.path, request.video_id)
        except InputError:
            return False
        self.add(request, video, detections)
        return True

    def add(self, request: Request, video: records.Video,
            detections: Sequence[Detection]) -> int:
        """Writes the files of a video; returns the number of detections
        shown."""
        info, video_id = video.info, request.video_id
        rows = [as_row(one, info.fps, info.frame_count) for one in detections]
        shown = [row for row in rows
                 if row["score"] >= self._shown_from[row["label"]]]
        media = None if request.source == STDIN else request.path
        for suffix, text in {
                "csv": files.csv_text(video_id, shown),
                "srt": files.srt_text(shown),
                "vtt": files.webvtt_text(shown),
                "eaf": files.eaf_text(
                    shown, media=media, folder=self._settings.output,
                    created=datetime.datetime.now(datetime.UTC))}.items():
            atomic_write.write_text(self._path(video_id, suffix), text)
        plots.plot_timeline(shown, self._path(video_id, "png"), title=video_id,
                            duration_seconds=info.duration_seconds)
        if self._settings.report:
            page.write_video_page(
                self._path(video_id, "html"), media, title=video_id,
                duration_seconds=info.duration_seconds, fps=info.fps,
                predictions=[
                    one[:4] for rank, one in enumerate(detections)
                    if rank < PAGE_LEAST or one.score >= (
                        PAGE_SHARE * self._shown_from[one.label])],
                thresholds=self._shown_from,
                list_page=self._settings.output / INDEX_FILE)
        write_json(self._path(video_id, "json"), {
            "video": video_id, "source": request.source,
            "duration_seconds": info.duration_seconds, "fps": info.fps,
            "frame_count": info.frame_count, "shown_from": self._shown_from,
            "detections": files.in_time(shown),
            "below_threshold": [
                row for row in rows
                if row["score"] < self._shown_from[row["label"]]],
            "made_by": self._made_by(request.path)})
        self.results[video_id] = list(detections)
        return len(shown)

    def write_index(self, requests: Sequence[Request],
                    failures: Mapping[str, str]) -> None:
        """Writes predictions.json (all detections) and the index of pages.

        Args:
          requests: videos, in this order; only those done are written.
          failures: {path: reason} of those that cannot be read.
        """
        done = [one.video_id for one in requests
                if one.video_id in self.results]
        output = self._settings.output
        predictions.write_predictions(
            output / run_files.PREDICTIONS_FILE,
            {name: self.results[name] for name in done},
            external_data={"used": False, "details": CLASSES_FROM})
        if self._settings.report and done:
            page.write_folder_page(
                output / INDEX_FILE, [page.read_video_page(
                    self._path(name, "html")) for name in done],
                title=output.absolute().name, broken=failures)

    def _path(self, video_id: str, suffix: str) -> Path:
        return self._settings.output / f"{video_id}.{suffix}"

    def _made_by(self, path: Path) -> dict[str, Any]:
        """Returns the facts that decide the detections: model and file."""
        facts = path.stat()
        return {"model": self._localizer.identity,
                "top_k": self._settings.top_k,
                "file_bytes": facts.st_size,
                "file_modified_ns": facts.st_mtime_ns}


def as_row(detection: Detection, fps: float, frame_count: int
           ) -> dict[str, Any]:
    """Returns a detection in the form of `losa_jax.report.files`."""
    first, last = timeline.frame_span(
        detection.start_seconds, detection.end_seconds, fps, frame_count)
    return {"label": detection.label, "score": detection.score,
            "start_seconds": detection.start_seconds,
            "end_seconds": detection.end_seconds,
            "start_frame": first, "end_frame": last}
