"""Converts files of annotation tools to the annotations of a training.

    python -m losa_jax.annotations INPUT... --output=annotations.json
        [--videos=FOLDER] [--fps=RATE] ...

INPUT is a file, or a folder of files of one tool: a table or JSON of one's own
(CSV, TSV, Create ML), ELAN, BORIS, Label Studio, CVAT, Datumaro, VIA 3,
X-AnyLabeling, FiftyOne, V-TRACE, DeepEthogram, Audacity, subtitles (SRT, VTT),
a label for every frame (MS-TCN), Vidat, Praat, Datavyu, ANVIL, ActivityNet.
The tool is recognized by the content.

Prints one line of what was read, and what was left out, cut or assumed, each
with its number, an example and the option that changes it. Where the input has
no subsets, the videos are split into training and testing, with every class on
both sides if possible; a video that OUTPUT has already keeps its side. Without
--output nothing is written.

Exit status: 0 done; 1 the input is wrong; 2 usage.
"""

import argparse
import sys

from losa_jax.errors import InputError
from losa_jax.utils.command_line import (
    fraction,
    make_parser,
    path,
    positive_number,
    show_warnings,
)
from losa_jax.utils.interrupt import exit_with


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = make_parser("annotations", __doc__)
    parser.add_argument("inputs", nargs="+", type=path, metavar="INPUT")
    parser.add_argument("--output", type=path, metavar="FILE",
                        help="JSON for --config.data.annotations")
    parser.add_argument("--videos", type=path, metavar="FOLDER",
                        help="videos in it and below, for rates, lengths and "
                        "missing ones")
    parser.add_argument("--format", default="", dest="layout", help="of "
                        "several in a folder, or against what the content "
                        "seems to be")
    parser.add_argument("--encoding", default="", help="of text that is not "
                        "UTF-8, as cp1252")
    parser.add_argument("--companion", type=path, metavar="FILE",
                        help="explains the input: config.xml of Label Studio, "
                        "the project of VIA, a list of class names")

    times = parser.add_argument_group("times")
    times.add_argument("--fps", type=positive_number, metavar="RATE",
                       help="frames a second, where frames are counted")
    times.add_argument("--first_frame", type=int, choices=(0, 1), default=0,
                       help="number of the first frame in tables")
    times.add_argument("--points", type=positive_number, metavar="SECONDS",
                       help="make actions of this length of moments")
    times.add_argument("--open_events", type=_length, metavar="SECONDS|end",
                       help="the length of actions without an end")

    labels = parser.add_argument_group("labels")
    labels.add_argument("--columns", type=_columns, default={},
                        metavar="video=NAME,label=NAME,start=NAME,end=NAME",
                        help="names of a table's columns; also duration, "
                        "subset, score, fps; times also with a unit: "
                        "start_frame, start_ms")
    labels.add_argument("--tiers", action="append", default=[],
                        metavar="NAME", help="tiers, tracks or columns to "
                        "read; several with commas or flags")
    labels.add_argument("--label_from", choices=("value", "tier"),
                        default="value", help="what a class is")
    labels.add_argument("--label", default="", metavar="TEMPLATE",
                        help="BORIS: as '{behavior} {modifiers}'; also "
                        "{subject}, {category}")
    labels.add_argument("--attribute", default="", metavar="NAME",
                        help="which holds the label: CVAT, VIA, Datavyu, "
                        "ANVIL")
    labels.add_argument("--background", metavar="NAMES", help="labels that "
                        "are no action; '' for none")

    choice = parser.add_argument_group("which of several")
    choice.add_argument("--video", default="", metavar="NAME",
                        help="the camera; or the name of a video that the "
                        "file does not name")
    choice.add_argument("--subject", default="", metavar="NAME",
                        help="BORIS: only events of this subject")
    choice.add_argument("--annotator", default="", metavar="ID",
                        help="Label Studio: only annotations of this person")
    choice.add_argument("--unreviewed", choices=("leave", "keep"),
                        default="leave", help="predictions that nobody "
                        "reviewed")

    split = parser.add_argument_group("split, where there are no subsets")
    split.add_argument("--group", default="", metavar="PATTERN",
                       help=r"videos of one group stay together: as '(p\d+)_'")
    split.add_argument("--test_share", type=fraction, default=0.2,
                       dest="share", help="of the videos")
    split.add_argument("--seed", type=int, default=0)
    split.add_argument("--resplit", action="store_true",
                       help="split again, although there are subsets or "
                       "OUTPUT has an earlier split")
    arguments = vars(parser.parse_args(argv))
    names = ("inputs", "output", "videos", "group", "share", "seed",
             "resplit")
    job = {name: arguments.pop(name) for name in names}
    background = arguments.pop("background")
    # Imported late, so that --help is quick.
    from losa_jax.data.annotations.tools.content import Options
    from losa_jax.jobs.own_videos.annotations import convert_annotations

    try:
        convert_annotations(job.pop("inputs"), Options(
            tiers=tuple(arguments.pop("tiers")),
            keep_unreviewed=arguments.pop("unreviewed") == "keep",
            background=None if background is None
            else tuple(background.split(",")), **arguments), **job)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _columns(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(role and name for role, _, name in pairs):
        raise argparse.ArgumentTypeError("write role=column, as "
                                         "video=File,label=Class")
    return {role.strip(): name.strip() for role, _, name in pairs}


def _length(text: str) -> float | str:
    return text if text == "end" else positive_number(text)


if __name__ == "__main__":
    show_warnings()
    exit_with(main)
