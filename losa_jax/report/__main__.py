"""The page of a training run.

    python -m losa_jax.report WORKDIR... [--output=FILE]

writes WORKDIR/training.html: curves of all that metrics.jsonl holds, gates
by layer and range, the table of mAP, the settings. One file, for any
browser; a run that is not finished has a page too. (Pages of videos are
written by `losa_jax.predict --report` and `losa_jax.main --mode=eval
--report`.)

Exit status: 0 done; 1 a folder holds no run; 2 usage.
"""

import argparse
import sys
from pathlib import Path

from losa_jax.errors import InputError
from losa_jax.report.training import write_training_page


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m losa_jax.report", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, nargs="+")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)
    if arguments.output and len(arguments.workdir) > 1:
        parser.error("--output goes with one folder")
    status = 0
    for workdir in arguments.workdir:
        try:
            page = write_training_page(workdir, arguments.output)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
        else:
            print(f"wrote {page}")
    return status


if __name__ == "__main__":
    sys.exit(main())
