"""Predicts on videos for `python -m losa_jax.predict` and writes the files.

Any number of processes may run the same command: each takes the next video
that no other one has, and waits at the end for those that others have, to take
over what a process leaves that dies. Unreadable videos are listed, the others
predicted; results of earlier runs of the same model are kept.
"""

import collections
import contextlib
import functools
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from losa_jax.data.records import Video
from losa_jax.data.windows.sampling import test_windows_of
from losa_jax.distributed import processes
from losa_jax.distributed.claims import Claims
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.errors import InputError
from losa_jax.inference.localizer import Localizer, VideoResult
from losa_jax.jobs.prediction_files import (
    INDEX_FILE,
    STDIN,
    Clock,
    PredictionFiles,
    Request,
    Settings,
)
from losa_jax.jobs.video_sources import Sources, spooled
from losa_jax.utils import storage
from losa_jax.utils.run_files import PREDICTIONS_FILE

# What stays after a signal.
KEPT = "finished videos are written"
# The folder of the claims, and the claim of writing the files of all videos,
# whose name no video has.
_CLAIMS, _MERGE = ".claims", "predictions"
_POLL_SECONDS = 1.0
# Bounds the waiting for a bucket when finished videos are looked up.
_LOOKUP_THREADS = 16


def predict(sources: Sources, localizer: Localizer, settings: Settings
            ) -> dict[str, str]:
    """Predicts on all videos that no process has done yet.

    Args:
      sources: of `find_videos`.
      settings: output folder and what to write.

    Returns:
      {source: reason} of those that could not be read; all others are done.

    Raises:
      InputError: the output cannot be written.
      Interrupted: SIGTERM or SIGINT came; finished videos are written.
    """
    requests = [*sources.requests]
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch_folder())
        files = PredictionFiles(localizer, settings, scratch)
        if sources.reads_stdin:
            folder = scratch if storage.is_remote(
                settings.output) else Path(settings.output)
            requests.append(Request("stdin", stack.enter_context(
                spooled(sys.stdin.buffer, folder)), STDIN))
        # Only now, because a signal ends the reading of a pipe at once.
        stop = stack.enter_context(StopSignal())
        claims = stack.enter_context(Claims(files.place(_CLAIMS)))
        left = _look(requests, files, stop)
        num_done = len(files.done)
        if num_done:
            print(f"{num_done} of {len(requests)} videos are done already "
                  f"({settings.output})")
        # The processes of one program begin at different videos.
        start = processes.index() * len(left) // processes.count()
        left = left[start:] + left[:start]
        with tqdm(total=0, desc="predicting", unit="window",
                  disable=not (left and processes.is_first())) as bar:
            while left:
                _predict_some(left, localizer, settings, files, claims, stop,
                              bar, scratch)
                left = [one for one in left if not files.is_resolved(one)]
                if left:
                    bar.set_description(f"waiting for {len(left)} videos of "
                                        "other processes")
                    stop.raise_if_asked(KEPT)
                    time.sleep(_POLL_SECONDS)
        failures = _merge(files, claims, stop, requests, sources.failures)
        print(f"{len(files.done)} of {len(requests)} videos done; wrote "
              f"{files.place(PREDICTIONS_FILE)}")
        if settings.report and files.done:
            print(f"their pages: {files.place(INDEX_FILE)}")
    return failures


def _look(requests: Sequence[Request], files: PredictionFiles,
          stop: StopSignal) -> list[Request]:
    """Returns the videos that no run has finished."""
    pool = ThreadPoolExecutor(_LOOKUP_THREADS)
    left = []
    try:
        for one, is_resolved in zip(requests, pool.map(files.look, requests),
                                    strict=True):
            stop.raise_if_asked(KEPT)
            if not is_resolved:
                left.append(one)
    finally:
        pool.shutdown(cancel_futures=True)
    return left


def predict_one(request: Request, localizer: Localizer, settings: Settings
                ) -> None:
    """Predicts on one video, in any thread, unless another process has it;
    `predict` writes the files of all videos later."""
    with _scratch_folder() as scratch:
        files = PredictionFiles(localizer, settings, scratch)
        with Claims(files.place(_CLAIMS)) as claims, tqdm(
                total=0, disable=True) as bar:
            _predict_some([request], localizer, settings, files, claims,
                          StopSignal(), bar, scratch)


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    # A thread that stops may still write into it.
    with tempfile.TemporaryDirectory(
            prefix="losa_jax-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _merge(files: PredictionFiles, claims: Claims, stop: StopSignal,
           requests: Sequence[Request], failures: Mapping[str, str]
           ) -> dict[str, str]:
    """Writes the files of all videos, unless another process does so now;
    returns {source: reason} of those that cannot be read."""
    before = files.facts(PREDICTIONS_FILE)
    while is_other := not claims.take(_MERGE):
        stop.raise_if_asked(KEPT)
        if not claims.is_held(_MERGE) and (
                files.facts(PREDICTIONS_FILE) != before):
            break
        time.sleep(_POLL_SECONDS)
    # What could not be copied here, another process may have done since.
    for one in requests:
        stop.raise_if_asked(KEPT)
        files.look_again(one)
    failures = {**failures, **{
        one.source: files.failures[one.source] for one in requests
        if one.source in files.failures}}
    if not is_other:
        files.merge(requests, failures,
                    on_video=lambda: stop.raise_if_asked(KEPT))
        claims.clear()
    return failures


def _predict_some(requests: Sequence[Request], localizer: Localizer,
                  settings: Settings, files: PredictionFiles, claims: Claims,
                  stop: StopSignal, bar: tqdm, scratch: Path) -> None:
    """Predicts on the videos that no living process has."""
    most = settings.top_k or localizer.config.evaluate.max_detections
    made_by: dict[str, Any] = {}

    @contextlib.contextmanager
    def opened(one: Request) -> Iterator[Video | None]:
        with _of_output():
            is_mine = not stop.came and claims.take(one.video_id)
            # Another process may have done it since it was last looked for.
            if is_mine and (files.look(one) or files.write_again(one)):
                claims.release(one.video_id)
                is_mine = False
        if not is_mine:
            yield None
            return
        with _local(one, scratch) as path:
            made_by[one.video_id] = files.made_by(one)
            video = localizer.probe(path, one.video_id)
            bar.total = (bar.total or 0) + len(test_windows_of(
                video, localizer.config))
            yield video

    def on_windows(count: int) -> None:
        bar.update(count)
        stop.raise_if_asked(KEPT)

    def write(one: Request, result: VideoResult) -> None:
        if result.error is not None:
            files.write_failure(one, result.error)
        elif result.video is not None:
            info = result.video.info
            num_shown = files.write(one, Clock(
                info.duration_seconds, info.fps, info.frame_count),
                result.detections, made_by.pop(one.video_id))
            # All kept detections are shown, so the limit cut some off.
            bar.write(f"{one.source}: {num_shown} actions in "
                      f"{info.duration_seconds:.1f} s" + (
                          ", as many as are kept: --top_k=N keeps more"
                          if num_shown == most else ""), file=sys.stdout)
        claims.release(one.video_id)

    writing: collections.deque[Future] = collections.deque()
    # Files are written while the next windows are predicted. The executor
    # waits for all of them at the end, also after an error.
    with _raised_at_the_end(), ThreadPoolExecutor(1) as writer:
        with contextlib.closing(localizer.many(
                [functools.partial(opened, one) for one in requests],
                top_k=settings.top_k, on_windows=on_windows,
                stopped=lambda: bool(stop.came))) as results:
            for result in results:
                writing.append(writer.submit(
                    write, requests[result.number], result))
                while writing and writing[0].done():
                    writing.popleft().result()
        for future in writing:
            future.result()
    stop.raise_if_asked(KEPT)


class _OutputError(Exception):
    """An InputError of the output, where those of a video are expected."""

    def __init__(self, error: InputError):
        self.error = error


@contextlib.contextmanager
def _of_output() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise _OutputError(error) from error


@contextlib.contextmanager
def _raised_at_the_end() -> Iterator[None]:
    """Turns an _OutputError into its InputError."""
    try:
        yield
    except _OutputError as error:
        raise error.error from None


@contextlib.contextmanager
def _local(one: Request, scratch: Path) -> Iterator[Path]:
    """Yields the file of a video, from a bucket a copy for the block; errors
    have the name that the user gave."""
    path = one.path or scratch / (
        one.video_id + PurePosixPath(one.source).suffix)
    try:
        if one.path is None:
            storage.fetch(one.source, path)
        yield path
    except FileNotFoundError as error:
        raise InputError(
            f"{one.source}: no such file: check the path") from error
    except InputError as error:
        raise type(error)(
            str(error).replace(str(path), one.source)) from error
    finally:
        if one.path is None:
            path.unlink(missing_ok=True)
