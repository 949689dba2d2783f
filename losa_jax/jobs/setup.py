"""The first steps of every job: work directory, log, data set."""

import dataclasses
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from losa_jax.data import records
from losa_jax.data.annotations import (
    block_list,
    lint,
    load,
    outside,
    short_actions,
)
from losa_jax.data.annotations.reviewed import check_scorable, with_reviews
from losa_jax.data.features.files import FeatureFiles
from losa_jax.data.reviews import (
    REVIEWS_FOLDER,
    read_reviews,
    review_folders,
)
from losa_jax.data.synthetic.data_set import render_untrimmed_set
from losa_jax.data.video import check, frame_cache
from losa_jax.data.video.folder import VideoFolder, warn_left_out
from losa_jax.data.windows import readers, sampling
from losa_jax.data.windows.skipped_videos import BEFORE, BrokenVideos
from losa_jax.distributed import processes, remote_workdir
from losa_jax.errors import InputError, listed
from losa_jax.training import config_ranges
from losa_jax.utils import atomic_write, run_files
from losa_jax.utils.threads import thread_count

if TYPE_CHECKING:  # imports TensorFlow Datasets, which most runs need not
    from losa_jax.data.tfds import StoredVideos

logger = logging.getLogger(__name__)

# Encodes those of the videos of some subsets whose features are missing:
# (names of the subsets, video ids).
Fill = Callable[[Sequence[str], Sequence[str]], None]
# The one class of data.class_agnostic.
ANY_CLASS = "action"
# The keys of config.data that name the subsets to train and to test on.
TRAIN_KEY = "train_subset"
TEST_KEY = "test_subset"


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The probed videos of a config.

    Attributes:
      class_names: classes of the head, in label order.
      label_names: classes of the annotations; more than `class_names` where
        the head is class-agnostic (data.class_agnostic).
      train, test: videos of the two subsets; empty where not requested.
      broken: {video id: reason} of videos skipped under
        data.on_broken_video="skip".
    """

    class_names: tuple[str, ...]
    label_names: tuple[str, ...]
    train: tuple[records.Video, ...]
    test: tuple[records.Video, ...]
    broken: dict[str, str]


class _LogFile(logging.FileHandler):
    """A log that ends where it cannot be written, with one line."""

    def handleError(self, record: logging.LogRecord) -> None:
        logging.getLogger("losa_jax").removeHandler(self)
        print(f"{self.baseFilename}: cannot be written any more "
              f"({sys.exception()})", file=sys.stderr)


def notes_folder(workdir: Path, output: Path | None) -> Path:
    """Returns the folder of the log and of what is known of videos: the work
    directory, or the output of a command on somebody else's run."""
    if output is None or not workdir.is_dir() or os.access(workdir, os.W_OK):
        return workdir
    return output


def start_log(workdir: Path) -> None:
    """Creates the work directory; the first process appends to log.txt."""
    atomic_write.make_folder(workdir)
    if not processes.is_first():
        return
    path = workdir / run_files.LOG_FILE
    with atomic_write.writing(path):
        handler = _LogFile(path)
    handler.setFormatter(logging.Formatter(
        "%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("losa_jax").addHandler(handler)
    logger.info("started: %s", " ".join(sys.argv))


# What to set the keys to that have no default.
_MEANINGS = {
    "data.annotations": "FILE.json (the actions of each video)",
    "data.videos": "FOLDER (of the video files)",
    "backbone.checkpoint": "FOLDER (convert one with `python -m "
                           "losa_jax.convert CHECKPOINT --output=FOLDER`)"}


def check_config(config: Any, *, keys: Sequence[str] = tuple(_MEANINGS),
                 reads_features: bool = True, reads_tfds: bool = True) -> None:
    """Checks the numbers of a config, and that keys without a default are set.

    Args:
      keys: that the job needs, unless others replace them.
      reads_features: whether features can replace videos.
      reads_tfds: whether a data set of TFDS can replace them.

    Raises:
      InputError: names all wrong or missing keys at once.
    """
    config_ranges.check_ranges(config)
    data, replaced = config.data, set[str]()
    if data.tfds and reads_tfds:
        replaced |= {"data.annotations", "data.videos"}
    if config.features.folder and reads_features:
        replaced |= {"data.videos", "backbone.checkpoint"}
    if data.cache and reads_features:
        replaced.add("data.videos")
    missing = [
        f"--config.{key}={_MEANINGS[key]}" for key in keys if key not in
        replaced and not config[key.split(".")[0]][key.split(".")[1]]]
    if missing:
        # A recipe of features has their width.
        hint = ("\nor, in place of videos and backbone, "
                "--config.features.folder=FOLDER (of the features)"
                if config.features.width and reads_features else "")
        raise InputError("the recipe leaves this to you, and it is empty; "
                         f"set{listed(missing)}{hint}")


def load_data(config: Any, workdir: Path,
              subsets: Sequence[str] = ("train", "test"),
              store: readers.FeatureStore | None = None,
              fill: Fill | None = None) -> DataSet:
    """Reads the annotations and probes the videos of `subsets`.

    Args:
      workdir: holds the cache of probed videos.
      subsets: which of "train" and "test" to probe.
      store: features in place of videos; no video is opened.
      fill: adds to `store` what it lacks of the videos.

    Raises:
      InputError: names every wrong entry and every unreadable video.
    """
    labels, loaded, broken = _load(
        config, workdir, [(f"{subset}_subset", config.data[f"{subset}_subset"])
                          for subset in subsets], store, fill=fill)
    videos = dict(zip(subsets, loaded, strict=True))
    train, test = videos.get("train", ()), videos.get("test", ())
    classes = labels
    if config.data.class_agnostic:
        classes = (ANY_CLASS,)
        train = tuple(
            dataclasses.replace(video, actions=tuple(
                action._replace(label=ANY_CLASS) for action in video.actions),
                hard_negatives=tuple(
                    action._replace(label=ANY_CLASS)
                    for action in video.hard_negatives))
            for video in train)
    if "train" in subsets:
        train = short_actions.without_short_actions(
            train, config.data.min_action_share)
    return DataSet(classes, labels, train, test, broken)


def load_videos(config: Any, workdir: Path, subsets: Sequence[tuple[str, str]],
                only: Collection[str] | None = None) -> list[records.Video]:
    """Returns the probed videos of any subsets, each once.

    `subsets` are (key of config.data that names it, subset), `only` the ids of
    the videos to probe, None for all; errors are as of `load_data`.
    """
    _, loaded, _ = _load(config, workdir, subsets, None, only=only)
    return list({video.video_id: video for videos in loaded
                 for video in videos}.values())


def _load(config: Any, workdir: Path, subsets: Sequence[tuple[str, str]],
          store: readers.FeatureStore | None, *,
          only: Collection[str] | None = None, fill: Fill | None = None
          ) -> tuple[tuple[str, ...], list[tuple[records.Video, ...]],
                     dict[str, str]]:
    """Returns class names, the videos of each subset, and skipped videos."""
    data, synthetic = config.data, config.synthetic
    if synthetic.folder:
        with processes.first_goes_first("render"):
            render_untrimmed_set(
                Path(synthetic.folder) / "untrimmed",
                num_training=synthetic.num_training,
                num_testing=synthetic.num_testing,
                num_validation=synthetic.num_validation, seed=synthetic.seed,
                size=synthetic.size, hard=synthetic.hard)
    stored = open_stored(config)
    if store is None and stored is None:
        report_folder(config)
    outside.refuse_unknown_rule(data.on_outside)
    if data.on_broken_video not in ("stop", "skip"):
        raise InputError(f"config.data.on_broken_video="
                         f"{data.on_broken_video!r}: choose stop or skip")
    # A command that fills a cache has printed its reviews before.
    as_read = read_annotations(config, stored, prints=only is None)
    annotated_sets = select_videos(config, as_read, subsets)
    if fill is not None:
        fill([subset for _, subset in subsets],
             [video.video_id for videos in annotated_sets for video in videos])
    infos: dict[str, records.VideoInfo] = {}
    chosen: list[list[str]] = []
    broken: dict[str, str] = {}
    for (_, subset), annotated in zip(subsets, annotated_sets, strict=True):
        readable, skipped = probe(
            config, [video for video in annotated
                     if only is None or video.video_id in only],
            workdir, stored if store is None else store)
        check.report_broken(skipped, len(annotated), data.on_broken_video)
        infos |= readable
        broken |= skipped
        chosen.append([video.video_id for video in annotated
                       if video.video_id in readable])
        logger.info("%s: %d videos, %d unreadable or missing", subset,
                    len(chosen[-1]), len(skipped))
    # The lengths of the files decide which actions are outside.
    ends = {name: check.end_seconds(as_read.videos[name], info)
            for name, info in infos.items()}
    for name, info in infos.items():
        for what, detail in check.disagreements(
                as_read.videos[name], info).items():
            logger.warning("%s: %s: %s; the file's is used", name,
                           what, detail)
    faults = {name: lint.find_faults(as_read.videos[name], end,
                                     infos[name].fps)
              for name, end in ends.items()}
    for name, details in faults.items():
        if lint.WRONG_DURATION in details:  # also to the console
            logger.warning("%s: %s", name, details[lint.WRONG_DURATION])
    for line in lint.summarize(faults):
        logger.info("annotations: %s", line)
    annotations = outside.clipped_to(
        as_read, ends, data.on_outside,
        {name: info.fps for name, info in infos.items()})
    for (key, subset), names in zip(subsets, chosen, strict=True):
        if key == TRAIN_KEY:
            load.check_training(annotations, subset, [
                annotations.videos[name] for name in names])

    def as_video(name: str) -> records.Video:
        info = infos[name]
        grid = (store and store.grid(info)) or sampling.video_grid(
            info, config.window)
        read_encoded = None
        if store is None and stored is not None and stored.embedded:
            read_encoded = functools.partial(stored.read, name)
        video = annotations.videos[name]
        return records.Video(name, info, grid, video.actions, read_encoded,
                             video.reviewed_seconds, video.hard_negatives)

    return (annotations.class_names,
            [tuple(map(as_video, names)) for names in chosen], broken)


def probe(config: Any, videos: Sequence[records.AnnotatedVideo], workdir: Path,
          stored: "readers.FeatureStore | StoredVideos | None"
          ) -> check.Checked:
    """Probes config.data.videos, or the features or the data set that replace
    them."""
    if stored is not None:
        checked = check.check_each(videos, stored.info_of)
        if isinstance(stored, FeatureFiles):
            stored.check_rate()
        return checked
    with processes.first_goes_first("probe"):
        # The other processes reuse the first one's results.
        remote_workdir.fetch(workdir, run_files.PROBED_FILE)
        checked = check.check_videos(
            videos, Path(config.data.videos), check=config.data.check,
            cache_path=workdir / run_files.PROBED_FILE,
            num_threads=thread_count(config.data.num_threads))
        remote_workdir.copy_back(workdir)
    return checked


def report_folder(config: Any) -> None:
    """Warns of what config.data.videos, which must be set (`check_config`),
    holds beside videos; InputError if there is no such folder."""
    folder = Path(config.data.videos)
    warn_left_out(folder, VideoFolder(folder).left_out())


def open_stored(config: Any) -> "StoredVideos | None":
    """Opens the data set of config.data.tfds; None without one."""
    if not config.data.tfds:
        return None
    if config.data.videos:
        raise InputError("config.data.tfds and config.data.videos are both "
                         "set: clear one of them")
    from losa_jax.data.tfds import StoredVideos
    return StoredVideos(config.data.tfds)


def read_annotations(config: Any, stored: "StoredVideos | None", *,
                     prints: bool = True) -> records.Annotations:
    """Reads config.data.annotations, or else those of the data set; one of the
    two must be set (`check_config`). Merges the reviews of config.data.reviews
    into them."""
    data = config.data
    class_names = (load.load_class_names(data.class_names)
                   if data.class_names else None)
    if data.annotations or stored is None:
        annotations = load.load_annotations(data.annotations, class_names)
    else:
        annotations = load.load_annotations(
            stored.path, class_names or stored.class_names)
    return with_folders(annotations, data.reviews, data.train_subset,
                        prints=prints)


def with_folders(annotations: records.Annotations, folders: str,
                 train_subset: str, *, prints: bool = True
                 ) -> records.Annotations:
    """Merges the reviews of folders, separated by commas; prints a line of
    each, once in a command."""
    for folder in review_folders(folders):
        line = f"no reviews in {folder} yet"
        if reviews := read_reviews(folder / REVIEWS_FOLDER):
            merged = with_reviews(annotations, reviews, train_subset)
            annotations = merged.annotations
            line = f"reviews in {folder}: {merged}"
        if prints and processes.is_first():
            print(line)
    return annotations


def select_videos(config: Any, annotations: records.Annotations,
                  subsets: Sequence[tuple[str, str]]
                  ) -> list[list[records.AnnotatedVideo]]:
    """Returns the videos of each subset without those of the block list;
    logs what is odd about the names in the annotations.

    Raises:
      InputError: a subset without a video, training videos without an action,
        or testing videos whose actions are known only in part.
    """
    selected = load.select_subsets(annotations, [
        (f"--config.data.{key}", subset) for key, subset in subsets])
    for line in lint.similar_names(annotations):
        logger.warning("%s: %s", annotations.path, line)
    blocked, doubts = block_list.blocked_videos(config.data.block_list,
                                     annotations.videos)
    for line in doubts:
        logger.warning("%s", line)
    chosen = [[video for video in videos if video.video_id not in blocked]
              for videos in selected]
    for (key, subset), videos in zip(subsets, chosen, strict=True):
        if not videos:
            raise InputError(
                f"config.data.block_list={config.data.block_list} leaves out "
                f"every video of subset {subset!r}: shorten it")
        if key == TRAIN_KEY:
            load.check_training(annotations, subset, videos)
        elif key == TEST_KEY:
            check_scorable(annotations.path, videos)
    return chosen


def window_reader(config: Any, store: readers.FeatureStore | None,
                  sets: Mapping[str, Sequence[records.Video]]
                  ) -> readers.WindowReader:
    """Returns the reader of windows: of features, or of decoded frames.

    Args:
      sets: {name: videos that are read every epoch}; a cache keeps the sets
        that fit into memory.

    Raises:
      InputError: test_whole with frames.
    """
    if store is not None:
        return readers.FeatureReader(store, config)
    if config.window.test_whole:
        raise InputError("config.window.test_whole=True: a whole video of "
                         "frames is too large for one window; set it to "
                         "False")
    cache = frame_cache.FrameCache(config.data.frame_cache_gib)
    for name, videos in sets.items():
        cache.admit(videos, name)
    return readers.FrameReader(config, cache)


def skipped_videos(folder: Path, data: DataSet) -> BrokenVideos:
    """Returns the record of skipped videos, which the first process writes
    to broken_videos.json in `folder`."""
    skipped = BrokenVideos(
        folder / run_files.BROKEN_FILE if processes.is_first() else None)
    for video_id, reason in data.broken.items():
        skipped.add(video_id, reason, BEFORE)
    return skipped


def share_skipped(skipped: BrokenVideos) -> None:
    """Gives every process the skipped videos of all processes."""
    if processes.count() > 1:
        for entries in processes.gather(skipped.entries):
            skipped.absorb(entries)


def write_json(path: Path, content: Any) -> None:
    """Writes a file atomically, in the first process only."""
    if processes.is_first():
        atomic_write.write_text(path, json.dumps(content, indent=1) + "\n")
