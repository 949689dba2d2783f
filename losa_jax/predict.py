"""Localizes actions in videos, with the model of a finished run.

    python -m losa_jax.predict VIDEO_OR_FOLDER... --checkpoint=WORKDIR
        [--output=DIR] [--threshold=S] [--top_k=K] [--report]

A folder means all videos in it and its subfolders; `-` reads one video from
standard input. Writes for each video, into DIR, JSON, CSV, subtitles (SRT,
WebVTT), an ELAN document and a plot of the timeline, and predictions.json of
all. Shown are detections above their class's threshold (the score of best F1
in the run's thresholds.json; 0.5 without one); predictions.json holds all
detections after NMS, as --mode=eval does. The same command again continues
where it stopped. Videos that cannot be read are listed, the others are done.

    python -m losa_jax.predict SOURCE --live --checkpoint=WORKDIR

reads a camera (/dev/video0), an address (rtsp://...), `-` or a file that
still grows, and writes each detection as a line of JSON once it is final.

In Python:

    model = losa_jax.load(WORKDIR)
    detections = model("video.mp4")

Exit status: 0 done; 1 the input is wrong, or some videos could not be read;
2 usage; 75 stopped by a signal with finished videos saved.
"""

import sys
from pathlib import Path

from losa_jax.errors import InputError
from losa_jax.utils.command_line import (
    fraction,
    make_parser,
    path,
    positive,
    seconds,
    show_warnings,
)
from losa_jax.utils.interrupt import (
    EXIT_INTERRUPTED,
    Interrupted,
    exit_with,
)
from losa_jax.utils.malloc import keep_freed_memory


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = make_parser("predict", __doc__)
    parser.add_argument("sources", nargs="+", metavar="VIDEO_OR_FOLDER")
    parser.add_argument("--checkpoint", type=path, required=True,
                        metavar="WORKDIR")
    parser.add_argument("--which", choices=("best", "last"), default="best",
                        help="checkpoint of the run")
    parser.add_argument("--output", type=path, help="folder; default: "
                        "predictions; with --live: none")
    parser.add_argument("--threshold", type=fraction,
                        help="lowest score shown, of any class")
    parser.add_argument("--top_k", type=positive, help="detections kept of "
                        "a video")
    parser.add_argument("--batch_windows", type=positive, default=0,
                        help="windows at once")
    parser.add_argument("--num_threads", type=positive, default=0,
                        help="of decoding")
    parser.add_argument("--backbone", default="", help="folder of the "
                        "backbone, if it was moved after training")
    parser.add_argument("--report", action="store_true",
                        help="an HTML page of each video")
    parser.add_argument("--live", action="store_true", help="lines of JSON "
                        "as detections become final")
    parser.add_argument("--idle_seconds", type=seconds, default=10.0,
                        help="--live: silence after which a file or an "
                        "address is at its end")
    arguments = parser.parse_args(argv)
    if arguments.live and (len(arguments.sources) > 1 or arguments.report
                           or arguments.top_k):
        parser.error("--live takes one source, and neither --top_k nor "
                     "--report: there is no whole video to choose from")
    keep_freed_memory()
    # Imported late, so that --help does not wait for jax.
    from absl import logging as absl_logging

    from losa_jax.data.windows.live import check_source
    from losa_jax.inference.load import load
    from losa_jax.jobs.live import live
    from losa_jax.jobs.predict import find_videos, predict
    from losa_jax.jobs.prediction_files import Settings
    from losa_jax.utils.compile_cache import use_compile_cache

    use_compile_cache()
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax logs every step
    failures: dict[str, str] = {}
    try:
        # Before the model, which takes seconds to load.
        if arguments.live:
            check_source(arguments.sources[0])
        else:
            sources = find_videos(arguments.sources)
        localizer = load(
            arguments.checkpoint, which=arguments.which,
            backbone=arguments.backbone,
            batch_windows=1 if arguments.live else arguments.batch_windows,
            num_threads=arguments.num_threads)
        if arguments.live:
            live(arguments.sources[0], localizer, output=arguments.output,
                 threshold=arguments.threshold,
                 idle_seconds=arguments.idle_seconds)
        else:
            failures = predict(sources, localizer, Settings(
                arguments.output or Path("predictions"), arguments.threshold,
                arguments.top_k, arguments.report))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        print(error, file=sys.stderr)
        return EXIT_INTERRUPTED
    if failures:
        print(f"{len(failures)} could not be read:", file=sys.stderr)
        for reason in failures.values():
            print(f"  {reason}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    show_warnings()
    exit_with(main)
