"""The job of `python -m losa_jax.predict`: videos in, files for people out.

A video's JSON is written last and holds everything that was found in it, so
it says that the video is done: a later run of the same model takes it from
there.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from losa_jax import timeline
from losa_jax.data.check import EXTENSIONS
from losa_jax.data.source import SourceVideo
from losa_jax.data.windows import test_windows
from losa_jax.detection.predictions import Detection, write_predictions
from losa_jax.errors import InputError
from losa_jax.jobs.evaluate import PREDICTIONS_FILE
from losa_jax.jobs.localizer import Localizer
from losa_jax.jobs.setup import write_json, write_text
from losa_jax.jobs.stop import Interrupted, StopSignal
from losa_jax.report import files
from losa_jax.report.plots import plot_timeline

STDIN = "-"
FAILURES_FILE = "failures.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the flags say.

    Attributes:
      output: folder to write to.
      threshold: lowest score shown; None takes each class's own.
      top_k: detections to keep of a video; None as the run's evaluation.
      report: write an HTML page of each video.
    """

    output: Path
    threshold: float | None = None
    top_k: int | None = None
    report: bool = False


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A video that was asked for."""

    video_id: str
    path: Path


def predict(sources: Sequence[str], localizer: Localizer,
            settings: Settings) -> dict[str, str]:
    """Predicts on all videos that are not done yet.

    Args:
      sources: video files, folders of them (with all below), or "-".
      localizer: the model.
      settings: where to and how.

    Returns:
      {path: reason} of those that could not be read; all others are done.

    Raises:
      InputError: nothing to predict on, or the output cannot be written.
      Interrupted: SIGTERM or SIGINT came; finished videos are written.
    """
    output = settings.output
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output={output}: cannot be made a folder "
                         f"({error})") from error
    failures: dict[str, str] = {}
    with contextlib.ExitStack() as stack, StopSignal() as stop:
        asked = find_videos(sources, failures)
        if STDIN in sources:
            asked.append(_Asked("stdin", stack.enter_context(
                spooled(sys.stdin.buffer, output))))
        if not asked and not failures:
            raise InputError(
                f"no video in {', '.join(sources)}: give video files, or "
                f"folders with {', '.join(EXTENSIONS)} files")
        done = _Done(localizer, settings)
        open_ones = [one for one in asked if not done.take(one)]
        if len(open_ones) < len(asked):
            print(f"{len(asked) - len(open_ones)} of {len(asked)} videos are "
                  f"done already ({output})")
        try:
            videos = _probe(open_ones, localizer, failures, stop)
            _predict_all(videos, localizer, settings, done, failures, stop)
        finally:
            done.write(asked)
            _write_failures(output, failures)
    print(f"{len(done.results)} of {len(asked)} videos done; wrote "
          f"{output / PREDICTIONS_FILE}")
    return failures


def find_videos(sources: Sequence[str], failures: dict[str, str]
                ) -> list[_Asked]:
    """The files that sources name, each once, with ids that tell them apart.

    The id is the file's name without its extension; where several share it,
    with its extension, and then with its folders.

    Args:
      sources: files and folders.
      failures: gets the sources that are not there.
    """
    paths: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if source == STDIN:
            continue
        if path.is_dir():
            found = sorted(file for file in path.rglob("*")
                           if file.suffix.lower() in EXTENSIONS
                           and file.is_file())
            if not found:
                failures[source] = (f"{path}: the folder holds no video ("
                                    f"{', '.join(EXTENSIONS)})")
            paths |= dict.fromkeys(found)
        elif path.exists():
            paths[path] = None
        else:
            failures[source] = f"{path}: no such file: check the path"
    names: tuple[Callable[[Path], str], ...] = (
        lambda path: path.stem, lambda path: path.name,
        lambda path: "_".join(path.parts[-2:]),
        lambda path: "_".join(path.absolute().parts[1:]))
    ids: dict[Path, str] = {}
    left = list(paths)
    for name in names:
        counts: dict[str, int] = {}
        for path in left:
            counts[name(path)] = counts.get(name(path), 0) + 1
        # Case folded: some file systems do not tell cases apart.
        taken = {known.casefold() for known in ids.values()}
        ids |= {path: name(path) for path in left
                if counts[name(path)] == 1
                and name(path).casefold() not in taken}
        left = [path for path in left if path not in ids]
    return [_Asked(ids[path], path) for path in paths if path in ids]


@contextlib.contextmanager
def spooled(stream: BinaryIO, folder: Path) -> Iterator[Path]:
    """A pipe as a file: most containers can only be read with seeking."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".stdin-",
                                     suffix=".part") as file:
        shutil.copyfileobj(stream, file, 2**20)
        file.flush()
        yield Path(file.name)


def _probe(asked: Sequence[_Asked], localizer: Localizer,
           failures: dict[str, str], stop: StopSignal) -> list[SourceVideo]:
    """The readable ones; the others' reasons go to `failures`."""
    def probe(one: _Asked) -> SourceVideo | InputError:
        try:
            return localizer.probe(one.path, one.video_id)
        except InputError as error:
            return error

    videos = []
    with ThreadPoolExecutor(localizer.config.data.num_threads) as pool:
        results = tqdm(pool.map(probe, asked), total=len(asked),
                       desc="checking videos", unit="video", leave=False)
        for one, result in zip(asked, results, strict=True):
            if stop.came:
                pool.shutdown(cancel_futures=True)
                raise _interrupted(stop)
            if isinstance(result, InputError):
                failures[str(one.path)] = str(result)
            else:
                videos.append(result)
    return videos


def _predict_all(videos: Sequence[SourceVideo], localizer: Localizer,
                 settings: Settings, done: "_Done",
                 failures: dict[str, str], stop: StopSignal) -> None:
    total = sum(num_windows(video, localizer.config.window)
                for video in videos)
    with tqdm(total=total, desc="predicting", unit="window",
              disable=not videos) as bar:
        def on_windows(count: int) -> None:
            bar.update(count)
            if stop.came:
                raise _interrupted(stop)

        with contextlib.closing(localizer.many(
                videos, top_k=settings.top_k,
                on_windows=on_windows)) as results:
            for result in results:
                video = result.video
                if result.error is not None:
                    failures[str(video.path)] = str(result.error)
                    continue
                shown = done.add(video, result.detections)
                bar.write(f"{video.path}: {len(shown)} found in "
                          f"{video.info.duration_seconds:.1f} s",
                          file=sys.stdout)


def num_windows(video: SourceVideo, window: Any) -> int:
    """Windows that a video is cut into."""
    align = window.clip_frames if window.align_to_clips else 1
    return len(test_windows(video.grid, window.frames, window.overlap, align))


def _interrupted(stop: StopSignal) -> Interrupted:
    return Interrupted(f"stopped by {stop.came}; videos that are done are "
                       "written: start the same command again to go on")


class _Done:
    """Finished videos: their files, and what a later run knows of them."""

    def __init__(self, localizer: Localizer, settings: Settings):
        self._localizer, self._settings = localizer, settings
        self.results: dict[str, list[Detection]] = {}

    def take(self, one: _Asked) -> bool:
        """Takes a video's earlier result if it still holds.

        Its files are written anew if only what is shown has changed.
        """
        path = self._path(one.video_id, "json")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            detections = [
                Detection(row["start_seconds"], row["end_seconds"],
                          row["label"], row["score"])
                for row in (*content["detections"],
                            *content["below_threshold"])]
            same = content["made_by"] == self._made_by(one.path)
            shown = content["shown_from"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if not same:
            return False
        detections.sort(key=lambda found: -found.score)
        if shown == self._shown_from() and not self._settings.report:
            self.results[one.video_id] = detections
        else:
            with contextlib.suppress(InputError):
                self.add(self._localizer.probe(one.path, one.video_id),
                         detections)
        return one.video_id in self.results

    def add(self, video: SourceVideo, detections: Sequence[Detection]
            ) -> list[dict[str, Any]]:
        """Writes the files of a video; returns what is shown of it."""
        info, video_id = video.info, video.video_id
        shown = self._localizer.shown(detections, self._settings.threshold)
        kept = set(map(id, shown))
        rows = [as_row(found, video) for found in shown]
        output = self._settings.output
        from_file = not video.path.name.startswith(".stdin-")
        for suffix, text in {
                "csv": files.csv_text(video_id, rows),
                "srt": files.srt_text(rows),
                "vtt": files.webvtt_text(rows),
                "eaf": files.eaf_text(
                    rows, media=video.path if from_file else None,
                    folder=output, created=datetime.datetime.now(
                        datetime.UTC))}.items():
            write_text(self._path(video_id, suffix), text)
        picture = self._path(video_id, "png")
        temporary = picture.with_name(f".{picture.name}.tmp.png")
        plot_timeline(rows, temporary, title=video_id,
                      duration_seconds=info.duration_seconds)
        os.replace(temporary, picture)
        if self._settings.report:
            self._write_page(video, rows)
        write_json(self._path(video_id, "json"), {
            "video": video_id,
            "path": str(video.path) if from_file else STDIN,
            "duration_seconds": info.duration_seconds, "fps": info.fps,
            "frame_count": info.frame_count,
            "shown_from": self._shown_from(),
            "detections": files.in_time(rows),
            "below_threshold": [
                as_row(found, video) for found in detections
                if id(found) not in kept],
            "made_by": self._made_by(video.path)})
        self.results[video_id] = list(detections)
        return rows

    def _write_page(self, video: SourceVideo, rows: list[dict[str, Any]]
                    ) -> None:
        from losa_jax.report.page import write_video_page

        write_video_page(
            self._path(video.video_id, "html"), video.path,
            title=video.video_id, fps=video.info.fps,
            duration_seconds=video.info.duration_seconds, predictions=rows,
            thresholds=self._shown_from())

    def write(self, asked: Sequence[_Asked]) -> None:
        """One file of all, with all that was found, in the order asked."""
        write_predictions(
            self._settings.output / PREDICTIONS_FILE,
            {one.video_id: self.results[one.video_id] for one in asked
             if one.video_id in self.results})

    def _path(self, video_id: str, suffix: str) -> Path:
        return self._settings.output / f"{video_id}.{suffix}"

    def _shown_from(self) -> dict[str, float]:
        """Lowest score shown of each class."""
        threshold = self._settings.threshold
        return {name: self._localizer.threshold_of(name)
                if threshold is None else threshold
                for name in self._localizer.class_names}

    def _made_by(self, path: Path) -> dict[str, Any]:
        """What decides the detections: the model and the file."""
        facts = path.stat()
        return {"model": self._localizer.identity,
                "top_k": self._settings.top_k,
                "file_bytes": facts.st_size,
                "file_modified_ns": facts.st_mtime_ns}


def as_row(found: Detection, video: SourceVideo) -> dict[str, Any]:
    """A detection as `losa_jax.report.files` takes it."""
    first, last = timeline.frame_span(
        found.start_seconds, found.end_seconds, video.info.fps,
        video.info.frame_count)
    return {"label": found.label, "score": found.score,
            "start_seconds": found.start_seconds,
            "end_seconds": found.end_seconds,
            "start_frame": first, "end_frame": last}


def _write_failures(output: Path, failures: dict[str, str]) -> None:
    """failures.json, or none of an earlier run."""
    path = output / FAILURES_FILE
    if failures:
        write_json(path, failures)
    else:
        path.unlink(missing_ok=True)
