"""Finds and probes every video of a set before training."""

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from losa_jax.data.records import AnnotatedVideo, VideoInfo
from losa_jax.data.video.probe import CHECKS, probe_video
from losa_jax.errors import InputError, listed
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.text_files import nfc

logger = logging.getLogger(__name__)

EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
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
    files = video_files(folder)
    cache = {}
    if cache_path is not None:
        with contextlib.suppress(FileNotFoundError, TypeError, ValueError):
            cache = dict(json.loads(cache_path.read_text()))

    def info_of(video: AnnotatedVideo) -> VideoInfo:
        path = find_file(video.video_id, folder, files)
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
                  on_broken_video: str,
                  flag: str = "--config.data.on_broken_video") -> None:
    """Warns of videos that are left out; under "stop", or where no video is
    left, raises an InputError that lists them and names the flag."""
    lines = [f"{video_id}: {reason}" for video_id, reason in broken.items()]
    if broken and (on_broken_video == "stop" or len(broken) == num_videos):
        raise InputError(
            f"{len(broken)} of {num_videos} videos are missing or broken:"
            f"{listed(lines)}\nRepair them, or leave them out with "
            f"{flag}=skip")
    for line in lines:
        logger.warning("skipped %s", line)


def video_files(folder: Path) -> dict[str, list[str]]:
    """Returns file names by video id in Unicode NFC, sorted; InputError if
    the folder is missing."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of videos; set "
                         "--config.data.videos=FOLDER")
    files: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        stem, extension = os.path.splitext(name)
        if extension.lower() in EXTENSIONS:
            files.setdefault(nfc(stem), []).append(name)
    return files


def find_file(video_id: str, folder: Path,
              files: dict[str, list[str]]) -> Path:
    """Returns the file of a video among `video_files` of its folder;
    InputError if there is not just one."""
    # An id with a separator in it would reach outside the folder.
    if Path(video_id).name != video_id:
        raise InputError(f"video id {video_id!r} is no plain file name: "
                         "rename the video in the annotations")
    # ActivityNet's videos circulate with "v_" before their id.
    # An id may also be the whole name of a file.
    names = files.get(video_id) or files.get(f"v_{video_id}") or [
        name for name in files.get(os.path.splitext(video_id)[0], [])
        if nfc(name) == video_id]
    if not names:
        raise InputError(f"no file {video_id}{{{','.join(EXTENSIONS)}}} in "
                         f"{folder}")
    if len(names) > 1:
        raise InputError(f"several files: {', '.join(names)} in {folder}; "
                         "keep one")
    return folder / names[0]


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
