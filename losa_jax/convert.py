"""Weights in and out: python -m losa_jax.convert CHECKPOINT --output=DIR

CHECKPOINT is a file, a folder, or the name of a model on the Hugging Face hub,
such as facebook/vjepa2-vitl-fpc64-256, which is downloaded. A name has one
slash and no ending of a file of weights, and neither that path nor a folder
of the owner's name exists here.

    --revision=NAME      of a model on the hub, a branch, tag or commit
    --inspect            print what the checkpoint is, write nothing
    --verify             read a backbone back and compare every tensor with
                         the checkpoint
    --dtype=NAME         float32, float16 or bfloat16; default: unchanged
    --heads, --frames, --image_size=H,W   what no tensor shows
    --probe=FILE         of V-JEPA 2, a file with the attentive classifier;
                         --probe_heads=N are its attention heads, and
                         --probe_blocks=5,11,17,23 the blocks that it reads
    --no_ema             of a head's checkpoint, the weights themselves
                         instead of their moving average
    --public_config=FILE   ActionFormer's or TriDet's YAML file, for what no
                         tensor of a head shows
    --to=torch           the reverse: from a converted folder to a .safetensors
                         (or .npz) file in the layout of the public code

Reads backbones (VideoMAE, VideoMAEv2, V-JEPA 2 and 2.1, VideoPrism, Hugging
Face, OpenTAD) and heads (ActionFormer, TriDet, OpenTAD's copies). Of a folder
of .pt files with features, one tensor a video, it makes .npy files for
--config.features.folder.

Exit status: 0 done; 1 the input is wrong; 2 usage.
"""

import sys
from pathlib import Path

from losa_jax.errors import InputError
from losa_jax.utils.command_line import address, make_parser, path, positive
from losa_jax.utils.interrupt import exit_with

DTYPES = ("bfloat16", "float16", "float32")


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns the exit status."""
    parser = make_parser("convert", __doc__)
    parser.add_argument("checkpoint", type=address)
    parser.add_argument("--revision", type=address)
    parser.add_argument("--output", type=path)
    parser.add_argument("--inspect", action="store_true")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--dtype", choices=DTYPES)
    parser.add_argument("--heads", type=positive)
    parser.add_argument("--frames", type=positive)
    parser.add_argument("--image_size", type=_size)
    parser.add_argument("--probe", type=path)
    parser.add_argument("--probe_heads", type=positive)
    parser.add_argument("--probe_blocks", type=_blocks)
    parser.add_argument("--no_ema", action="store_true")
    parser.add_argument("--public_config", type=Path)
    parser.add_argument("--to", choices=("flax", "torch"), default="flax")
    arguments = parser.parse_args(argv)
    if not arguments.inspect and arguments.output is None:
        parser.error("give --output=DIR (or --inspect)")
    if arguments.inspect and any((arguments.output, arguments.verify,
                                  arguments.dtype, arguments.public_config)):
        parser.error("--inspect writes nothing: leave out --output, --verify, "
                     "--dtype and --public_config, or --inspect")
    if arguments.to == "torch" and any((
            arguments.revision, arguments.inspect, arguments.verify,
            arguments.dtype, arguments.heads, arguments.frames,
            arguments.image_size, arguments.probe, arguments.probe_heads,
            arguments.probe_blocks, arguments.no_ema,
            arguments.public_config)):
        parser.error("--to=torch takes a converted folder and --output only")
    name = arguments.checkpoint
    # Imported late, so that --help does not wait for jax.
    from losa_jax.jobs import convert
    from losa_jax.weights.checkpoint_file import is_hub_name

    from_hub = arguments.to == "flax" and is_hub_name(name)
    if arguments.revision and not from_hub:
        parser.error("--revision goes with a name of the Hugging Face hub, but "
                     f"{name} is taken for a path (see --help)")
    sizes = {"heads": arguments.heads, "clip_frames": arguments.frames,
             "image_size": arguments.image_size, "probe": arguments.probe,
             "probe_heads": arguments.probe_heads,
             "probe_blocks": arguments.probe_blocks}
    ema, checkpoint, origin = not arguments.no_ema, Path(name), None
    try:
        if arguments.to == "torch":
            convert.to_torch(checkpoint, arguments.output)
            return 0
        if from_hub:
            # Imported late: it brings a client of the network.
            from losa_jax.weights import hub

            checkpoint, origin = hub.download(name, arguments.revision)
        if arguments.inspect:
            convert.inspect(checkpoint, ema=ema, **sizes)
        else:
            convert.convert(
                checkpoint, arguments.output, verify=arguments.verify,
                dtype=arguments.dtype, ema=ema, origin=origin,
                public_config=arguments.public_config, **sizes)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _size(text: str) -> tuple[int, int]:
    height, width = (positive(part) for part in text.split(","))
    return height, width


def _blocks(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    exit_with(main)
