"""Weights in and out: python -m losa_jax.convert CHECKPOINT --output=DIR

    --inspect            say what the checkpoint is, write nothing
    --verify             read back what was written and compare every tensor
    --dtype=NAME         float32, float16 or bfloat16; default: as it is
    --heads, --frames, --image_size=H,W   what no tensor tells
    --no_ema             of a head's checkpoint, the weights themselves
    --public_config=FILE   ActionFormer's or TriDet's YAML file, for what no
                         tensor of a head tells
    --to=torch           the other way: from a converted folder to
                         VideoMAEv2's layout, .safetensors, or .pth where
                         torch is installed

Reads backbones (VideoMAE, VideoMAEv2, Hugging Face, OpenTAD) and heads
(ActionFormer, TriDet, OpenTAD's copies, with their moving average).

Exit status: 0 done; 1 the input is wrong; 2 usage.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import yaml

from losa_jax.errors import InputError
from losa_jax.models import head_config, head_file, weight_rules, weights
from losa_jax.models.checkpoint_file import open_checkpoint
from losa_jax.models.vit import VitSpec
from losa_jax.models.vit_sizes import SIZES, size_name
from losa_jax.models.weight_rules import Tensor

# Of features in float32, relative to the largest value.
FEATURE_TOLERANCE = 1e-4


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m losa_jax.convert", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--inspect", action="store_true")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--dtype", choices=sorted(weights.DTYPES))
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
            arguments.heads, arguments.frames, arguments.image_size)):
        parser.error("--to=torch takes a converted folder and --output only")
    try:
        if arguments.to == "torch":
            _to_torch(arguments.checkpoint, arguments.output)
        elif head := head_file.open_head_tensors(
                arguments.checkpoint, ema=not arguments.no_ema):
            _convert_head(arguments, head)
        elif arguments.inspect:
            _inspect(arguments)
        else:
            _convert(arguments)
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


def _spec_options(arguments: argparse.Namespace) -> dict:
    return {"heads": arguments.heads, "clip_frames": arguments.frames,
            "image_size": arguments.image_size}


def _describe(spec: VitSpec) -> str:
    name = size_name(spec)
    return ((f"{name.replace('_', '-')}: " if name else "")
            + f"{spec.depth} blocks of width {spec.width}, {spec.heads} heads, "
            f"MLP {spec.mlp_width}; patch {spec.patch}, clips of "
            f"{spec.clip_frames} frames at {spec.image_size[0]} x "
            f"{spec.image_size[1]}; positions {spec.positions}, final norm "
            f"{spec.final_norm}, {spec.num_classes} classes"
            + (", LayerScale" if spec.layer_scale else "")
            + (", cosine attention" if spec.cosine_attention else ""))


def _inspect(arguments: argparse.Namespace) -> None:
    checkpoint = open_checkpoint(arguments.checkpoint)
    width = max(map(len, checkpoint.tensors))
    for name, tensor in checkpoint.tensors.items():
        print(f"{name:<{width}}  {tensor.dtype.name:<9} "
              f"{tuple(tensor.shape)}")
    for note in checkpoint.notes:
        print(f"note: {note}")
    tensors = checkpoint.tensors.values()
    count = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    kinds = ", ".join(sorted({tensor.dtype.name for tensor in tensors}))
    print(f"{len(checkpoint.tensors)} tensors, {count:,} numbers, {kinds}")
    try:
        spec = weights.checkpoint_spec(checkpoint, **_spec_options(arguments))
    except InputError as error:
        print(f"what it is: {checkpoint.layout} names; {error}")
        return
    task = ("fine-tuned classifier" if spec.num_classes else
            "encoder of a pre-training checkpoint" if any(
                "pre-training" in note for note in checkpoint.notes)
            else "encoder")
    print(f"what it is: {checkpoint.layout} {task}, {_describe(spec)}")
    _print_doubts(spec)


def _convert_head(arguments: argparse.Namespace,
                  head: tuple[dict[str, Tensor], str]) -> None:
    tensors, taken = head
    if arguments.inspect:
        width = max(map(len, tensors))
        for name, tensor in tensors.items():
            print(f"{name:<{width}}  {tensor.dtype.name:<9} "
                  f"{tuple(tensor.shape)}")
        print(f"what it is: a detection head, {len(tensors)} tensors of "
              f"{taken}")
        return
    facts = head_file.convert_head(arguments.checkpoint, arguments.output,
                                   ema=not arguments.no_ema)
    flat, _ = head_file.load_head(arguments.output)
    count = sum(array.size for array in flat.values())
    settings, untold = facts["settings"], (
        "\nand what no tensor tells: attention_heads, attention_window, "
        "absolute_positions (--public_config=FILE.yaml tells them)")
    if arguments.public_config is not None:
        public = _read_yaml(arguments.public_config)
        try:
            told = head_config.head_settings(public)
        except InputError as error:
            raise InputError(f"--public_config={arguments.public_config}: "
                             f"{error}") from error
        settings, untold = settings | told, ""
    print(f"wrote {arguments.output}: {settings['kind']} of {count:,} "
          f"parameters ({taken}), {settings['in_width']} channels, "
          f"{settings['num_classes']} classes. To use it:")
    for name, value in settings.items():
        if name in ("in_width", "num_classes", "max_tokens"):
            continue
        text = (f"'{tuple(value)}'" if isinstance(value, (list, tuple))
                else value)
        print(f"    --config.head.{name}={text}")
    print(f"    --config.head.checkpoint={arguments.output} "
          f"--config.head.reference_masking=True{untold}")


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"--public_config={path}: cannot be read ({error})"
                         ) from error
    if not isinstance(content, dict):
        raise InputError(f"--public_config={path}: holds no settings; give "
                         "the YAML file that the head was trained with")
    return content


def _print_doubts(spec: VitSpec) -> None:
    """A checkpoint that lost a whole part looks like a smaller model."""
    for size in SIZES.values():
        if size["width"] == spec.width and size["depth"] != spec.depth:
            print(f"note: VideoMAE's models of width {spec.width} have "
                  f"{size['depth']} blocks; this one has {spec.depth}")
    if not spec.num_classes:
        print("note: no classifier in it: features only")


def _convert(arguments: argparse.Namespace) -> None:
    spec = weights.convert_backbone(
        arguments.checkpoint, arguments.output, dtype=arguments.dtype,
        **_spec_options(arguments))
    for note in open_checkpoint(arguments.checkpoint).notes:
        print(f"note: {note}")
    arrays = arguments.output / weights.ARRAYS_FILE
    count = sum(int(np.prod(shape)) for shape in
                weight_rules.expected_shapes(spec).values())
    print(f"wrote {arguments.output}: {_describe(spec)}; {count:,} "
          f"parameters, {arrays.stat().st_size / 2**20:.1f} MiB")
    _print_doubts(spec)
    if arguments.verify:
        _verify(arguments)


def _verify(arguments: argparse.Namespace) -> None:
    """Every tensor of the source against what the folder now holds."""
    spec, params, _ = weights.load_backbone(arguments.output)
    source = open_checkpoint(arguments.checkpoint).tensors
    written = weight_rules.expected_source(spec)
    largest = 0.0
    for name, (rule, block, _) in written.items():
        if name not in source:
            continue
        array = params[rule.ours] if block is None else (
            params[rule.ours][block])
        array = weight_rules.to_source(array, rule.layout, spec)
        original = source[name].read().astype(array.dtype)
        difference = np.abs(original.astype(np.float64)
                            - array.astype(np.float64)).max(initial=0.0)
        largest = max(largest, float(difference))
    if set(source) != set(written) or largest != 0.0:
        raise InputError(f"{arguments.output} does not hold what "
                         f"{arguments.checkpoint} does: largest difference "
                         f"{largest}; delete it and convert again")
    print(f"verified: {len(written)} tensors equal")
    try:
        import torch  # noqa: F401 - only whether it is there
    except ImportError:
        print("features not compared: torch is not installed")
        return
    from losa_jax.models.torch_check import compare_tokens
    found = compare_tokens(spec, source, params)
    print("tokens of a random clip after the last block, at "
          f"{found.image_size[0]} x {found.image_size[1]}, "
          "torch on the checkpoint against ours: "
          f"largest difference {found.largest:.2g}, largest value "
          f"{found.scale:.3g}")
    limit = FEATURE_TOLERANCE
    if arguments.dtype in ("float16", "bfloat16"):
        limit = np.inf  # the weights themselves were rounded
    if not found.largest <= limit * max(1.0, found.scale):
        raise InputError(f"{arguments.output}: features differ from torch's "
                         f"by {found.largest:.2g}; please report this "
                         "checkpoint")


def _to_torch(directory: Path, output: Path) -> None:
    if output.exists():
        raise InputError(f"{output} exists: choose another --output")
    spec, params, _ = weights.load_backbone(directory)
    if output.suffix == ".safetensors":
        weights.save_videomae_safetensors(output, spec, params)
    else:
        try:
            import torch
        except ImportError as error:
            raise InputError(
                f"--output={output}: writing .pth needs torch (pip install "
                "torch); or give a name that ends in .safetensors"
            ) from error
        state = {}
        for name, array in weights.to_videomae(spec, params).items():
            array = np.array(array, order="C")  # the file's is read-only
            if array.dtype.name == "bfloat16":
                state[name] = torch.from_numpy(
                    array.view(np.int16)).view(torch.bfloat16)
            else:
                state[name] = torch.from_numpy(array)
        temporary = output.with_name(output.name + ".tmp")
        torch.save({"module": state, "losa_jax": weights.untold_facts(spec)},
                   temporary)
        temporary.replace(output)
    print(f"wrote {output}: VideoMAEv2's layout")


if __name__ == "__main__":
    sys.exit(main())
