"""The parser of the command lines that have no recipe."""

import argparse
import logging
import math
import sys
from pathlib import Path


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
