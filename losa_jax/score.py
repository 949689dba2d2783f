"""mAP of predictions of any program: no model, no configuration.

    python -m losa_jax.score PREDICTIONS.json --annotations=FILE --subset=test
        [--protocol=activitynet|thumos|epic|ego4d] [--tiou=0.3:0.7:0.1]
        [--videos=thumos_212|thumos_211|thumos_210|FILE] [--json=OUT]
        [--diagnose=DIR] [--classifier=NAME]
        [--per_frame=charades|multithumos] [--moments_per_second=7.5]

PREDICTIONS.json is in the ActivityNet submission format. --annotations takes
any layout of losa_jax/data/annotations/formats.py; files are separated by
commas. --videos names the videos that count: a THUMOS protocol, or a file of
ids to leave out, one on each line.

--diagnose writes the error categories, their cost in mAP, and what is missed
by length, coverage and count, as tables and a page of charts.

If the classes of proposals come from an external classifier, the mAP depends
on it: our predictions.json names it, --classifier does for other files.

Protocols: `activitynet` gives the numbers of ActivityNet's kit, with equal
scores in the order of numpy's sort (which depends on the processor;
--ties=stable does not) and predictions outside the subset counted as false
(--unknown=drop leaves them out). `thumos` is that of the 2014 challenge;
--ambiguous=FILE names its Ambiguous segments. `epic` scores verbs, nouns and
actions of a submission to the challenge of EPIC-KITCHENS-100, whose entries
have the numbers "verb" and "noun" and the pair "action". `ego4d` is
`activitynet` with recall@kx by two readings: the mean over classes, and that of
the kit of Ego4D's Moment Queries over all actions.

--per_frame adds the mAP of moments: `charades` scores 25 moments of each video
(alone, if PREDICTIONS is a .txt file `id frame scores` for its official kit),
`multithumos` as many as the video has features, of which
--moments_per_second tells the number (losa_jax/detection/per_frame.py).

Exit status: 0 done; 1 the input is wrong; 2 usage.
"""

import sys
from pathlib import Path

from losa_jax.errors import InputError
from losa_jax.utils.command_line import make_parser
from losa_jax.utils.interrupt import exit_with


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = make_parser("score", __doc__)
    parser.add_argument("predictions", type=Path, help="a file, as "
                        "predictions.json of a run or of predict")
    parser.add_argument("--annotations", required=True,
                        help="a file, or several with commas between them")
    parser.add_argument("--subset", required=True,
                        help="its name in the annotations")
    parser.add_argument("--protocol", default="activitynet",
                        choices=("activitynet", "thumos", "epic", "ego4d"))
    parser.add_argument("--tiou", default="",
                        help="first:last:step, or a list with commas; default "
                        "0.3:0.7:0.1, of epic and ego4d 0.1:0.5:0.1")
    parser.add_argument("--videos", default="",
                        help="a THUMOS protocol, or a file of ids to leave out")
    parser.add_argument("--class_names", default="",
                        help="a file with one name a line")
    parser.add_argument("--ties", choices=("numpy", "stable"),
                        default="numpy", help="order of equal scores")
    parser.add_argument("--unknown", choices=("false", "drop"),
                        default="false",
                        help="what predictions outside the subset are")
    parser.add_argument("--ambiguous", type=Path,
                        help="thumos: a file of segments that do not count")
    parser.add_argument("--json", type=Path, dest="output",
                        help="a file for the numbers")
    parser.add_argument("--diagnose", type=Path, dest="diagnose_into",
                        help="a folder for the error categories")
    parser.add_argument("--classifier", default="",
                        help="where the classes of proposals come from")
    parser.add_argument("--per_frame", choices=("charades", "multithumos"),
                        default="", help="also the mAP of moments")
    parser.add_argument("--moments_per_second", type=float, default=0.0,
                        help="per_frame=multithumos: features a second")
    arguments = parser.parse_args(argv)
    # Imported late, so that --help is quick.
    from losa_jax.jobs.score import score

    try:
        score(**vars(arguments))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_with(main)
