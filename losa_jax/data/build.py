"""Builds a TensorFlow Datasets set of videos and their annotations.

    python -m losa_jax.data.build thumos14 --videos=DIR --annotations=FILE
        --output=DIR [--embed|--paths]

The name is thumos14, activitynet, or custom (any annotation file and one
folder of videos). Every video is probed. A record holds the video file
(--embed, the default: training then needs the data set only) or its path
(--paths), the annotations, frame rate, frame count and duration. Read the set
with --config.data.tfds=DIR, or with plain `tfds.data_source`.

--beam_runner=NAME writes the records with Apache Beam (extra `beam`) on
machines that see the same folders.

Exit status: 0 done; 1 wrong input; 2 usage; 75 interrupted: start again.
"""

import argparse
import math
import signal
import sys

from losa_jax.data.annotations import (
    activitynet_facts,
    data_set_index,
    load,
    thumos_facts,
)
from losa_jax.data.tfds import SETS, VideoBuilder
from losa_jax.data.video import check, probe
from losa_jax.data.video.folder import VideoFolder, warn_left_out
from losa_jax.errors import InputError
from losa_jax.utils.command_line import (
    add_beam_flags,
    beam_options,
    make_parser,
    path,
    positive,
)

EXIT_INPUT, EXIT_INTERRUPTED = 1, 75


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns the exit status."""
    parser = make_parser("data.build", __doc__)
    parser.add_argument("name", choices=tuple(SETS))
    parser.add_argument("--videos", type=path, required=True)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--output", type=path, required=True)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--embed", action="store_true")
    mode.add_argument("--paths", action="store_true")
    parser.add_argument("--class_names", default="",
                        help="file with one name a line")
    parser.add_argument("--subsets", default="",
                        help="separated by commas; default: all")
    parser.add_argument("--check", choices=probe.CHECKS, default="ends",
                        help="how much of each video is decoded")
    parser.add_argument("--on_broken_video", choices=("stop", "skip"),
                        default="stop")
    parser.add_argument("--shard_mib", type=float, default=256,
                        help="MiB of videos in a shard and in memory")
    parser.add_argument("--processes", type=positive, default=2,
                        help="videos that are probed at the same time")
    add_beam_flags(parser)
    try:
        build(parser.parse_args(argv))
    except InputError as error:
        # The flags have the names of the keys.
        print("error:", str(error).replace("--config.data.", "--"),
              file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("interrupted: no data set was written, start the same command "
              "again", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def build(arguments: argparse.Namespace) -> None:
    """Builds the data set of the command's arguments, unless it is there;
    InputError for wrong annotations, broken videos, another data set in its
    place, a full disk, or no Apache Beam."""
    if not arguments.videos.is_dir():
        raise InputError(f"--videos={arguments.videos} is no folder: give "
                         "the folder of the video files")
    if not arguments.shard_mib > 0:  # or no number
        raise InputError(f"--shard_mib={arguments.shard_mib}: give more "
                         "than 0")
    options = beam_options(arguments)
    known_classes = {"thumos14": thumos_facts.CLASS_NAMES,
                     "activitynet": activitynet_facts.class_names()}
    annotations = load.load_annotations(
        arguments.annotations,
        load.load_class_names(arguments.class_names) if arguments.class_names
        else known_classes.get(arguments.name))
    present = dict.fromkeys(
        video.subset for video in annotations.videos.values())
    splits = {}
    for split in arguments.subsets.lower().split(",") if (
            arguments.subsets) else present:
        if split not in present:
            raise InputError(f"--subsets: {annotations.path} has no "
                             f"{split!r} but {', '.join(present)}")
        if not split.replace("_", "").isalnum():
            raise InputError(
                f"{annotations.path}: subset {split!r}: TFDS takes letters, "
                "digits and _ only: rename it in the file")
        splits[split] = annotations.subset(split)
    videos = [video for chosen in splits.values() for video in chosen]
    warn_left_out(arguments.videos,
                  VideoFolder(arguments.videos).left_out())
    infos, broken = check.check_videos(
        videos, arguments.videos, check=arguments.check,
        num_threads=arguments.processes)
    check.report_broken(broken, len(videos), arguments.on_broken_video)
    index = data_set_index.make_index(
        splits, infos, broken, annotations.class_names,
        embedded=not arguments.paths)
    path = arguments.output / arguments.name / str(VideoBuilder.VERSION)
    if data_set_index.data_sets(path):
        stored = data_set_index.read_index(path)
        if any(stored.get(key) != value for key, value in index.items()):
            raise InputError(
                f"{path} holds a data set of other videos, annotations or "
                "settings: delete it, or give another --output")
        print(f"{path} is there already")
        return
    VideoBuilder(
        arguments.name, index=index, video_folder=arguments.videos,
        data_dir=arguments.output,
        shard_bytes=math.inf if arguments.paths  # paths alone are small
        else arguments.shard_mib * 2**20,
    ).write(arguments.beam_runner or None, options)
    counts = ", ".join(f"{split} {len(entries)}"
                       for split, entries in index["videos"].items())
    print(f"wrote {path}: {counts} videos; read it with "
          f"--config.data.tfds={arguments.output}")


if __name__ == "__main__":
    # On Ctrl-C, TFDS removes its temporary files.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
