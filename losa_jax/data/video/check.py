"""Finds and probes every video of a set before training."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from losa_jax.data.records import AnnotatedVideo, VideoInfo
from losa_jax.data.video.folder import VideoFolder
from losa_jax.data.video.probe import CHECKS, probe_video
from losa_jax.errors import InputError, listed
from losa_jax.utils.atomic_write import write_text

logger = logging.getLogger(__name__)

# A file that disagrees with its annotation by more has been cut or encoded
# again; its actions may be elsewhere.
DISAGREEMENT = 0.01

# By video id: the videos that can be read, and why the others cannot.
Checked = tuple[dict[str, VideoInfo], dict[str, str]]


def check_videos(videos: Sequence[AnnotatedVideo], folder: Path, *,
                 check: str = "ends", cache_path: Path | None = None,
                 num_threads: int = 2) -> Checked:
    """Probes each video's file in `folder`; broken ones do not raise.

    Args:
      check: see `probe_video`.
      cache_path: JSON of results, reused if path, size and time match.

    Raises:
      InputError: the folder is missing, or `check` is unknown.
    """
    if check not in CHECKS:
        raise InputError(f"config.data.check={check!r}: choose one of "
                         f"{', '.join(CHECKS)}")
    files = VideoFolder(folder)
    cache = {}
    if cache_path is not None:
        with contextlib.suppress(FileNotFoundError, TypeError, ValueError):
            cache = dict(json.loads(cache_path.read_text()))

    def info_of(video: AnnotatedVideo) -> VideoInfo:
        path = files.find(video.video_id)
        status = path.stat()
        key = (f"{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"
               f"|{check}")
        try:
            return VideoInfo(**{**cache[key], "path": path})
        except (KeyError, TypeError):  # not there, or of another version
            info = probe_video(path, check=check)
            cache[key] = {**dataclasses.asdict(info), "path": str(path)}
            return info

    pool = ThreadPoolExecutor(num_threads)
    try:
        return check_each(videos, info_of, run=lambda attempt, videos: tqdm(
            pool.map(attempt, videos), total=len(videos),
            desc="checking videos", unit="video", leave=False))
    finally:
        # Ctrl-C must neither wait for the rest nor lose what was done.
        pool.shutdown(cancel_futures=True)
        if cache_path is not None:
            write_text(cache_path, json.dumps(cache))


def check_each(videos: Sequence[AnnotatedVideo],
               info_of: Callable[[AnnotatedVideo], VideoInfo],
               run: Callable[..., Iterable[Any]] = map) -> Checked:
    """Calls `info_of`, which raises an InputError for a broken video, for each
    video by `run`, as `map`."""
    def attempt(video: AnnotatedVideo) -> VideoInfo | InputError:
        try:
            return info_of(video)
        except InputError as error:
            return error

    infos: dict[str, VideoInfo] = {}
    broken: dict[str, str] = {}
    for video, result in zip(videos, run(attempt, videos), strict=True):
        if isinstance(result, InputError):
            broken[video.video_id] = str(result)
        else:
            infos[video.video_id] = result
    return infos, broken


def report_broken(broken: Mapping[str, str], num_videos: int,
                  on_broken_video: str) -> None:
    """Warns of videos that are left out; under "stop", or where no video is
    left, raises an InputError that lists them and names the flag."""
    lines = [f"{video_id}: {reason}" for video_id, reason in broken.items()]
    if broken and (on_broken_video == "stop" or len(broken) == num_videos):
        raise InputError(
            f"{len(broken)} of {num_videos} videos are missing or broken:"
            f"{listed(lines)}\nRepair them, or " + (
                "correct the folder" if len(broken) == num_videos else
                "leave them out with --config.data.on_broken_video=skip"))
    for line in lines:
        logger.warning("skipped %s", line)


def end_seconds(video: AnnotatedVideo, info: VideoInfo) -> float:
    """Returns the annotated duration if the file agrees within `DISAGREEMENT`
    (both are rounded), else the file's."""
    if video.duration_seconds is None or "duration" in disagreements(
            video, info):
        return info.duration_seconds
    return video.duration_seconds


def disagreements(video: AnnotatedVideo, info: VideoInfo) -> dict[str, str]:
    """Returns what annotation and file say about "duration" and "frame rate"
    where they disagree."""
    pairs = {"duration": (video.duration_seconds, info.duration_seconds),
             "frame rate": (video.fps, info.fps)}
    return {name: f"the annotation says {annotated:.6g}, the file has "
                  f"{real:.6g}"
            for name, (annotated, real) in pairs.items()
            if annotated is not None
            and abs(annotated - real) > DISAGREEMENT * real}
