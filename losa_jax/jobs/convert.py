"""What `python -m losa_jax.convert` does: weights in and out."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from losa_jax.errors import InputError, counted
from losa_jax.models.backbones import family_of
from losa_jax.utils.atomic_write import atomic_file, writing
from losa_jax.utils.yaml_file import read_yaml
from losa_jax.weights import backbone_folder, head_folder
from losa_jax.weights.feature_tensors import (
    convert_features,
    find_features,
    open_features,
)
from losa_jax.weights.head_settings import head_settings
from losa_jax.weights.name_table import (
    FAMILIES,
    expected_shapes,
    expected_source,
)
from losa_jax.weights.open_checkpoint import checkpoint_spec, open_checkpoint
from losa_jax.weights.torch_pickle import Tensor

# The options of heads; all others are of backbones.
_HEAD_OPTIONS = ("no_ema", "public_config")


def inspect(path: Path, *, ema: bool = True, probe: Path | None = None,
            **sizes: Any) -> None:
    """Prints the content of a backbone's or head's file; see `convert`."""
    if features := find_features(path):
        # A model's file is named before its options.
        first = open_features(features[0])
        _refuse_useless(path, "features", no_ema=not ema, probe=probe, **sizes)
        print(f"what it is: {counted(len(features), 'file')} of features; the "
              f"first is {first.dtype.name} {first.shape}, [time, width]")
        return
    head = head_folder.open_head_tensors(path, ema=ema)
    _refuse_useless(path, "backbone" if head is None else "head",
                    no_ema=not ema, probe=probe, **sizes)
    if head is not None:
        tensors, entry = head
        _print_tensors(tensors)
        print(f"what it is: a detection head, {len(tensors)} tensors of "
              f"{entry}")
        return
    checkpoint = open_checkpoint(path, probe=probe)
    tensors = checkpoint.tensors
    _print_tensors(tensors)
    for note in checkpoint.notes:
        print(f"note: {note}")
    count = sum(math.prod(tensor.shape) for tensor in tensors.values())
    dtypes = sorted({tensor.dtype.name for tensor in tensors.values()})
    print(f"{len(tensors)} tensors, {count:,} numbers, {', '.join(dtypes)}")
    try:
        spec = checkpoint_spec(checkpoint, **sizes)
        description = FAMILIES[checkpoint.family].describe(spec)
    except InputError as error:
        description = f"{error}"
    print(f"what it is: {description}")


def _print_tensors(tensors: Mapping[str, Tensor]) -> None:
    width = max(map(len, tensors))
    for name, tensor in tensors.items():
        print(f"{name:<{width}}  {tensor.dtype.name:<9} {tensor.shape}")


def convert(path: Path, output: Path, *, verify: bool = False,
            dtype: str | None = None, ema: bool = True,
            public_config: Path | None = None, probe: Path | None = None,
            origin: Mapping[str, str] | None = None, **sizes: Any) -> None:
    """Converts a checkpoint of a backbone or head, or a folder of features
    in .pt files, to a folder.

    Args:
      verify: reads a backbone back and compares it.
      dtype: of a backbone, see `convert_backbone`.
      ema: of a head, takes the moving average.
      public_config: YAML that a head was trained with.
      probe: of a backbone, see `open_checkpoint`.
      origin: facts that the folder stores, see `hub.download`.
      sizes: of a backbone, see `checkpoint_spec`.

    Raises:
      InputError: not a checkpoint, tensors that fit no parameter, or an option
        for the other type of checkpoint.
    """
    if features := find_features(path):
        # A model's file is named before its options.
        first = open_features(features[0])
    is_head = not features and (
        head_folder.open_head_tensors(path, ema=ema) is not None)
    _refuse_useless(path, "features" if features else
                    "head" if is_head else "backbone",
                    verify=verify, dtype=dtype, no_ema=not ema,
                    public_config=public_config, probe=probe, **sizes)
    if features:
        convert_features(features, output)
        print(f"wrote {output}: {counted(len(features), 'file')} of features, "
              f"the first of shape {first.shape}. To use them:\n"
              f"    --config.features.folder={output} "
              f"--config.features.width={first.shape[-1]}")
        return
    if is_head:
        _convert_head(path, output, ema, public_config, origin)
        return
    spec = backbone_folder.convert_backbone(path, output, dtype=dtype,
                                            probe=probe, origin=origin,
                                            **sizes)
    for note in open_checkpoint(path, probe=probe).notes:
        print(f"note: {note}")
    count = sum(map(math.prod, expected_shapes(spec).values()))
    size = (output / backbone_folder.ARRAYS_FILE).stat().st_size
    print(f"wrote {output}: {FAMILIES[family_of(spec)].describe(spec)}; "
          f"{count:,} parameters, {size / 2**20:.1f} MiB")
    if verify:
        print(f"verified: {_compare(path, output, probe)} tensors equal")


def _refuse_useless(path: Path, content: str, **options: Any) -> None:
    """Raises InputError for options that such content ("head", "backbone" or
    "features") does not have."""
    flags = {"clip_frames": "frames"}
    owners = {name: "head" if name in _HEAD_OPTIONS else "backbone"
              for name, value in options.items() if value}
    useless = [f"--{flags.get(name, name)}" for name, owner in owners.items()
               if owner != content]
    if useless:
        others = {owners[name] for name in owners} - {content}
        raise InputError(
            f"{path}: holds {'' if content == 'features' else 'a '}{content}: "
            f"leave out {', '.join(useless)}, for a "
            f"{' or a '.join(sorted(others))} only")


def _convert_head(path: Path, output: Path, ema: bool,
                  public_config: Path | None,
                  origin: Mapping[str, str] | None) -> None:
    # Before anything is written.
    public = {} if public_config is None else _public_settings(public_config)
    facts = head_folder.convert_head(path, output, ema=ema, origin=origin)
    flat, _ = head_folder.load_head(output)
    count = sum(array.size for array in flat.values())
    settings, remark = facts["settings"] | public, "" if public else (
        "\nand what no tensor shows: attention_heads, attention_window, "
        "absolute_positions (--public_config=FILE.yaml has them)")
    print(f"wrote {output}: {settings['kind']} of {count:,} "
          f"parameters ({facts['taken']}), {settings['in_width']} channels, "
          f"{settings['num_classes']} classes. To use it:")
    for name, value in settings.items():
        if name not in ("in_width", "num_classes", "max_tokens"):
            text = (f"'{tuple(value)}'" if isinstance(value, (list, tuple))
                    else value)
            print(f"    --config.head.{name}={text}")
    print(f"    --config.head.checkpoint={output} "
          f"--config.head.reference_masking=True{remark}")


def _public_settings(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no settings; give the YAML file that "
                         "the head was trained with")
    try:
        return head_settings(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise InputError(f"{path}: an option has a value of the wrong type "
                         f"({error}); give the YAML file that the head was "
                         "trained with") from error


def _compare(path: Path, output: Path, probe: Path | None) -> int:
    """Returns the number of tensors, all equal in checkpoint and folder."""
    spec, params, _ = backbone_folder.open_backbone(output)
    tensors = open_checkpoint(path, probe=probe).tensors
    wrong, places = [], expected_source(spec)
    for name, place in places.items():
        array = place.of(params, spec)
        if not np.array_equal(array, tensors[name].read().astype(array.dtype)):
            wrong.append(name)
    if wrong:
        raise InputError(f"{output}: {len(wrong)} tensors differ from {path}: "
                         f"{', '.join(wrong[:8])}; delete it and convert "
                         "again")
    return len(places)


def to_torch(folder: Path, output: Path) -> None:
    """Writes a converted backbone in the layout of its public checkpoints,
    as a new .safetensors or .npz file, or .pth where torch is installed.

    Raises:
      InputError: the file exists, or torch is missing.
    """
    if output.exists():
        raise InputError(f"{output} exists: choose another --output")
    spec, params, _ = backbone_folder.open_backbone(folder)
    if output.suffix in (".safetensors", ".npz"):
        backbone_folder.save_source(output, spec, params)
    else:
        try:
            import torch
            from safetensors.torch import load_file
        except ImportError as error:
            raise InputError(
                f"--output={output}: writing .pth needs torch (pip install "
                "torch); or give a name that ends in .safetensors") from error
        with (writing(output), tempfile.TemporaryDirectory(
                dir=output.parent) as temporary):
            tensors = Path(temporary) / "backbone.safetensors"
            backbone_folder.save_source(tensors, spec, params)
            with atomic_file(output) as file:
                try:
                    torch.save({"module": load_file(tensors), "losa_jax":
                                backbone_folder.own_facts(spec)}, file)
                except RuntimeError as error:  # torch's for a full disk
                    raise OSError(str(error)) from error
    print(f"wrote {output}: the public layout of "
          f"{FAMILIES[family_of(spec)].TITLE}")
