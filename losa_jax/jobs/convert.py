"""What `python -m losa_jax.convert` does: weights in and out."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from losa_jax.errors import InputError
from losa_jax.models.backbones import family_of
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.utils.atomic_write import written_whole
from losa_jax.weights import backbone_folder, head_folder
from losa_jax.weights.checkpoint_file import Tensor
from losa_jax.weights.name_table import (
    expected_shapes,
    expected_source,
    source_tensors,
    weights_module,
)
from losa_jax.weights.open_checkpoint import checkpoint_spec, open_checkpoint

# Of features in float32, relative to the largest value.
FEATURE_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
      checkpoint: a public one, or with to_torch a converted folder.
      output: where to; None only says what the checkpoint is.
      verify: read back what was written and compare.
      dtype: of the weights written; None keeps theirs.
      heads, frames, image_size: what no tensor tells.
      ema: of a head's checkpoint, its moving average.
      public_config: YAML file for what no tensor of a head tells.
    """

    checkpoint: Path
    output: Path | None = None
    verify: bool = False
    dtype: str | None = None
    heads: int | None = None
    frames: int | None = None
    image_size: tuple[int, int] | None = None
    ema: bool = True
    public_config: Path | None = None


def convert(request: Request) -> None:
    """Reads a checkpoint of a backbone or head; says what it is, or writes it.

    Raises:
      InputError: it is neither, or its tensors do not find their place.
    """
    head = head_folder.open_head_tensors(request.checkpoint, ema=request.ema)
    if head is not None:
        _convert_head(request, head)
    elif request.output is None:
        _inspect(request)
    else:
        _convert(request, request.output)


def _spec_options(request: Request) -> dict[str, Any]:
    return {"heads": request.heads, "clip_frames": request.frames,
            "image_size": request.image_size}


def _inspect(request: Request) -> None:
    checkpoint = open_checkpoint(request.checkpoint)
    _print_tensors(checkpoint.tensors)
    for note in checkpoint.notes:
        print(f"note: {note}")
    tensors = checkpoint.tensors.values()
    count = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    dtypes = ", ".join(sorted({tensor.dtype.name for tensor in tensors}))
    print(f"{len(checkpoint.tensors)} tensors, {count:,} numbers, {dtypes}")
    try:
        spec = checkpoint_spec(checkpoint, **_spec_options(request))
    except InputError as error:
        print(f"what it is: {checkpoint.layout} names; {error}")
        return
    task = ("fine-tuned classifier" if getattr(spec, "num_classes", 0) else
            "encoder of a pre-training checkpoint" if any(
                "pre-training" in note for note in checkpoint.notes)
            else "encoder")
    print(f"what it is: {checkpoint.layout} {task}, {_describe(spec)}")
    _print_doubts(spec)


def _print_tensors(tensors: Mapping[str, Tensor]) -> None:
    width = max(map(len, tensors))
    for name, tensor in tensors.items():
        print(f"{name:<{width}}  {tensor.dtype.name:<9} "
              f"{tuple(tensor.shape)}")


def _describe(spec: BackboneSpec) -> str:
    return weights_module(family_of(spec)).describe(spec)


def _convert_head(request: Request,
                  head: tuple[dict[str, Tensor], str]) -> None:
    tensors, taken = head
    if request.output is None:
        _print_tensors(tensors)
        print(f"what it is: a detection head, {len(tensors)} tensors of "
              f"{taken}")
        return
    facts = head_folder.convert_head(request.checkpoint, request.output,
                                   ema=request.ema)
    flat, _ = head_folder.load_head(request.output)
    count = sum(array.size for array in flat.values())
    settings, untold = facts["settings"], (
        "\nand what no tensor tells: attention_heads, attention_window, "
        "absolute_positions (--public_config=FILE.yaml tells them)")
    if request.public_config is not None:
        public = _read_yaml(request.public_config)
        try:
            settings |= head_folder.head_settings(public)
        except InputError as error:
            raise InputError(f"--public_config={request.public_config}: "
                             f"{error}") from error
        untold = ""
    print(f"wrote {request.output}: {settings['kind']} of {count:,} "
          f"parameters ({taken}), {settings['in_width']} channels, "
          f"{settings['num_classes']} classes. To use it:")
    for name, value in settings.items():
        if name in ("in_width", "num_classes", "max_tokens"):
            continue
        text = (f"'{tuple(value)}'" if isinstance(value, (list, tuple))
                else value)
        print(f"    --config.head.{name}={text}")
    print(f"    --config.head.checkpoint={request.output} "
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


def _print_doubts(spec: BackboneSpec) -> None:
    module = weights_module(family_of(spec))
    for line in module.doubts(spec) if hasattr(module, "doubts") else ():
        print(f"note: {line}")


def _convert(request: Request, output: Path) -> None:
    spec = backbone_folder.convert_backbone(
        request.checkpoint, output, dtype=request.dtype,
        **_spec_options(request))
    for note in open_checkpoint(request.checkpoint).notes:
        print(f"note: {note}")
    arrays = output / backbone_folder.ARRAYS_FILE
    count = sum(int(np.prod(shape)) for shape in
                expected_shapes(spec).values())
    print(f"wrote {output}: {_describe(spec)}; {count:,} "
          f"parameters, {arrays.stat().st_size / 2**20:.1f} MiB")
    _print_doubts(spec)
    if request.verify:
        _verify(request, output)


def _verify(request: Request, output: Path) -> None:
    """Every tensor of the source against what the folder now holds."""
    spec, params, _ = backbone_folder.open_backbone(output)
    source = open_checkpoint(request.checkpoint).tensors
    written = expected_source(spec)
    largest = 0.0
    for name, place in written.items():
        if name not in source:
            continue
        array = place.of(params, spec)
        original = source[name].read().astype(array.dtype)
        difference = np.abs(original.astype(np.float64)
                            - array.astype(np.float64)).max(initial=0.0)
        largest = max(largest, float(difference))
    if set(source) != set(written) or largest != 0.0:
        raise InputError(f"{output} does not hold what "
                         f"{request.checkpoint} does: largest difference "
                         f"{largest}; delete it and convert again")
    print(f"verified: {len(written)} tensors equal")
    if not isinstance(spec, VideoMaeSpec):
        print("features not compared: torch has no model of this family here")
        return
    try:
        import torch  # noqa: F401 - only whether it is there
    except ImportError:
        print("features not compared: torch is not installed")
        return
    from losa_jax.weights.torch_check import compare_tokens
    compared = compare_tokens(spec, source, params)
    print("tokens of a random clip after the last block, at "
          f"{compared.image_size[0]} x {compared.image_size[1]}, "
          "torch on the checkpoint against ours: "
          f"largest difference {compared.largest:.2g}, largest value "
          f"{compared.scale:.3g}")
    limit = FEATURE_TOLERANCE
    if request.dtype in ("float16", "bfloat16"):
        limit = np.inf  # the weights themselves were rounded
    if not compared.largest <= limit * max(1.0, compared.scale):
        raise InputError(f"{output}: features differ from torch's "
                         f"by {compared.largest:.2g}; please report this "
                         "checkpoint")


def to_torch(folder: Path, output: Path) -> None:
    """Writes a converted backbone in the layout of its public checkpoints.

    Args:
      folder: of the backbone.
      output: a new file, .safetensors, or .pth where torch is installed.

    Raises:
      InputError: the file is there, or torch is not.
    """
    if output.exists():
        raise InputError(f"{output} exists: choose another --output")
    spec, params, _ = backbone_folder.open_backbone(folder)
    if output.suffix == ".safetensors":
        backbone_folder.save_source(output, spec, params)
    else:
        try:
            import torch
        except ImportError as error:
            raise InputError(
                f"--output={output}: writing .pth needs torch (pip install "
                "torch); or give a name that ends in .safetensors"
            ) from error
        state = {}
        for name, array in source_tensors(spec, params).items():
            array = np.array(array, order="C")  # the file's is read-only
            if array.dtype.name == "bfloat16":
                state[name] = torch.from_numpy(
                    array.view(np.int16)).view(torch.bfloat16)
            else:
                state[name] = torch.from_numpy(array)
        with written_whole(output) as temporary:
            torch.save({"module": state,
                        "losa_jax": backbone_folder.own_facts(spec)}, temporary)
    print(f"wrote {output}: the public layout of "
          f"{weights_module(family_of(spec)).TITLE}")
