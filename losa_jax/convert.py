"""Weights in and out: python -m losa_jax.convert CHECKPOINT --output=DIR

    --inspect            say what the checkpoint is, write nothing
    --verify             read back what was written and compare every tensor
    --dtype=NAME         float32, float16 or bfloat16; default: as it is
    --heads, --frames, --image_size=H,W   what no tensor tells
    --no_ema             of a head's checkpoint, the weights themselves
    --public_config=FILE   ActionFormer's or TriDet's YAML file, for what no
                         tensor of a head tells
    --to=torch           the other way: from a converted folder to the
                         layout of the public code, .safetensors, or .pth
                         where torch is installed

Reads backbones (VideoMAE, VideoMAEv2, Hugging Face, OpenTAD) and heads
(ActionFormer, TriDet, OpenTAD's copies, with their moving average).

Exit status: 0 done; 1 the input is wrong; 2 usage.
"""

import argparse
import sys
from pathlib import Path

from losa_jax.errors import InputError

DTYPES = ("bfloat16", "float16", "float32")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m losa_jax.convert", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--inspect", action="store_true")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--heads", type=_count)
    parser.add_argument("--frames", type=_count)
    parser.add_argument("--image_size", type=_size)
    parser.add_argument("--no_ema", action="store_true")
    parser.add_argument("--public_config", type=Path)
    parser.add_argument("--to", choices=("flax", "torch"), default="flax")
    arguments = parser.parse_args(argv)
    if not arguments.inspect and arguments.output is None:
        parser.error("give --output=DIR (or --inspect)")
    if arguments.to == "torch" and any((
            arguments.inspect, arguments.verify, arguments.dtype,
            arguments.heads, arguments.frames, arguments.image_size,
            arguments.no_ema, arguments.public_config)):
        parser.error("--to=torch takes a converted folder and --output only")
    # Imported late, so that --help does not wait for jax.
    from losa_jax.jobs.convert import Request, convert, to_torch

    try:
        if arguments.to == "torch":
            to_torch(arguments.checkpoint, arguments.output)
        else:
            convert(Request(
                arguments.checkpoint,
                None if arguments.inspect else arguments.output,
                arguments.verify, arguments.dtype, arguments.heads,
                arguments.frames, arguments.image_size,
                not arguments.no_ema, arguments.public_config))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _size(text: str) -> tuple[int, int]:
    height, width = (_count(part) for part in text.split(","))
    return height, width


if __name__ == "__main__":
    sys.exit(main())
