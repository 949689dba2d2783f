"""mAP of anybody's predictions: no model, no configuration.

    python -m losa_jax.score PREDICTIONS.json --annotations=FILE --subset=test
        [--protocol=activitynet|thumos] [--tiou=0.3:0.7:0.1]
        [--videos=thumos_212|thumos_211|thumos_210|FILE] [--json=OUT]
        [--diagnose=DIR] [--classifier=NAME]

PREDICTIONS.json is in the ActivityNet submission format. --annotations takes
any layout of losa_jax/data/annotations/formats.py; of two files, with a comma
between. --videos names the videos that count: a THUMOS protocol, or a file of
ids to leave out, one a line.

--diagnose writes kinds of errors, what they cost, and what is missed by
length, coverage and count, as tables and PNG files.

Where proposals took their classes from an external classifier, the mAP is its
too: our predictions.json names it, --classifier does for files of other tools.

Protocols: `activitynet` gives the numbers of ActivityNet's kit, equal scores
in the order of numpy's sort (which depends on the processor; --ties=stable
does not) and predictions in unknown videos false (--unknown=drop leaves them
out). `thumos` is the 2014 challenge's; --ambiguous=FILE names its Ambiguous
segments.

Exit status: 0 done; 1 the input is wrong; 2 usage.
"""

import argparse
import sys
from pathlib import Path

from losa_jax.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m losa_jax.score", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--subset", required=True)
    parser.add_argument("--protocol", choices=("activitynet", "thumos"),
                        default="activitynet")
    parser.add_argument("--tiou", default="0.3:0.7:0.1",
                        help="first:last:step, or a list with commas")
    parser.add_argument("--videos", default="")
    parser.add_argument("--class_names", default="")
    parser.add_argument("--ties", choices=("numpy", "stable"),
                        default="numpy")
    parser.add_argument("--unknown", choices=("false", "drop"),
                        default="false")
    parser.add_argument("--ambiguous", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--diagnose", type=Path)
    parser.add_argument("--classifier", default="")
    arguments = parser.parse_args(argv)
    from losa_jax.jobs.score import score, tiou_list
    try:
        score(arguments.predictions, arguments.annotations,
              subset=arguments.subset, protocol=arguments.protocol,
              tiou_thresholds=tiou_list(arguments.tiou),
              videos=arguments.videos, class_names=arguments.class_names,
              ties=arguments.ties, unknown=arguments.unknown,
              ambiguous=arguments.ambiguous, output=arguments.json,
              diagnose_into=arguments.diagnose,
              classifier=arguments.classifier)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
