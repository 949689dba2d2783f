"""Finds and probes every video of a set before anything is trained on it."""

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from losa_jax.data.records import AnnotatedVideo, BrokenVideo, VideoInfo
from losa_jax.data.video.probe import CHECKS, probe_video
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import written_whole

logger = logging.getLogger(__name__)

EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
# A file that disagrees with its annotation by more than this share has been
# cut or re-encoded; its actions may be elsewhere.
DISAGREEMENT = 0.01
MAX_REPORTED = 20
# For a job that tells of broken videos itself.
REPORT = "report"


def check_videos(videos: Sequence[AnnotatedVideo], folder: Path, *,
                 on_broken_video: str = "stop", check: str = "ends",
                 cache_path: Path | None = None, progress: bool = True,
                 num_threads: int = 2
                 ) -> tuple[dict[str, VideoInfo], list[BrokenVideo]]:
    """Probes the videos' files.

    Args:
      videos: to look for, as <video_id>.mp4 (or another video extension).
      folder: of the files.
      on_broken_video: "stop" raises if any video is missing or broken,
        "skip" leaves it out with a warning, `REPORT` without a word.
      check: "none", "ends" or "full"; see `probe_video`.
      cache_path: JSON of files probed before; by path, size and time.
      progress: show a bar.
      num_threads: probing in parallel.

    Returns:
      ({video_id: info}, videos left out).

    Raises:
      InputError: lists every missing or broken video and the remedy.
    """
    if on_broken_video not in ("stop", "skip", REPORT):
        raise InputError(f"config.data.on_broken_video={on_broken_video!r}: "
                         "choose stop or skip")
    if check not in CHECKS:
        raise InputError(f"config.data.check={check!r}: choose one of "
                         f"{', '.join(CHECKS)}")
    if not folder.is_dir():
        raise _no_folder(folder)
    cache = _load_cache(cache_path)
    files = video_files(folder)

    def probe(video: AnnotatedVideo) -> VideoInfo | BrokenVideo:
        try:
            path = find_file(video.video_id, folder, files)
            key = _cache_key(path, check)
            info = _from_cache(cache, key)
            if info is None:
                info = probe_video(path, check=check)
                cache[key] = {**dataclasses.asdict(info),
                              "path": str(info.path)}
            if on_broken_video != REPORT:
                compare(video, info)
            return info
        except InputError as error:
            return BrokenVideo(video.video_id, folder / video.video_id,
                               str(error))

    infos: dict[str, VideoInfo] = {}
    broken: list[BrokenVideo] = []
    pool = ThreadPoolExecutor(num_threads)
    try:
        results = tqdm(pool.map(probe, videos), total=len(videos),
                       desc="checking videos", unit="video",
                       disable=not progress, leave=False)
        for video, result in zip(videos, results, strict=True):
            if isinstance(result, BrokenVideo):
                broken.append(result)
            else:
                infos[video.video_id] = result
    finally:
        # Ctrl-C must neither wait for the rest nor lose what was done.
        pool.shutdown(cancel_futures=True)
        _save_cache(cache_path, cache)
    report_broken(broken, len(videos), on_broken_video, bool(infos))
    return infos, broken


def report_broken(broken: Sequence[BrokenVideo], num_videos: int,
                  on_broken_video: str, some_are_left: bool,
                  flag: str = "--config.data.on_broken_video") -> None:
    """Warns of videos that are left out, or stops because of them.

    Args:
      flag: of the command that was used, for the message.

    Raises:
      InputError: lists them, under "stop" or where no video is left.
    """
    if on_broken_video == REPORT:
        return
    if broken and (on_broken_video == "stop" or not some_are_left):
        lines = [f"  {item.video_id}: {item.reason}"
                 for item in broken[:MAX_REPORTED]]
        more = len(broken) - len(lines)
        raise InputError(
            f"{len(broken)} of {num_videos} videos are missing or broken:\n"
            + "\n".join(lines) + (f"\n  and {more} more" if more else "")
            + f"\nMend them, or leave them out with {flag}=skip")
    for item in broken:
        logger.warning("skipped %s: %s", item.video_id, item.reason)


def video_ids(folder: Path) -> list[str]:
    """Ids of all videos in a folder: their names without extension.

    Raises:
      InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise _no_folder(folder)
    return sorted(video_files(folder))


def _no_folder(folder: Path) -> InputError:
    return InputError(f"{folder}: no such folder of videos; set "
                      "--config.data.videos=FOLDER")


def video_files(folder: Path) -> dict[str, list[str]]:
    """Names of video files by name without extension (may hold dots)."""
    files: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)):
        for extension in EXTENSIONS:
            if name.lower().endswith(extension):
                files.setdefault(name[:-len(extension)], []).append(name)
    return files


def find_file(video_id: str, folder: Path,
              files: dict[str, list[str]]) -> Path:
    """The file of a video.

    Args:
      files: `video_files` of the folder.

    Raises:
      InputError: none, or several.
    """
    # An id with a separator in it would reach outside the folder.
    if Path(video_id).name != video_id:
        raise InputError(f"video id {video_id!r} is no plain file name: "
                         "rename the video in the annotations")
    # ActivityNet's videos circulate with "v_" before their id.
    found = files.get(video_id) or files.get(f"v_{video_id}", [])
    if not found:
        raise InputError(f"no file {video_id}{{{','.join(EXTENSIONS)}}} in "
                         f"{folder}")
    if len(found) > 1:
        raise InputError(f"several files: {', '.join(found)} in {folder}; "
                         "keep one")
    return folder / found[0]


def end_seconds(video: AnnotatedVideo, info: VideoInfo) -> float:
    """Where a video ends for its actions: as annotated if the file agrees
    within `DISAGREEMENT`, for both are rounded, else where the file ends."""
    said, real = video.duration_seconds, info.duration_seconds
    if said is not None and abs(said - real) <= DISAGREEMENT * real:
        return said
    return real


def compare(video: AnnotatedVideo, info: VideoInfo) -> None:
    """Warns where annotation and file disagree about duration or rate."""
    for name, said, real in (
            ("duration", video.duration_seconds, info.duration_seconds),
            ("fps", video.fps, info.fps)):
        if said is not None and abs(said - real) > DISAGREEMENT * real:
            logger.warning("%s: the annotation says %s %.6g, the file has "
                           "%.6g; the file's is used", video.video_id, name,
                           said, real)


def _cache_key(path: Path, check: str) -> str:
    facts = path.stat()
    return (f"{path.absolute()}|{facts.st_size}|{facts.st_mtime_ns}|{check}")


def _load_cache(path: Path | None) -> dict:
    if path is None or not path.is_file():
        return {}
    try:
        cache = json.loads(path.read_text())
    except ValueError:
        cache = None
    return cache if isinstance(cache, dict) else {}  # it is only a cache


def _from_cache(cache: dict, key: str) -> VideoInfo | None:
    if key not in cache:
        return None
    try:
        return VideoInfo(**{**cache[key], "path": Path(cache[key]["path"])})
    except TypeError:
        return None  # written by another version


def _save_cache(path: Path | None, cache: dict) -> None:
    if path is None:
        return
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(cache))
