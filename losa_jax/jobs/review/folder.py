"""The folder of a review: its lock, its videos, and where their files are."""

import collections
import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from losa_jax.data.annotations.tools.video_names import shown_names
from losa_jax.data.predictions import (
    VideoPredictions,
    read_predictions,
    read_video_predictions,
)
from losa_jax.data.video.folder import VideoFolder, video_id_of, videos_below
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError, listed
from losa_jax.utils.run_files import PREDICTIONS_FILE
from losa_jax.utils.text_files import nfc

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def only_reviewer(folder: Path) -> Iterator[None]:
    """Locks a folder for this process; the system unlocks it when the process
    ends in any way. InputError where another process holds the lock."""
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"{folder}: cannot be opened ({error.strerror}): "
                         "give the folder that losa_jax.predict wrote, or a "
                         "folder of videos") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: is being reviewed by another process: open the "
                "address that it printed, or stop it") from error
        yield
    finally:
        os.close(file)


def read_predicted(folder: Path) -> list[VideoPredictions]:
    """Returns what `predict` wrote, nothing for a folder without it."""
    path = folder / PREDICTIONS_FILE
    if not path.exists():
        return []
    files = [folder / f"{name}.json" for name in read_predictions(path)]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} videos of {PREDICTIONS_FILE} have no "
            "file of their own, as in the work directory of a run: predict on "
            "the videos with losa_jax.predict, and review its --output"
            f"{listed(missing, most=5)}")
    videos = [read_video_predictions(file) for file in files]
    for file, one in zip(files, videos, strict=True):
        # Reviews are written under this name.
        if f"{one.video_id}.json" != nfc(file.name):
            raise InputError(
                f"{file}: is of the video {one.video_id!r}, which is no name "
                "of this file: run predict again, or remove it")
    return videos


def probe_videos(folder: Path) -> list[VideoPredictions]:
    """Returns the videos of a folder without detections, by header."""
    paths, _ = videos_below(folder)
    if not paths:
        raise InputError(
            f"{folder}: holds neither {PREDICTIONS_FILE} nor videos: give the "
            "folder that losa_jax.predict wrote when it was done, or a folder "
            "of videos")
    videos = []
    for name, path in ids_below(folder, paths).items():
        try:
            info = probe_video(path, check="none")
        except InputError as error:
            logger.warning("%s: left out: it cannot be read", error)
            continue
        videos.append(VideoPredictions(
            name, str(path.absolute()), info.duration_seconds,
            info.fps, info.frame_count, {}, [], ""))
    return videos


def ids_below(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Returns the videos in a folder and its subfolders by id: the name of the
    file without its ending. Where several have it, they keep as many folders
    and endings as distinguish them. InputError where that is not possible."""
    # The empty part is the folder itself: so no path is the end of another.
    parts = {path: ("", *map(nfc, path.relative_to(folder).parts))
             for path in paths}
    names = shown_names(parts.values())
    shown = {path: Path(names[one].lstrip("/"))
             for path, one in parts.items()}
    stems = {path: (name.parent / video_id_of(name)).as_posix()
             for path, name in shown.items()}
    counts = collections.Counter(stems.values())
    ids = {stems[path] if counts[stems[path]] == 1 else name.as_posix(): path
           for path, name in shown.items()}
    if missing := [str(path) for path in paths if path not in ids.values()]:
        raise InputError(f"{folder}: {len(missing)} videos have no name of "
                         f"their own: rename them{listed(missing)}")
    return ids


def find_file(predicted: VideoPredictions, folder: Path,
              videos: VideoFolder | None) -> Path | None:
    """Returns the file of a video: in the folder `videos` if it is given and
    has it, or where it was when it was predicted; None for neither."""
    if videos is not None:
        with contextlib.suppress(InputError):
            return videos.find(predicted.video_id)
    source = Path(predicted.source)
    places = (source, folder / source, folder.absolute().parent / source)
    return next((place.absolute() for place in places if place.is_file()),
                None)
