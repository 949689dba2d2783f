"""Predicts on videos for `python -m losa_jax.predict` and writes the files.

Unreadable videos are listed, the others predicted; results of an earlier run
of the same model are kept.
"""

import collections
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

from losa_jax.data.records import Video
from losa_jax.data.video.folder import (
    video_id_of,
    videos_below,
    warn_left_out,
)
from losa_jax.data.windows.sampling import clip_alignment, test_windows
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.errors import InputError, listed
from losa_jax.inference.localizer import Localizer, VideoResult
from losa_jax.jobs import prediction_files, setup
from losa_jax.utils.atomic_write import make_folder, writing
from losa_jax.utils.file_type import link_to_nothing
from losa_jax.utils.run_files import PREDICTIONS_FILE

FAILURES_FILE = "failures.json"
# Files of all videos: no video's files may have these names.
RESERVED = tuple(Path(name).stem for name in (
    PREDICTIONS_FILE, FAILURES_FILE, prediction_files.INDEX_FILE, "stdin"))
# What stays after a signal.
KEPT = "finished videos are written"


class Sources(NamedTuple):
    """What to predict on: see `find_videos`."""

    requests: list[prediction_files.Request]
    failures: dict[str, str]  # {source: why nothing is predicted on it}
    reads_stdin: bool


def predict(sources: Sources, localizer: Localizer,
            settings: prediction_files.Settings) -> dict[str, str]:
    """Predicts on all videos that are not done yet.

    Args:
      sources: of `find_videos`.
      settings: output folder and what to write.

    Returns:
      {path: reason} of those that could not be read; all others are done.

    Raises:
      InputError: the output cannot be written.
      Interrupted: SIGTERM or SIGINT came; finished videos are written.
    """
    output = settings.output
    requests, failures = [*sources.requests], {**sources.failures}
    files = prediction_files.PredictionFiles(localizer, settings)
    make_folder(output)
    with contextlib.ExitStack() as stack, StopSignal() as stop:
        if sources.reads_stdin:
            copy = stack.enter_context(spooled(sys.stdin.buffer, output))
            requests.append(prediction_files.Request(
                "stdin", copy, prediction_files.STDIN))
        to_do = [one for one in requests if not files.reuse(one)]
        if len(to_do) < len(requests):
            print(f"{len(requests) - len(to_do)} of {len(requests)} videos "
                  f"are done already ({output})")
        try:
            videos = _probe(to_do, localizer, failures, stop)
            _predict_all(videos, localizer, settings, files, failures, stop)
        finally:
            files.write_index(requests, failures)
            if failures:
                setup.write_json(output / FAILURES_FILE, failures)
            else:  # those of an earlier run
                with writing(output / FAILURES_FILE):
                    (output / FAILURES_FILE).unlink(missing_ok=True)
        print(f"{len(files.results)} of {len(requests)} videos done; wrote "
              f"{output / PREDICTIONS_FILE}")
        if settings.report and files.results:
            print(f"their pages: {output / prediction_files.INDEX_FILE}")
    return failures


def find_videos(sources: Sequence[str]) -> Sources:
    """Lists the video files of all sources, each once, with a unique id.

    The id is the first of these that no other file may have, in any case: the
    name without its suffix, the name, folder and name, the whole path.

    Args:
      sources: video files, folders of them (with subfolders), or "-".

    Raises:
      InputError: a folder cannot be listed, or there is nothing to predict
        on.
    """
    paths: dict[Path, Path] = {}  # {the same in any spelling: as given}
    failures: dict[str, str] = {}
    for source in sources:
        path = Path(source)
        if source == prediction_files.STDIN:
            continue
        if not source:
            failures[source] = "an empty name: name a video or a folder"
        elif path.is_dir():
            files, left_out = videos_below(path)
            warn_left_out(path, left_out)
            if not files:
                failures[source] = (f"{path}: the folder holds no video: give "
                                    "video files, or folders of them")
            for file in files:
                paths.setdefault(_place(file), file)
        elif path.exists():
            paths.setdefault(_place(path), path)
        else:
            failures[source] = link_to_nothing(path) or (
                f"{path}: no such file: check the path")
    reads_stdin = prediction_files.STDIN in sources
    if not paths and not reads_stdin:
        reasons = [*failures.values()]
        raise InputError(reasons[0] if len(reasons) == 1 else
                         f"nothing to predict on:{listed(reasons)}")
    names = {path: list(dict.fromkeys((
        video_id_of(path), path.name, "_".join(path.parts[-2:]),
        "_".join(path.absolute().parts[1:]), f"video_{number}")))
        for number, path in enumerate(paths.values())}
    # Some file systems ignore case.
    counts = collections.Counter(
        name.casefold() for some in (*names.values(), RESERVED)
        for name in some)
    return Sources([prediction_files.Request(
        next(name for name in names[path] if counts[name.casefold()] == 1),
        path, str(path)) for path in names], failures, reads_stdin)


def _place(path: Path) -> Path:
    """Returns one path for all spellings of a file; links to files, which may
    have names of their own, stay."""
    return path.parent.resolve() / path.name


@contextlib.contextmanager
def spooled(stream: BinaryIO, folder: Path) -> Iterator[Path]:
    """Copies a pipe to a file: most containers need seeking."""
    with contextlib.ExitStack() as stack:
        with writing(folder / "stdin"):
            file = stack.enter_context(tempfile.NamedTemporaryFile(
                dir=folder, prefix=".stdin-", suffix=".part"))
            shutil.copyfileobj(stream, file, 2**20)
            file.flush()
        yield Path(file.name)


def _probe(requests: Sequence[prediction_files.Request], localizer: Localizer,
           failures: dict[str, str], stop: StopSignal
           ) -> list[tuple[prediction_files.Request, Video]]:
    """Returns the readable videos; adds reasons of others to `failures`."""
    def probe(one: prediction_files.Request) -> Video | InputError:
        try:
            return localizer.probe(one.path, one.video_id)
        except InputError as error:
            return error

    readable = []
    pool = ThreadPoolExecutor(localizer.config.data.num_threads)
    try:
        results = tqdm(pool.map(probe, requests), total=len(requests),
                       desc="checking videos", unit="video", leave=False,
                       disable=not requests)
        for one, result in zip(requests, results, strict=True):
            stop.raise_if_asked(KEPT)
            if isinstance(result, InputError):
                failures[one.source] = _reason(one, result)
            else:
                readable.append((one, result))
    finally:
        pool.shutdown(cancel_futures=True)
    return readable


def _predict_all(readable: Sequence[tuple[prediction_files.Request, Video]],
                 localizer: Localizer, settings: prediction_files.Settings,
                 files: prediction_files.PredictionFiles,
                 failures: dict[str, str], stop: StopSignal) -> None:
    requests = {one.video_id: one for one, _ in readable}
    videos = [video for _, video in readable]
    window = localizer.config.window
    total = sum(len(test_windows(video.grid, window.samples, window.overlap,
                                 align=clip_alignment(window)))
                for video in videos)
    most = settings.top_k or localizer.config.evaluate.max_detections
    writing: collections.deque[Future] = collections.deque()
    # Files are written while the next windows are predicted. The executor
    # waits for all of them at the end, also after an error.
    with (tqdm(total=total, desc="predicting", unit="window",
               disable=not videos) as bar,
          ThreadPoolExecutor(1) as writer):
        def on_windows(count: int) -> None:
            bar.update(count)
            stop.raise_if_asked(KEPT)

        def write(one: prediction_files.Request, result: VideoResult) -> None:
            num_shown = files.add(one, result.video, result.detections)
            # All kept detections are shown, so the limit cut some off.
            bar.write(f"{one.source}: {num_shown} actions in "
                      f"{result.video.info.duration_seconds:.1f} s" + (
                          ", as many as are kept: --top_k=N keeps more"
                          if num_shown == most else ""), file=sys.stdout)

        with contextlib.closing(localizer.many(
                videos, top_k=settings.top_k,
                on_windows=on_windows)) as results:
            for result in results:
                one = requests[result.video.video_id]
                if result.error is not None:
                    failures[one.source] = _reason(one, result.error)
                    continue
                writing.append(writer.submit(write, one, result))
                while writing and writing[0].done():
                    writing.popleft().result()
        for future in writing:
            future.result()


def _reason(one: prediction_files.Request, error: InputError) -> str:
    """Returns the message with the name that the user gave."""
    return str(error).replace(str(one.path), one.source)
