"""The shards of a TFDS data set: each is built whole or not at all.

While a set is built, <name>/<version>.parts holds what it is to be
(plan.json) and a small TFDS data set for each finished shard. `finish` links
their files into one set and renames it into place.
"""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from losa_jax.data.annotations.data_set_index import (
    FORMAT_VERSION,
    INFO_FILE,
    PARTS_SUFFIX,
    make_entry,
    read_index,
)
from losa_jax.data.records import AnnotatedVideo, BrokenVideo
from losa_jax.data.tfds.builder import BUILDERS, FILE_FORMAT
from losa_jax.data.video.check import REPORT, check_videos, report_broken
from losa_jax.errors import InputError

PLAN_FILE = "plan.json"


@dataclasses.dataclass(frozen=True)
class Shard:
    """Videos that share a file of records.

    Attributes:
      number: among the shards of its split.
      num_bytes: of the video files.
    """

    split: str
    number: int
    videos: tuple[AnnotatedVideo, ...]
    num_bytes: int

    def __str__(self) -> str:
        return f"{self.split}-{self.number:05d}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be built; arguments of the command, and its shards.

    Attributes:
      digest: of all that decides about the content.
    """

    name: str
    videos: Path
    output: Path
    embedded: bool
    check: str
    on_broken_video: str
    class_names: tuple[str, ...]
    shards: tuple[Shard, ...]
    digest: str

    @property
    def final(self) -> Path:
        """Folder of the finished data set."""
        return self.output / self.name / str(BUILDERS[self.name].VERSION)

    @property
    def parts(self) -> Path:
        """Folder of what is finished so far."""
        return self.final.with_name(self.final.name + PARTS_SUFFIX)

    def without_shards(self) -> "Plan":
        """For a process that is given its shard beside it."""
        return dataclasses.replace(self, shards=())

    def index(self, entries: dict[str, list[Any]], left_out: dict[str, str]
              ) -> dict[str, Any]:
        """See `losa_jax.data.annotations.data_set_index`."""
        return {"format_version": FORMAT_VERSION, "embedded": self.embedded,
                "class_names": list(self.class_names), "plan": self.digest,
                "left_out": left_out, "videos": entries}


def is_finished(plan: Plan) -> bool:
    """Whether the whole set is there."""
    return (plan.final / INFO_FILE).is_file()


def same_plan(plan: Plan) -> None:
    """Raises InputError unless the finished set is what is asked for."""
    if read_index(plan.final).get("plan") != plan.digest:
        raise InputError(
            f"{plan.final} holds a data set of other videos, annotations or "
            "settings: delete it, or give another --output")
    shutil.rmtree(plan.parts, ignore_errors=True)


def start(plan: Plan) -> None:
    """Makes the folder of parts.

    Raises:
      InputError: it holds parts of something else, or cannot be made.
    """
    path = plan.parts / PLAN_FILE
    try:
        plan.parts.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_text(json.dumps({"digest": plan.digest}))
            os.replace(temporary, path)
        digest = json.loads(path.read_text())["digest"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"--output={plan.output}: {path} cannot be written "
                         f"or read ({error})") from error
    if digest != plan.digest:
        raise InputError(
            f"{plan.parts} holds an unfinished build of other videos, "
            "annotations or settings: delete it to start clean")


def is_built(plan: Plan, shard: Shard) -> bool:
    """Whether a shard is finished."""
    return (_part_folder(plan, shard) / INFO_FILE).is_file()


def _part_folder(plan: Plan, shard: Shard) -> Path:
    return plan.parts / str(shard) / plan.name / plan.final.name


def build_shard(plan: Plan, shard: Shard) -> list[BrokenVideo]:
    """Probes the videos of a shard and writes it.

    Returns:
      its broken videos: with on_broken_video "stop" nothing is written then.

    Raises:
      InputError: a file changed meanwhile; it cannot be written.
    """
    with _locked(plan.parts / f"{shard}.lock") as is_mine:
        if not is_mine or is_built(plan, shard):
            return []  # another command builds it
        # What a killed process left.
        shutil.rmtree(plan.parts / str(shard), ignore_errors=True)
        entries, broken = _probe(plan, shard.videos)
        if broken and plan.on_broken_video == "stop":
            return broken
        index = plan.index({shard.split: entries},
                           {one.video_id: one.reason for one in broken})
        _run(_builder(plan, index, {shard.split: [entries]},
                      plan.parts / str(shard)), plan)
    return broken


def _probe(plan: Plan, videos: Sequence[AnnotatedVideo]
           ) -> tuple[list[dict[str, Any]], list[BrokenVideo]]:
    """Entries of the good videos, and the others."""
    infos, broken = check_videos(
        videos, plan.videos, on_broken_video=REPORT, check=plan.check,
        progress=False)
    return [make_entry(video, infos[video.video_id],
                       infos[video.video_id].path.stat().st_size,
                       plan.class_names, embedded=plan.embedded)
            for video in videos if video.video_id in infos], broken


def _builder(plan: Plan, index: dict[str, Any], shards: dict[str, Any],
             folder: Path) -> Any:
    return BUILDERS[plan.name](index=index, shards=shards,
                               folder=plan.videos, data_dir=folder)


def _run(builder: Any, plan: Plan,
         config: tfds.download.DownloadConfig | None = None) -> None:
    """TFDS's own way: into a folder beside it, renamed when all is done."""
    try:
        # It announces every shard as a download.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_dir=plan.parts / "downloads",
                download_config=config)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{plan.output}: cannot be written ({error}): make room and "
            "start the same command again, it goes on where it stopped"
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether the lock is ours while the block runs.

    A killed process's lock is free; without its folder, which goes when the
    set is finished, there is none.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            yield False
            return
        yield True


def finish(plan: Plan) -> bool:
    """Makes one set of all parts; False while another process does so."""
    with _locked(plan.parts / "finish.lock") as is_mine:
        if not is_mine or is_finished(plan):
            return is_finished(plan)
        merged = plan.final.with_name(plan.final.name + ".merging")
        shutil.rmtree(merged, ignore_errors=True)
        merged.mkdir()
        parts = [_part_folder(plan, shard) for shard in plan.shards]
        indices = [read_index(part) for part in parts]
        entries: dict[str, list[Any]] = {}
        full: dict[str, list[Path]] = {}
        left_out: dict[str, str] = {}
        for part, index in zip(parts, indices, strict=True):
            left_out |= index["left_out"]
            for split, found in index["videos"].items():
                if found:  # else all its videos were broken
                    entries.setdefault(split, []).extend(found)
                    full.setdefault(split, []).append(part)
        report_broken([BrokenVideo(name, plan.videos, reason)
                       for name, reason in left_out.items()],
                      sum(len(shard.videos) for shard in plan.shards),
                      plan.on_broken_video, bool(entries),
                      flag="--on_broken_video")
        _merge(plan, plan.index(entries, left_out), full, merged)
        merged.rename(plan.final)
    shutil.rmtree(plan.parts, ignore_errors=True)
    _tell(plan, entries)
    return True


def _merge(plan: Plan, index: dict[str, Any], parts: dict[str, list[Path]],
           merged: Path) -> None:
    splits = []
    for split, folders in parts.items():
        lengths, num_bytes = [], 0
        template = tfds.core.ShardedFileTemplate(
            dataset_name=plan.name, data_dir=merged, split=split,
            filetype_suffix=FILE_FORMAT)
        for number, folder in enumerate(folders):
            info = tfds.builder_from_directory(folder).info.splits[split]
            lengths += info.shard_lengths
            num_bytes += info.num_bytes
            _link(info.filepaths[0], template.sharded_filepath(
                shard_index=number, num_shards=len(folders)))
        splits.append(tfds.core.SplitInfo(
            name=split, shard_lengths=lengths, num_bytes=num_bytes,
            filename_template=template))
    builder = _builder(plan, index, {}, plan.output)
    builder.info.set_splits(tfds.core.splits.SplitDict(splits))
    builder.info.write_to_directory(merged)


def _link(source: os.PathLike, target: os.PathLike) -> None:
    """A second name, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def build_with_beam(plan: Plan, runner: str, options: list[str]) -> None:
    """The whole set in one Apache Beam pipeline, a step for each shard.

    Videos are probed here, files are read and written by the workers, which
    must see the same folders.

    Raises:
      InputError: Beam is not installed; as `build_shard`.
    """
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError("--beam_runner needs Apache Beam: pip install "
                         "'losa_jax[beam]'") from error
    if is_finished(plan):
        same_plan(plan)
        print(f"{plan.final} is there already")
        return
    for left in plan.final.parent.glob(f"{plan.final.name}.incomplete*"):
        shutil.rmtree(left, ignore_errors=True)  # of a killed pipeline
    splits: dict[str, list[Any]] = {}
    lost: list[BrokenVideo] = []
    for shard in plan.shards:
        entries, broken = _probe(plan, shard.videos)
        lost += broken
        if entries:
            splits.setdefault(shard.split, []).append(entries)
    report_broken(lost, sum(len(shard.videos) for shard in plan.shards),
                  plan.on_broken_video, bool(splits),
                  flag="--on_broken_video")
    of_split = {split: [entry for shard in shards for entry in shard]
                for split, shards in splits.items()}
    builder = _builder(plan, plan.index(
        of_split, {one.video_id: one.reason for one in lost}), splits,
        plan.output)
    _run(builder, plan, tfds.download.DownloadConfig(
        beam_runner=runner, beam_options=PipelineOptions(options)))
    shutil.rmtree(plan.parts, ignore_errors=True)
    _tell(plan, of_split)


def _tell(plan: Plan, entries: dict[str, list[Any]]) -> None:
    counts = ", ".join(f"{split} {len(found)}"
                       for split, found in entries.items())
    print(f"wrote {plan.final}: {counts} videos; read it with "
          f"--config.data.tfds={plan.output}")
