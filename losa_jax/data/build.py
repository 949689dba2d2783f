"""TensorFlow Datasets of your videos and annotations, without TensorFlow.

    python -m losa_jax.data.build thumos14 --videos=DIR --annotations=FILE
        --output=DIR [--embed|--paths] [--processes=4] [--shard=0/8]

NAME is thumos14, activitynet, or custom: any annotation file with one folder
of videos. Every video is probed; a record holds the file itself (--embed,
the default: the data set is then all that training needs) or where it lies
(--paths), its annotations, frame rate, frame count and duration. Read it
with --config.data.tfds=DIR, or with plain `tfds.data_source`.

The set is cut into shards. A finished shard stays: a build that was stopped
or killed goes on with the same command, and only a whole set gets
dataset_info.json. --processes builds on one machine side by side;
--shard=i/n builds every n-th shard from i on, one command on each of n
machines that share --output; whoever ends last finishes the set.
--beam_runner=NAME leaves that to Apache Beam (extra `beam`), which begins
anew after an interruption; --beam_options are Beam's own flags.

Exit status: 0 done; 1 the input is wrong; 2 usage; 75 stopped, whole shards
stay.
"""

import argparse
import concurrent.futures
import hashlib
import json
import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from losa_jax.data.annotations import activitynet_facts, thumos_facts
from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.features.tap_cache import split_shards
from losa_jax.data.records import BrokenVideo
from losa_jax.data.tfds.builder import BUILDERS
from losa_jax.data.tfds.shards import (
    Plan,
    Shard,
    build_shard,
    build_with_beam,
    finish,
    is_built,
    is_finished,
    same_plan,
    start,
)
from losa_jax.data.video.check import find_file, report_broken, video_files
from losa_jax.data.video.probe import CHECKS
from losa_jax.errors import InputError

SHARD_MIB = 256
# Records of paths alone are small; shards are there to probe side by side.
PATHS_FACTOR = 16
EXIT_INPUT, EXIT_INTERRUPTED = 1, 75


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m losa_jax.data.build", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=tuple(BUILDERS))
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--output", type=Path, required=True)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--embed", action="store_true", default=True)
    mode.add_argument("--paths", action="store_true")
    parser.add_argument("--class_names", default="",
                        help="file, one a line; thumos14 and activitynet "
                        "know theirs")
    parser.add_argument("--subsets", default="",
                        help="with commas between; all of the annotations'")
    parser.add_argument("--check", choices=CHECKS, default="ends",
                        help="how much of each video is decoded")
    parser.add_argument("--on_broken_video", choices=("stop", "skip"),
                        default="stop")
    parser.add_argument("--shard_mib", type=float, default=SHARD_MIB,
                        help="video files in a shard, MiB; a process holds "
                        "as much in memory, or one video where it is larger")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--shard", default="0/1", metavar="i/n")
    parser.add_argument("--beam_runner", default="",
                        help="as DirectRunner, DataflowRunner")
    parser.add_argument("--beam_options", default="",
                        help="Beam's flags, with spaces between")
    arguments = parser.parse_args(argv)
    try:
        plan = make_plan(
            arguments.name, arguments.videos, arguments.annotations,
            arguments.output, embedded=not arguments.paths,
            class_names=arguments.class_names, check=arguments.check,
            on_broken_video=arguments.on_broken_video,
            shard_mib=arguments.shard_mib,
            subsets=arguments.subsets.split(",") if arguments.subsets
            else None)
        if arguments.beam_runner:
            build_with_beam(plan, arguments.beam_runner,
                            arguments.beam_options.split())
        else:
            build(plan, part_of(arguments.shard), arguments.processes)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("stopped, whole shards stay: start the same command again to "
              "go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def part_of(text: str) -> tuple[int, int]:
    """"2/8" to (2, 8).

    Raises:
      InputError: anything else.
    """
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal()
            and int(first) < int(count)):
        raise InputError(f"--shard={text}: write i/n with i from 0 to n - 1, "
                         "as 0/8")
    return int(first), int(count)


def make_plan(name: str, videos: Path, annotations: str, output: Path, *,
              embedded: bool = True, class_names: str = "",
              check: str = "ends", on_broken_video: str = "stop",
              shard_mib: float = SHARD_MIB,
              subsets: Sequence[str] | None = None) -> Plan:
    """What is to be built: the same on every machine.

    Arguments as those of the command.

    Raises:
      InputError: annotations that are wrong, no folder of videos.
    """
    known = {"thumos14": thumos_facts.CLASS_NAMES,
             "activitynet": activitynet_facts.class_names()}.get(name)
    # Segments are kept as they are; data.on_outside treats them when read.
    found = load_annotations(
        annotations,
        load_class_names(class_names) if class_names else known)
    if not videos.is_dir():
        raise InputError(f"--videos={videos} is no folder: name that of the "
                         "video files")
    if shard_mib <= 0:
        raise InputError(f"--shard_mib={shard_mib}: give more than 0")
    files = video_files(videos)
    sizes = {}
    for video_id in found.videos:
        try:
            sizes[video_id] = find_file(video_id, videos, files).stat().st_size
        except InputError:  # told when its shard is built
            sizes[video_id] = 0
    shards: list[Shard] = []
    shard_bytes = shard_mib * 2**20 * (1 if embedded else PATHS_FACTOR)
    present = tuple(dict.fromkeys(v.subset for v in found.videos.values()))
    for split in subsets or present:
        split = split.lower()
        if split not in present:
            raise InputError(f"--subsets: {annotations} has no {split!r} but "
                             f"{', '.join(present)}")
        if not split.replace("_", "").isalnum():
            raise InputError(f"{annotations}: subset {split!r}: TFDS takes "
                             "letters, digits and _ only; rename it there")
        shards += [
            Shard(split, number, tuple(chosen),
                  sum(sizes[video.video_id] for video in chosen))
            for number, chosen in enumerate(split_shards(
                found.subset(split), sizes, shard_bytes))]
    facts = {"name": name, "embedded": embedded, "check": check,
             "on_broken_video": on_broken_video,
             "class_names": list(found.class_names), "sizes": sizes,
             "shards": [[video.video_id for video in shard.videos]
                        for shard in shards],
             "annotations": repr(list(found.videos.values())),
             "videos": "" if embedded else str(videos.absolute())}
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return Plan(name, videos, output, embedded, check, on_broken_video,
                found.class_names, tuple(shards), digest)


def build(plan: Plan, part: tuple[int, int] = (0, 1), processes: int = 1
          ) -> bool:
    """Builds this part's shards; the last one finishes the data set.

    Returns:
      whether the data set is whole.

    Raises:
      InputError: names every missing or broken video of this part; another
        data set lies there; a full disk.
    """
    first, count = part
    if is_finished(plan):
        same_plan(plan)
        print(f"{plan.final} is there already")
        return True
    start(plan)
    mine = plan.shards[first::count]
    todo = [shard for shard in mine
            if not is_built(plan, shard)]
    print(f"{plan.name}: {sum(len(s.videos) for s in plan.shards)} videos in "
          f"{len(plan.shards)} shards, {len(mine)} of them here, "
          f"{len(mine) - len(todo)} there already")
    broken: list[BrokenVideo] = []
    with tqdm(total=sum(shard.num_bytes for shard in todo), unit="B",
              unit_scale=True, desc=f"building {plan.name}") as bar:
        for shard, lost in _each(plan, todo, processes):
            broken += lost
            bar.update(shard.num_bytes)
    if plan.on_broken_video == "stop":
        report_broken(broken, sum(len(shard.videos) for shard in mine),
                      "stop", True, flag="--on_broken_video")
    missing = [shard for shard in plan.shards
               if not is_built(plan, shard)]
    if missing and not is_finished(plan):
        print(f"{len(missing)} of {len(plan.shards)} shards are still to be "
              "built by other commands; the last one finishes the set")
        return False
    return finish(plan)


def _each(plan: Plan, shards: list[Shard], processes: int
          ) -> Iterator[tuple[Shard, list[BrokenVideo]]]:
    """(shard, its broken videos) as they are done."""
    if processes <= 1:
        for shard in shards:
            yield shard, build_shard(plan.without_shards(), shard)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        running = {pool.submit(build_shard, plan.without_shards(), shard):
                   shard for shard in shards}
        for future in concurrent.futures.as_completed(running):
            yield running[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    # As Ctrl-C: what TFDS has begun is cleared away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
