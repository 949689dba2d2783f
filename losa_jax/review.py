"""Corrects detections in a browser, and keeps what a person decided.

    python -m losa_jax.review FOLDER [--videos=FOLDER] [--reviewer=NAME]

FOLDER is what losa_jax.predict wrote, or a folder of videos to mark from the
start. The command prints an address of this machine, which only a browser on
it can open; the page lists the videos, the most doubtful first. The keys of
the editor are listed by pressing `?` in it.

Each decision is saved at once, in FOLDER/reviews/NAME.json: what was accepted,
corrected, added and rejected, by whom and when. FOLDER/reviewed.json holds the
same as annotations. Training reads it with --config.data.reviews=FOLDER.

Ctrl+C ends the command. Exit status: 0 done; 1 the input is wrong; 2 usage.
"""

import argparse
import contextlib
import getpass
import sys

from losa_jax.errors import InputError
from losa_jax.utils.command_line import make_parser, path, show_warnings
from losa_jax.utils.interrupt import Interrupted, exit_with


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = make_parser("review", __doc__)
    parser.add_argument("folder", type=path, metavar="FOLDER")
    parser.add_argument("--videos", type=path, metavar="FOLDER",
                        help="where the videos are, if they were moved")
    parser.add_argument("--reviewer", default="", metavar="NAME",
                        help="who decides; default: the user of this machine")
    parser.add_argument("--port", type=int, default=0,
                        help="of the address; default: a free one")
    arguments = parser.parse_args(argv)
    try:
        _serve(arguments)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        print("all decisions are saved")
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    # Imported late, so that --help is quick.
    from losa_jax.data.video.folder import VideoFolder
    from losa_jax.jobs.review.folder import find_file, only_reviewer
    from losa_jax.jobs.review.server import ReviewServer
    from losa_jax.jobs.review.store import Store

    if arguments.videos and not arguments.videos.is_dir():
        raise InputError(f"--videos={arguments.videos}: is no folder: name the "
                         "folder that holds the videos")
    reviewer = arguments.reviewer
    if not reviewer:
        with contextlib.suppress(OSError, KeyError):  # a user without a name
            reviewer = getpass.getuser()
    with only_reviewer(arguments.folder):
        store = Store(arguments.folder, reviewer)
        videos = arguments.videos and VideoFolder(arguments.videos)
        files = [find_file(store.predicted(number), arguments.folder, videos)
                 for number in range(len(store))]
        missing = [store.predicted(number).video_id
                   for number, file in enumerate(files) if file is None]
        if missing:
            print(f"WARNING: {len(missing)} of {len(store)} videos are not "
                  f"where they were predicted ({', '.join(missing[:3])}): "
                  "--videos=FOLDER names their folder", file=sys.stderr)
        with ReviewServer(store, files, arguments.port) as server:
            print(f"{len(store)} videos: open {server.address}\n"
                  f"decisions are saved in {arguments.folder}/reviews; "
                  "Ctrl+C ends", flush=True)
            server.serve_forever()


if __name__ == "__main__":
    show_warnings()
    exit_with(main)
