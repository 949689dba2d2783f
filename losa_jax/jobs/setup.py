"""What every job does first: folder, log, data."""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losa_jax import timeline
from losa_jax.data import thumos
from losa_jax.data.annotations import (
    Annotations,
    load_annotations,
    load_class_names,
)
from losa_jax.data.check import BrokenVideo, check_videos
from losa_jax.data.feature_files import FeatureFiles
from losa_jax.data.frame_cache import FrameCache
from losa_jax.data.pipeline import FeatureStore, WindowReader
from losa_jax.data.source import SourceVideo
from losa_jax.errors import InputError
from losa_jax.training import processes

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
# The one class of data.class_agnostic.
ANY_CLASS = "action"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The probed videos of a config.

    Attributes:
      class_names: that the head tells apart, in label order.
      label_names: of the annotations; more than `class_names` where the
        head finds actions of any class (data.class_agnostic).
      train, test: videos of the two subsets; empty where not asked for.
      broken: videos left out under data.on_broken_video="skip".
    """

    class_names: tuple[str, ...]
    label_names: tuple[str, ...]
    train: tuple[SourceVideo, ...]
    test: tuple[SourceVideo, ...]
    broken: tuple[BrokenVideo, ...]


def start_log(workdir: Path) -> None:
    """Makes the folder; the run's first process adds to its log."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--workdir={workdir}: cannot be made a folder "
                         f"({error})") from error
    if not processes.is_first():
        return
    handler = logging.FileHandler(workdir / "log.txt")
    handler.setFormatter(logging.Formatter(
        "%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("losa_jax").addHandler(handler)
    logger.info("started: %s", " ".join(sys.argv))


def store_config(config: Any, workdir: Path) -> None:
    """config.json, as resolved.

    Only for a job that is sure to be this folder's run: a start with other
    settings is refused and must not overwrite what the run was made with.
    """
    write_json(workdir / CONFIG_FILE, config.to_dict())


def load_data(config: Any, workdir: Path,
              subsets: Sequence[str] = ("train", "test"),
              store: FeatureStore | None = None) -> DataSet:
    """Annotations and probed videos.

    Args:
      config: the whole config.
      workdir: keeps the cache of probed videos.
      subsets: which of "train" and "test" to probe.
      store: cached features, which know the videos; no video is opened.

    Raises:
      InputError: names every missing, wrong or broken piece.
    """
    data = config.data
    if not data.annotations:
        raise InputError("config.data.annotations is empty: set "
                         "--config.data.annotations=FILE.json")
    if not data.videos and store is None:
        raise InputError("config.data.videos is empty: set "
                         "--config.data.videos=FOLDER")
    class_names = (load_class_names(data.class_names)
                   if data.class_names else None)
    annotations = load_annotations(data.annotations, class_names=class_names,
                                   on_outside=data.on_outside)
    videos: dict[str, tuple[SourceVideo, ...]] = {"train": (), "test": ()}
    broken: list[BrokenVideo] = []
    for subset in subsets:
        name = data[f"{subset}_subset"]
        videos[subset], lost = _probe_subset(config, annotations, subset,
                                             name, workdir, store)
        broken += lost
    labels = annotations.class_names
    if not data.class_agnostic:
        return DataSet(labels, labels, videos["train"], videos["test"],
                       tuple(broken))
    train = tuple(
        dataclasses.replace(video, actions=tuple(
            action._replace(label=ANY_CLASS) for action in video.actions))
        for video in videos["train"])
    return DataSet((ANY_CLASS,), labels, train, videos["test"],
                   tuple(broken))


def _probe_subset(config: Any, annotations: Annotations, key: str,
                  subset: str, workdir: Path, store: FeatureStore | None):
    data, window = config.data, config.window
    blocked = blocked_videos(data.block_list)
    annotated = tuple(video for video in annotations.subset(subset)
                      if video.video_id not in blocked)
    if not annotated:
        known = sorted({v.subset for v in annotations.videos.values()})
        raise InputError(
            f"{data.annotations}: no video of subset {subset!r}; the file "
            f"has {', '.join(known)}: set --config.data.{key}_subset")
    if store is None:
        with processes.first_goes_first(f"probe {subset}"):
            infos, lost = check_videos(
                annotated, Path(data.videos),
                on_broken_video=data.on_broken_video, check=data.check,
                cache_path=workdir / "probed_videos.json", progress=True)
    else:
        infos, lost = store.check(annotated, data.on_broken_video)
    videos = []
    for video in annotated:
        if video.video_id not in infos:
            continue
        info = infos[video.video_id]
        if isinstance(store, FeatureFiles):
            grid = store.grid(info)
        else:
            grid = timeline.sample_grid(
                info.fps, info.frame_count, sampling=window.sampling,
                frame_stride=window.frame_stride,
                sample_fps=window.sample_fps, window_samples=window.frames)
        videos.append(SourceVideo(video.video_id, info, grid, video.actions))
    actions = sum(len(video.actions) for video in videos)
    logger.info("%s: %d videos, %d actions, %d broken or missing", subset,
                len(videos), actions, len(lost))
    return tuple(videos), lost


def blocked_videos(block_list: str) -> dict[str, str]:
    """{video id: reason} of what config.data.block_list leaves out.

    Raises:
      InputError: neither a protocol's name nor a file.
    """
    if not block_list:
        return {}
    if block_list in thumos.EXCLUDED:
        return thumos.EXCLUDED[block_list]
    path = Path(block_list)
    if not path.is_file():
        raise InputError(f"{block_list}: neither a file of ids to leave out, "
                         f"one a line, nor one of "
                         f"{', '.join(thumos.EXCLUDED)}")
    return {line.split()[0]: f"is named in {path.name}"
            for line in path.read_text().splitlines() if line.strip()}


def window_reader(config: Any, store: FeatureStore | None,
                  sets: Mapping[str, Sequence[SourceVideo]]
                  ) -> WindowReader:
    """What windows are read from: cached features, or decoded frames.

    Args:
      sets: that are read again and again, by name.
    """
    if store is not None:
        return store
    cache = FrameCache(config.data.frame_cache_gib)
    for name, videos in sets.items():
        cache.admit(videos, name)
    return cache


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all, by the first process of the run."""
    if not processes.is_first():
        return
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)
