"""Writes the files of predicted videos and reads them in a later run.

A video's JSON holds all detections and is written last: it marks the video as
done.
"""

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax import timeline
from losa_jax.data.predictions import write_predictions
from losa_jax.data.records import Video
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError
from losa_jax.inference.localizer import Localizer
from losa_jax.jobs.setup import write_json
from losa_jax.report import files
from losa_jax.report.plots import plot_timeline
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.run_files import PREDICTIONS_FILE

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


@dataclasses.dataclass(frozen=True)
class Asked:
    """A video to predict on.

    Attributes:
      video_id: names its files.
      path: of the video.
      source: the name that the user gave; "-" for standard input, of which
        `path` is a copy.
    """

    video_id: str
    path: Path
    source: str

    @property
    def is_copy(self) -> bool:
        """Whether the file is a copy of standard input."""
        return self.source != str(self.path)


class Predicted:
    """Videos that are done: {video id: detections} in `results`."""

    def __init__(self, localizer: Localizer, settings: Settings):
        self._localizer, self._settings = localizer, settings
        self.results: dict[str, list[Detection]] = {}

    def take(self, one: Asked) -> bool:
        """Takes a video's result of an earlier run if it is still valid.

        Its files are written again if only the threshold has changed.
        """
        try:
            content = json.loads(self._path(one.video_id, "json").read_text(
                encoding="utf-8"))
            detections = [
                Detection(row["start_seconds"], row["end_seconds"],
                          row["label"], row["score"])
                for row in (*content["detections"],
                            *content["below_threshold"])]
            same = content["made_by"] == self._made_by(one.path)
            as_asked = (content["shown_from"] == self._shown_from()
                        and content["source"] == one.source)
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if not same:
            return False
        detections.sort(key=lambda one: -one.score)
        page = self._path(one.video_id, "html")
        if as_asked and (page.is_file() or not self._settings.report):
            self.results[one.video_id] = detections
        else:
            with contextlib.suppress(InputError):
                self.add(one, self._localizer.probe(one.path, one.video_id),
                         detections)
        return one.video_id in self.results

    def add(self, one: Asked, video: Video,
            detections: Sequence[Detection]) -> list[dict[str, Any]]:
        """Writes the files of a video; returns the detections shown."""
        info, video_id = video.info, one.video_id
        shown = self._localizer.shown(detections, self._settings.threshold)
        shown_ids = set(map(id, shown))
        rows = [as_row(detection, video) for detection in shown]
        media = None if one.is_copy else one.path
        for suffix, text in {
                "csv": files.csv_text(video_id, rows),
                "srt": files.srt_text(rows),
                "vtt": files.webvtt_text(rows),
                "eaf": files.eaf_text(
                    rows, media=media, folder=self._settings.output,
                    created=datetime.datetime.now(datetime.UTC))}.items():
            write_text(self._path(video_id, suffix), text)
        plot_timeline(rows, self._path(video_id, "png"), title=video_id,
                      duration_seconds=info.duration_seconds)
        if self._settings.report:
            self._write_page(media, video, detections)
        write_json(self._path(video_id, "json"), {
            "video": video_id, "source": one.source,
            "duration_seconds": info.duration_seconds, "fps": info.fps,
            "frame_count": info.frame_count,
            "shown_from": self._shown_from(),
            "detections": files.in_time(rows),
            "below_threshold": [
                as_row(detection, video) for detection in detections
                if id(detection) not in shown_ids],
            "made_by": self._made_by(one.path)})
        self.results[video_id] = list(detections)
        return rows

    def _write_page(self, media: Path | None, video: Video,
                    detections: Sequence[Detection]) -> None:
        from losa_jax.report.page import write_video_page

        shown_from = self._shown_from()
        write_video_page(
            self._path(video.video_id, "html"), media, title=video.video_id,
            duration_seconds=video.info.duration_seconds, fps=video.info.fps,
            predictions=[
                {"segment": [one.start_seconds, one.end_seconds],
                 "label": one.label, "score": one.score}
                for rank, one in enumerate(detections)
                if rank < PAGE_LEAST
                or one.score >= PAGE_SHARE * shown_from[one.label]],
            thresholds=shown_from)

    def write(self, asked: Sequence[Asked],
              failures: Mapping[str, str]) -> None:
        """Writes predictions.json (all detections) and the index.

        Args:
          asked: videos, in this order; only those done are written.
          failures: {path: reason} of those that cannot be read.
        """
        done = [one for one in asked if one.video_id in self.results]
        output = self._settings.output
        write_predictions(output / PREDICTIONS_FILE, {
            one.video_id: self.results[one.video_id] for one in done})
        if self._settings.report and done:
            from losa_jax.report.folder import write_folder_page
            from losa_jax.report.page import read_video_page

            write_folder_page(
                output / INDEX_FILE,
                [read_video_page(self._path(one.video_id, "html"))
                 for one in done],
                title=output.absolute().name, broken=failures)

    def _path(self, video_id: str, suffix: str) -> Path:
        return self._settings.output / f"{video_id}.{suffix}"

    def _shown_from(self) -> dict[str, float]:
        """Returns the lowest score shown of each class."""
        threshold = self._settings.threshold
        return {name: self._localizer.threshold_of(name)
                if threshold is None else threshold
                for name in self._localizer.class_names}

    def _made_by(self, path: Path) -> dict[str, Any]:
        """Returns the facts that decide the detections: model and file."""
        facts = path.stat()
        return {"model": self._localizer.identity,
                "top_k": self._settings.top_k,
                "file_bytes": facts.st_size,
                "file_modified_ns": facts.st_mtime_ns}


def as_row(detection: Detection, video: Video) -> dict[str, Any]:
    """Returns a detection in the form of `losa_jax.report.files`."""
    first, last = timeline.frame_span(
        detection.start_seconds, detection.end_seconds, video.info.fps,
        video.info.frame_count)
    return {"label": detection.label, "score": detection.score,
            "start_seconds": detection.start_seconds,
            "end_seconds": detection.end_seconds,
            "start_frame": first, "end_frame": last}
