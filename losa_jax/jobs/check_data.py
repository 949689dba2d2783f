"""--mode=check_data: reports faults of videos, or of the features that a
recipe reads in their place, and of annotations."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from losa_jax.data.annotations import lint, load
from losa_jax.data.annotations.block_list import blocked_videos
from losa_jax.data.annotations.reviewed import check_scorable
from losa_jax.data.features import tap_cache
from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.records import AnnotatedVideo, VideoInfo
from losa_jax.data.video.check import (
    Checked,
    check_each,
    disagreements,
    end_seconds,
)
from losa_jax.data.windows.sampling import video_grid
from losa_jax.jobs import setup
from losa_jax.jobs.fit_config import data_facts, fit_sizes
from losa_jax.timeline import SampleGrid
from losa_jax.training import config_ranges, feature_store
from losa_jax.utils.atomic_write import write_text

logger = logging.getLogger(__name__)

REPORT_FILE = "check_data.json"
BLOCK_LIST_FILE = "block_list.txt"
MAX_SHOWN = 20
# The category of findings that puts a video onto the block list.
UNREADABLE = "missing or unreadable"


class Finding(NamedTuple):
    """A fault of one video."""

    video_id: str
    subset: str
    category: str
    detail: str


def check_data(config: Any, workdir: Path) -> list[Finding]:
    """Prints tables; writes check_data.json and block_list.txt.

    Raises:
      InputError: values that cannot be, keys that are not set, annotations
        that cannot be read, a subset without videos, no action to train on, no
        folder of videos or features.
    """
    setup.check_config(config, keys=("data.annotations", "data.videos"))
    setup.start_log(workdir)
    if config.data.cache:  # whose windows have sizes
        fit_sizes(config, workdir, None)
    for line in config_ranges.doubts(config):
        logger.warning("%s", line)
    store = None if _adds_all(config) else feature_store.open_store(config)
    stored = setup.open_stored(config)
    if store is None and stored is None:
        setup.report_folder(config)
    annotations = setup.read_annotations(config, stored)
    findings: list[Finding] = []
    num_videos = num_readable = 0
    keys = (setup.TRAIN_KEY, setup.TEST_KEY)
    selected = load.select_subsets(annotations, [
        (f"--config.data.{key}", config.data[key]) for key in keys])
    subsets = {config.data[key]: videos for key, videos in zip(
        keys, selected, strict=True)}
    classes = lint.class_counts(annotations)
    print(_class_table(classes))
    left_out, unknown = blocked_videos(config.data.block_list,
                                       annotations.videos)
    doubts = [*lint.similar_names(annotations), *unknown]
    print("".join(f"{line}\n" for line in doubts))
    load.check_training(annotations, config.data.train_subset, selected[0])
    check_scorable(annotations.path, [
        video for video in selected[1] if video.video_id not in left_out])
    checked = {subset: setup.probe(config, videos, workdir, stored)
               if store is None else
               _check_features(config, videos, workdir, store)
               for subset, videos in subsets.items()}
    if readable := checked[config.data.train_subset][0]:
        fit_sizes(config, workdir, None, data_facts(selected[0], readable))
    for subset, videos in subsets.items():
        infos, unreadable = checked[subset]
        num_videos += len(videos)
        num_readable += len(infos)
        findings += [Finding(video_id, subset, UNREADABLE, reason)
                     for video_id, reason in unreadable.items()]
        for video in videos:
            if video.video_id in infos:
                findings += check_video(
                    video, infos[video.video_id], config,
                    None if store is None
                    else store.grid(infos[video.video_id]))
    blocked = sorted({one.video_id for one in findings
                      if one.category == UNREADABLE})
    setup.write_json(workdir / REPORT_FILE, {
        "videos": num_videos, "readable": num_readable, "classes": classes,
        "names": doubts,
        "findings": [one._asdict() for one in findings]})
    write_text(workdir / BLOCK_LIST_FILE,
               "".join(f"{name}\n" for name in blocked))
    what = "videos" if store is None else "videos' features"
    print(f"{num_readable} of {num_videos} {what} can be read")
    _print_findings(findings, workdir)
    if blocked and num_readable:
        print(f"{len(blocked)} videos are in {workdir / BLOCK_LIST_FILE}: "
              "leave them out with --config.data.block_list="
              f"{workdir / BLOCK_LIST_FILE}")
    return findings


def _adds_all(config: Any) -> bool:
    """Whether a training will cache the features of all videos."""
    return bool(config.data.cache and config.data.videos
                and not tap_cache.stored_facts(config.data.cache))


def _check_features(config: Any, videos: Sequence[AnnotatedVideo],
                    workdir: Path,
                    store: tap_cache.TapCache | FeatureFiles) -> Checked:
    """Checks features; the videos of those that a training will add."""
    missing = [] if not config.data.videos or isinstance(
        store, FeatureFiles) else [
        video for video in videos if video.video_id not in store]
    if not missing:
        checked = check_each(videos, store.check)
        if isinstance(store, FeatureFiles):
            store.check_rate()
        return checked
    others = {video.video_id for video in missing}
    infos, unreadable = check_each([
        video for video in videos if video.video_id not in others],
        store.check)
    more, broken = setup.probe(config, missing, workdir, None)
    return infos | more, unreadable | broken


def check_video(video: AnnotatedVideo, info: VideoInfo, config: Any,
                feature_grid: SampleGrid | None = None) -> list[Finding]:
    """Compares a readable video, or its features and their grid, with its
    annotations and with a clip."""
    faults = {f"another {name}": detail
              for name, detail in disagreements(video, info).items()}
    grid = feature_grid or video_grid(info, config.window)
    clip = config.window.clip_samples
    if grid.num_samples < clip:
        faults["short"] = (f"{grid.num_samples} samples, a clip has {clip}: "
                           "the rest is padding")
    faults |= lint.find_faults(video, end_seconds(video, info), info.fps)
    return [Finding(video.video_id, video.subset, category, detail)
            for category, detail in faults.items()]


def _class_table(classes: Mapping[str, Mapping[str, int]]) -> str:
    """Returns a line for each class with its actions in each subset."""
    subsets = next(iter(classes.values()), {})
    width = max(map(len, ["actions", *classes]))
    lines = [f"{'actions':<{width}}"
             + "".join(f"  {subset:>10}" for subset in subsets)]
    lines += [f"{name:<{width}}" + "".join(
        f"  {counts[subset]:>{max(10, len(subset))}}" for subset in subsets)
        for name, counts in classes.items()]
    return "\n".join(lines)


def _print_findings(findings: list[Finding], workdir: Path) -> None:
    """Prints the first videos of each category, the largest category first."""
    counts = Counter(one.category for one in findings)
    for category, count in counts.most_common():
        print(f"\n{category}: {count} videos")
        for one in [one for one in findings
                    if one.category == category][:MAX_SHOWN]:
            print(f"  {one.video_id} ({one.subset}): {one.detail}")
        if count > MAX_SHOWN:
            print(f"  and {count - MAX_SHOWN} more in "
                  f"{workdir / REPORT_FILE}")
    print(f"\nwrote {workdir / REPORT_FILE}")
