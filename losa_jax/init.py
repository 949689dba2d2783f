"""Writes a recipe for one's own videos, and asks nothing.

    python -m losa_jax.init FOLDER [--backbone=NAME]

FOLDER holds the videos, and beside or below them the annotations: files of any
tool that losa_jax.annotations reads. These are converted to
FOLDER/annotations.json, with a split into training and testing where they have
none. FOLDER/recipe.py is the recipe; the commands to train, to predict, to
correct the detections and to train again are in its head and are printed.

When annotations or videos were added, the same command reads them; the split
of known videos, and the recipe, stay as they are.

Exit status: 0 done; 1 the input is wrong; 2 usage.
"""

import sys

from losa_jax.errors import InputError
from losa_jax.utils.command_line import make_parser, path, show_warnings
from losa_jax.utils.interrupt import exit_with


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = make_parser("init", __doc__)
    parser.add_argument("folder", type=path, metavar="FOLDER")
    parser.add_argument("--backbone", default="", metavar="NAME",
                        help="OWNER/NAME of the Hugging Face hub, a file of "
                        "weights, or a folder that losa_jax.convert wrote; "
                        "default: a small VideoMAE of the hub")
    parser.add_argument("--group", default="", metavar="PATTERN",
                        help=r"videos of one group stay on one side of the "
                        r"split: as '(p\d+)_'")
    arguments = parser.parse_args(argv)
    # Imported late, so that --help is quick.
    from losa_jax.jobs.own_videos.init import init

    try:
        init(arguments.folder, backbone=arguments.backbone,
             group=arguments.group)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    show_warnings()
    exit_with(main)
