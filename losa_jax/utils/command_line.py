"""The parser of the command lines that have no recipe."""

import argparse
import logging
import math
import sys
from pathlib import Path
from typing import Any

from losa_jax.errors import InputError


def make_parser(name: str, description: str | None
                ) -> argparse.ArgumentParser:
    """Returns a parser of `python -m losa_jax.NAME` with --version, whose
    help shows the description as it is."""
    parser = argparse.ArgumentParser(
        prog=f"python -m losa_jax.{name}", description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    # The package itself is above all layers: it is not imported here.
    parser.add_argument("--version", action="version",
                        version=sys.modules["losa_jax"].__version__)
    return parser


def show_warnings() -> None:
    """Shows our warnings on the console, as "WARNING: text"."""
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)
    console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    ours = logging.getLogger("losa_jax")
    ours.setLevel(logging.INFO)
    ours.propagate = False
    ours.addHandler(console)


def positive(text: str) -> int:
    """Returns a whole number of 1 or more, as the type of an argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def positive_number(text: str) -> float:
    """Returns a finite number above 0, as the type of an argument."""
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError("must be above 0, and finite")
    return number


def fraction(text: str) -> float:
    """Returns a number of 0..1, as the type of an argument."""
    if not 0 <= (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return number


def seconds(text: str) -> float:
    """Returns a finite number of 0 or more, as the type of an argument."""
    if not 0 <= (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError("must be 0 or more, and finite")
    return number


def path(text: str) -> Path:
    """Returns a path, as the type of an argument: an empty one, as of a shell
    variable that is not set, is not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a file or folder")
    return Path(text)


def address(text: str) -> str:
    """Returns a path or a bucket's address, as `path`."""
    path(text)
    return text


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `losa_jax.main` by which the processes of one program
    find each other; the launch scripts set them."""
    parser.add_argument("--distributed", default="auto",
                        choices=("auto", "on", "off"), help="one program of "
                        "several processes: what is not given below is taken "
                        "from the environment")
    parser.add_argument("--coordinator", default="",
                        help="HOST:PORT of process 0")
    parser.add_argument("--num_processes", type=int, default=0)
    parser.add_argument("--process_id", type=int, default=-1)


def add_beam_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --beam_runner and --beam_options."""
    parser.add_argument("--beam_runner", default="",
                        help="for example DirectRunner or DataflowRunner")
    parser.add_argument("--beam_options", default="",
                        help="Beam's flags, separated by spaces")


def beam_options(arguments: argparse.Namespace) -> Any:
    """Returns the options of a pipeline, None without --beam_runner;
    InputError where Beam is not installed."""
    if not arguments.beam_runner:
        return None
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError("--beam_runner needs Apache Beam: pip install "
                         "'losa_jax[beam]'") from error
    return PipelineOptions(arguments.beam_options.split())
