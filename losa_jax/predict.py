"""Localizes actions in videos, with the model of a finished run.

    python -m losa_jax.predict VIDEO_OR_FOLDER... --checkpoint=WORKDIR
        [--output=DIR] [--threshold=S] [--top_k=K] [--report]
        [--formats=csv,elan,via,...]

A folder means all videos in it and its subfolders, a text file (.txt) those
that it lists, one a line; `-` reads one video from standard input. Sources,
WORKDIR and DIR may be in a bucket, gs://BUCKET/PATH.

Writes for each video, into DIR, JSON, CSV, subtitles (SRT, WebVTT), an ELAN
document and a plot of the timeline, and predictions.json of all. --formats
chooses among these and the files of other tools, which get a folder each with
a README.txt. `python -m losa_jax.annotations` reads all of them back. Shown are
detections above their class's threshold (the score of best F1 in the run's
thresholds.json; 0.5 without one); predictions.json holds all detections after
NMS, as --mode=eval does. The same command again continues where it stopped,
and several processes that run it share the videos. Videos that cannot be read
are listed, the others are done.

    python -m losa_jax.predict SOURCE --live --checkpoint=WORKDIR

reads a camera (/dev/video0), an address (rtsp://...), `-` or a file that
still grows, and writes each detection as a line of JSON once it is final.

In Python:

    model = losa_jax.load(WORKDIR)
    detections = model("video.mp4")

Exit status: 0 done; 1 the input is wrong, or some videos could not be read;
2 usage; 75 stopped by a signal with finished videos saved; 76 another process
of the program was lost, start again.
"""

import argparse
import sys
import traceback
from pathlib import Path

from losa_jax.data.annotations.tools.layouts import (
    DEFAULT_FORMATS,
    FORMATS,
)
from losa_jax.errors import InputError
from losa_jax.utils.command_line import (
    add_beam_flags,
    add_process_flags,
    address,
    beam_options,
    fraction,
    make_parser,
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
    parser.add_argument("--checkpoint", type=address, required=True,
                        metavar="WORKDIR")
    parser.add_argument("--which", choices=("best", "last"), default="best",
                        help="checkpoint of the run")
    parser.add_argument("--output", type=address, help="folder; default: "
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
    parser.add_argument("--formats", type=_formats, default=DEFAULT_FORMATS,
                        metavar="NAMES", help="with commas, of: "
                        f"{', '.join(FORMATS)}; default: "
                        f"{','.join(DEFAULT_FORMATS)}")
    parser.add_argument("--live", action="store_true", help="lines of JSON "
                        "as detections become final")
    parser.add_argument("--idle_seconds", type=seconds, default=10.0,
                        help="--live: silence after which a file or an "
                        "address is at its end")
    add_process_flags(parser)
    add_beam_flags(parser)
    arguments = parser.parse_args(argv)
    if arguments.live and (len(arguments.sources) > 1 or arguments.report
                           or arguments.top_k or arguments.beam_runner
                           or arguments.formats != DEFAULT_FORMATS):
        parser.error("--live takes one source, and neither --top_k, --report, "
                     "--formats nor --beam_runner: there is no whole video to "
                     "choose from")
    keep_freed_memory()
    # Imported late, so that --help does not wait for jax.
    from losa_jax.distributed import processes

    status = 0
    try:
        processes.start(
            distributed=arguments.distributed,
            coordinator=arguments.coordinator,
            num_processes=arguments.num_processes,
            process_id=arguments.process_id)
        processes.quiet_unless_first()
        failures = _run(arguments)
    except (InputError, OSError) as error:
        status, message = 1, f"error: {error}"
    except processes.NotTogether as error:
        status, message = processes.EXIT_LOST, str(error)
    except (Interrupted, KeyboardInterrupt) as error:
        status, message = EXIT_INTERRUPTED, str(error)
    except Exception as error:
        if processes.count() == 1:
            raise
        if processes.is_loss(error):
            processes.leave_lost(error)
        traceback.print_exc()
        status, message = 1, repr(error)
    if status:
        print(message, file=sys.stderr)
        processes.fail(status, message)
        return status
    processes.finish()
    if failures:
        print(f"{len(failures)} could not be read:", file=sys.stderr)
        for reason in failures.values():
            print(f"  {reason}", file=sys.stderr)
    return 1 if failures else 0


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if unknown := set(names) - set(FORMATS):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}: choose among {', '.join(FORMATS)}")
    return names


def _run(arguments: argparse.Namespace) -> dict[str, str]:
    """Predicts; returns {source: reason} of what could not be read."""
    from absl import logging as absl_logging

    from losa_jax.data.windows.live import check_source
    from losa_jax.distributed import remote_workdir
    from losa_jax.inference.load import load
    from losa_jax.jobs.live import live
    from losa_jax.jobs.predict import predict
    from losa_jax.jobs.predict_beam import predict_with_beam
    from losa_jax.jobs.prediction_files import Settings
    from losa_jax.jobs.video_sources import find_videos
    from losa_jax.utils.compile_cache import use_compile_cache

    use_compile_cache()
    absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax logs every step
    # Before the model, which takes seconds to load.
    if arguments.live:
        check_source(arguments.sources[0])
    else:
        sources = find_videos(arguments.sources)
    options = beam_options(arguments)
    model = {
        "folder": str(remote_workdir.local_folder(arguments.checkpoint,
                                                  only_reads=True)),
        "which": arguments.which, "backbone": arguments.backbone,
        "batch_windows": 1 if arguments.live else arguments.batch_windows,
        "num_threads": arguments.num_threads}
    localizer = load(**model)
    if arguments.live:
        output = arguments.output and Path(arguments.output)
        live(arguments.sources[0], localizer, output=output,
             threshold=arguments.threshold,
             idle_seconds=arguments.idle_seconds)
        return {}
    settings = Settings(arguments.output or "predictions",
                        arguments.threshold, arguments.top_k,
                        arguments.report, arguments.formats)
    if arguments.beam_runner:
        predict_with_beam(sources.requests, settings, model,
                          arguments.beam_runner, options)
    return predict(sources, localizer, settings)


if __name__ == "__main__":
    show_warnings()
    exit_with(main)
