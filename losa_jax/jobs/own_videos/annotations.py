"""Converts the files of annotation tools to the annotations of a training."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.database import (
    VERSION,
    earlier_split,
    to_database,
)
from losa_jax.data.annotations.tools.read import Reading, read_annotations
from losa_jax.data.records import VideoInfo
from losa_jax.data.video.folder import SeveralVideosError, VideoFolder
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import make_folder, write_text
from losa_jax.utils.names import without_ending

_TOLERANCE_SECONDS = 0.05


class _Videos:
    """The videos of a folder by the names in annotations, with or without an
    ending and folders."""

    def __init__(self, folder: Path):
        """Lists the folder; InputError if this is impossible."""
        self._folder = VideoFolder(folder)
        self._infos: dict[str, VideoInfo | InputError] = {}

    def info(self, name: str) -> VideoInfo | InputError:
        """Returns the properties of a video, or why there are none."""
        if name not in self._infos:
            self._infos[name] = self._probed(name)
        return self._infos[name]

    def _probed(self, name: str) -> VideoInfo | InputError:
        try:
            return probe_video(self._path(name))
        except InputError as error:
            return error

    def _path(self, name: str) -> Path:
        try:
            return self._folder.find(without_ending(name))
        except SeveralVideosError:  # that differ in their ending
            return self._folder.find(name)

    def fps(self, parts: Sequence[str]) -> float:
        """Returns the frames a second of a video, which is named with as many
        folders as it needs; InputError without it."""
        for count in range(1, len(parts) + 1):
            info = self.info("/".join(parts[-count:]))
            if not isinstance(info, SeveralVideosError):
                break
        if isinstance(info, InputError):
            raise info
        return info.fps

    def seconds(self, name: str) -> float | None:
        """Returns the length of a video, None without it."""
        info = self.info(name)
        return None if isinstance(info, InputError) else info.duration_seconds


def convert_annotations(inputs: Sequence[Path], options: Options, *,
                        videos: Path | None = None, output: Path | None = None,
                        group: str = "", share: float = 0.2, seed: int = 0,
                        resplit: bool = False, skipped: Sequence[Path] = (),
                        version: str = VERSION) -> Reading:
    """Reads annotations, prints what was read and left out, and writes them
    with a split to `output`; its arguments are those of `python -m
    losa_jax.annotations`, what is `skipped` in a folder, and the "version" of
    the file. InputError for anything that is wrong."""
    below = None if videos is None else _Videos(videos)
    if below is not None:
        options = dataclasses.replace(options, video_fps=below.fps,
                                      video_seconds=below.seconds)
    known = {} if output is None or resplit else earlier_split(output)
    reading = read_annotations(inputs, options, skipped=[
        *skipped, *([] if output is None else [output])])
    if below is not None:
        _check_videos(reading, below)
    print(reading.summary())
    database, lines = to_database(reading, group=group, share=share,
                                  seed=seed, resplit=resplit, known=known)
    print("\n".join(lines))
    if output is not None:
        make_folder(output.absolute().parent)
        write_text(output, json.dumps(
            {**database, "version": version}, indent=1, ensure_ascii=False,
            allow_nan=False) + "\n")
        print(f"wrote {output}")
    return reading


def _check_videos(reading: Reading, below: _Videos) -> None:
    """Adds the length and rate of the videos' files, and remarks on those that
    are missing, or shorter than their actions."""
    def remark(sentence: str, example: str) -> None:
        reading.remarks.setdefault(sentence, []).append(example)

    for name, facts in reading.videos.items():
        info = below.info(name)
        if isinstance(info, InputError):
            remark("videos that cannot be read from --videos", str(info))
        else:
            facts.fps, facts.duration_seconds = info.fps, info.duration_seconds
    for action in reading.actions:
        end = reading.videos[action.video].duration_seconds
        if end is not None and action.end_seconds > end + _TOLERANCE_SECONDS:
            remark("actions that end after their video (training refuses "
                   "them; --config.data.on_outside=clip cuts them)",
                   f"{action.label!r} at {action.start_seconds:g} to "
                   f"{action.end_seconds:g} s of {action.video}, which has "
                   f"{end:g} s")
