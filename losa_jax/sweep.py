r"""Trains variants of a config with several seeds and writes one table.

    python -m losa_jax.sweep --config=configs/quick.py:ablation \
        --workdir=runs/ablation --variants=configs/adapters.txt --seeds=0,1,2 \
        --test_subset=testing

--variants names a file with `name: section.key=value ...` on each line;
--vary='name: section.key=value' adds one. Other --config.... flags apply to
all runs. Finished runs are not repeated. The table is written to
WORKDIR/table.md.

Exit status: 0 done; 1 wrong input, or a run failed; 2 usage; 75 stopped by a
signal: start the same command again to continue.
"""

import argparse
import sys
from pathlib import Path

from losa_jax.errors import InputError
from losa_jax.utils import recipes
from losa_jax.utils.atomic_write import write_text
from losa_jax.utils.command_line import make_parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = make_parser("sweep", __doc__)
    parser.add_argument("--config", required=True,
                        help="a recipe, as configs/quick.py:ablation")
    parser.add_argument("--workdir", type=Path, required=True,
                        help="folder for the runs and the table")
    parser.add_argument("--variants", default="", metavar="FILE",
                        help="a file with one variant a line")
    parser.add_argument("--vary", action="append", default=[],
                        help="one more variant")
    parser.add_argument("--seeds", type=_seeds, default=(0, 1, 2),
                        help="numbers with commas; default: 0,1,2")
    parser.add_argument("--test_subset", default="", help="scored once, with "
                        "each run's best checkpoint")
    arguments, others = parser.parse_known_args(argv)
    wrong = [flag for flag in others if not flag.startswith("--config.")
             or "=" not in flag]
    if wrong:
        parser.error(f"not known: {' '.join(wrong)} (settings of the config "
                     "are --config.section.key=value)")
    # Imported late, so that --help is quick.
    from losa_jax.jobs import sweep
    from losa_jax.utils.interrupt import Interrupted

    try:
        variants = [*map(sweep.parse_variant, arguments.vary)]
        if arguments.variants:
            variants[:0] = sweep.read_variants(
                Path(recipes.find(arguments.variants)))
        if not variants:
            raise InputError("no variants: give --variants=FILE or --vary")
        folders = sweep.run_all(
            variants, arguments.seeds,
            [f"--config={arguments.config}", *others], arguments.workdir,
            arguments.test_subset)
        table = sweep.make_table(folders, arguments.test_subset)
        write_text(arguments.workdir / "table.md", table)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        print(error or "stopped; start the same command again to continue",
              file=sys.stderr)
        return 75
    print(f"{table}\nwrote {arguments.workdir / 'table.md'}")
    expected = len(variants) * len(arguments.seeds)
    return 0 if sum(map(len, folders.values())) == expected else 1


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write numbers with commas, as 0,1,2") from error


if __name__ == "__main__":
    sys.exit(main())
