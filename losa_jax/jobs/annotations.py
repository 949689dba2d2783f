"""Converts the files of annotation tools to the annotations of a training."""

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.database import (
    earlier_split,
    to_database,
)
from losa_jax.data.annotations.tools.read import Reading, read_annotations
from losa_jax.data.annotations.tools.video_names import parts_of
from losa_jax.data.records import VideoInfo
from losa_jax.data.video.folder import video_id_of, videos_below
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError
from losa_jax.utils.atomic_write import make_folder, write_text
from losa_jax.utils.names import nearest, without_ending

_TOLERANCE_SECONDS = 0.05


class VideosBelow:
    """The videos of a folder and its subfolders by the names in annotations,
    with or without an ending and folders."""

    def __init__(self, folder: Path):
        """Lists the folder; InputError if this is impossible."""
        self._folder = folder
        self._infos: dict[Path, VideoInfo] = {}

    @cached_property
    def _names(self) -> dict[Path, tuple[str, ...]]:
        return {path: (*parts_of(str(path.relative_to(self._folder)))[:-1],
                       video_id_of(path))
                for path in videos_below(self._folder)[0]}

    def named(self, name: str) -> list[Path]:
        """Returns the videos of this name."""
        parts = parts_of(name)
        wanted = (*parts[:-1], without_ending(parts[-1]))
        paths = [path for path, one in self._names.items()
                 if one[-len(wanted):] == wanted]
        exact = [path for path in paths if path.name == parts[-1]]
        return exact or paths

    def nearest(self, name: str) -> list[str]:
        """Returns the files whose names are most like a missing one."""
        return nearest(parts_of(name)[-1], {
            path.name: [path.name] for path in self._names}, 1)

    def info(self, name: str) -> VideoInfo | None:
        """Returns the properties of the one video of this name, else None."""
        paths = self.named(name)
        if len(paths) != 1:
            return None
        if paths[0] not in self._infos:
            self._infos[paths[0]] = probe_video(paths[0])
        return self._infos[paths[0]]

    def fps(self, name: str) -> float | None:
        """Returns the frames a second of a video, if there is just one."""
        info = self.info(name)
        return None if info is None else info.fps

    def seconds(self, name: str) -> float | None:
        """Returns the length of a video, if there is just one."""
        info = self.info(name)
        return None if info is None else info.duration_seconds


def convert_annotations(inputs: Sequence[Path], options: Options, *,
                        videos: Path | None = None, output: Path | None = None,
                        group: str = "", share: float = 0.2, seed: int = 0,
                        resplit: bool = False) -> Reading:
    """Reads annotations, prints what was read and left out, and writes them
    with a split to `output`; its arguments are those of `python -m
    losa_jax.annotations`. InputError for anything that is wrong."""
    below = None if videos is None else VideosBelow(videos)
    if below is not None:
        options = dataclasses.replace(options, video_fps=below.fps,
                                      video_seconds=below.seconds)
    known = {} if output is None else earlier_split(output)
    reading = read_annotations(inputs, options)
    if below is not None:
        _check_videos(reading, below)
    print(reading.summary())
    database, lines = to_database(reading, group=group, share=share,
                                  seed=seed, resplit=resplit, known=known)
    print("\n".join(lines))
    if output is not None:
        make_folder(output.absolute().parent)
        write_text(output, json.dumps(database, indent=1, ensure_ascii=False,
                                      allow_nan=False) + "\n")
        print(f"wrote {output}")
    return reading


def _check_videos(reading: Reading, below: VideosBelow) -> None:
    """Adds the length and rate of the videos' files, and remarks on those that
    are missing, or shorter than their actions."""
    def remark(sentence: str, example: str) -> None:
        reading.remarks.setdefault(sentence, []).append(example)

    for name, facts in reading.videos.items():
        paths = below.named(name)
        if len(paths) > 1:
            raise InputError(
                f"{name!r}: {len(paths)} files of this name: "
                f"{', '.join(map(str, paths[:3]))}: rename one of them, there "
                "and in the annotations")
        if not paths:
            near = below.nearest(name)
            remark("videos that are not below --videos", name + (
                f" (the nearest is {near[0]})" if near else ""))
            continue
        facts.fps = below.fps(name)
        facts.duration_seconds = below.seconds(name)
    for action in reading.actions:
        end = reading.videos[action.video].duration_seconds
        if end is not None and action.end_seconds > end + _TOLERANCE_SECONDS:
            remark("actions that end after their video (training refuses "
                   "them; --config.data.on_outside=clip cuts them)",
                   f"{action.label!r} at {action.start_seconds:g} to "
                   f"{action.end_seconds:g} s of {action.video}, which has "
                   f"{end:g} s")
