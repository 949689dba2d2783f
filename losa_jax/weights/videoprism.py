"""VideoPrism's table of names, and the layout of its public checkpoints.

The public files are NumPy archives whose names are paths
(github.com/google-deepmind/videoprism). Tensors of blocks are stacked on a
first axis there as here. The package's docstring explains each definition.
"""

import functools
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np

from losa_jax.errors import InputError
from losa_jax.models.backbones import size_name
from losa_jax.models.backbones.videoprism import VideoPrismSpec
from losa_jax.weights.rules import SAME, Layout, Rule
from losa_jax.weights.torch_pickle import Tensor

TITLE = "VideoPrism"
_ROOT = "params/"
# Of linear maps to heads: weights [*stack, c, heads, d], biases [*stack,
# heads, d]; here the heads lie side by side. `post` has [*stack, c, heads, d]
# too, although it maps from heads.
_TO_HEADS = Layout(
    lambda array, spec: array.reshape(*array.shape[:-2], -1),
    lambda array, spec: array.reshape(*array.shape[:-1], spec.heads, -1))
_FROM_HEADS = Layout(
    lambda array, spec: np.swapaxes(
        array.reshape(*array.shape[:-2], -1), -1, -2),
    lambda array, spec: np.swapaxes(array, -1, -2).reshape(
        *array.shape[:-2], array.shape[-1], spec.heads, -1))


def _norm(source: str, parameter: str) -> list[Rule]:
    return [Rule(f"{source}/{name}", f"{parameter}/{name}", SAME)
            for name in ("scale", "bias")]


def _linear(source: str, parameter: str) -> list[Rule]:
    return [Rule(f"{source}/linear/{name}", f"{parameter}/{name}", SAME)
            for name in ("kernel", "bias")]


def _attention(source: str, parameter: str) -> list[Rule]:
    return [
        *(Rule(f"{source}/{part}/{name}", f"{parameter}/{part}/{ours}",
               _TO_HEADS)
          for part in ("query", "key", "value")
          for name, ours in (("w", "kernel"), ("b", "bias"))),
        Rule(f"{source}/post/w", f"{parameter}/post/kernel", _FROM_HEADS),
        Rule(f"{source}/post/b", f"{parameter}/post/bias", SAME)]


def _blocks(source: str, parameter: str) -> list[Rule]:
    stack = f"{source}/transformers_stack/x_layers"
    return [*_norm(f"{stack}/layer_norm", f"{parameter}/norm1"),
            *_attention(f"{stack}/self_attention", f"{parameter}/attn"),
            *_norm(f"{stack}/ff_layer/layer_norm", f"{parameter}/norm2"),
            *_linear(f"{stack}/ff_layer/ffn_layer1", f"{parameter}/mlp/fc1"),
            *_linear(f"{stack}/ff_layer/ffn_layer2", f"{parameter}/mlp/fc2")]


def _encoder(source: str, parameter: str) -> list[Rule]:
    return [
        *_linear(f"{source}patch_projection", f"{parameter}/patch_projection"),
        *(rule for part in ("spatial", "temporal") for rule in (
            Rule(f"{source}{part}_pos_emb/emb_var",
                 f"{parameter}/{part}_positions", SAME),
            *_blocks(f"{source}{part}_encoder", f"{parameter}/{part}_blocks"),
            *_norm(f"{source}{part}_ln", f"{parameter}/{part}_norm")))]


_POOLER = f"{_ROOT}contrastive_vision_pooler/pooling_attention"
RULES = (
    *_encoder(_ROOT, "encoder"),
    *_encoder(f"{_ROOT}vision_encoder/", "vision_encoder"),
    *_blocks(f"{_ROOT}auxiliary_encoder", "auxiliary_blocks"),
    Rule(f"{_POOLER}_query", "pooler/token", SAME),
    *_attention(_POOLER, "pooler"),
    Rule(f"{_POOLER}/per_dim_scale/per_dim_scale", "pooler/dimension_scale",
         SAME),
    *_norm(f"{_POOLER}_layer_norm", "pooler/norm"),
)
HINTS = ("clip_frames", "image_size")
WRAPPERS = ()
JOINED: dict[str, tuple[str, ...]] = {}

_NUMBERED = re.compile(r"(.*/x_layers)_(\d+)(/.*)")
_HUGGING_FACE = re.compile(
    r"(^|\.)(spatial|temporal)_(embeddings\.position_embeddings"
    r"|layers\.\d+\.attention\.[qkvo]_proj\.)")


def recognizes(names: Iterable[str]) -> bool:
    """Returns whether a checkpoint is of this family, by its names."""
    return any(re.match(_ROOT + r"(vision_encoder/)?(spatial|temporal)_"
                        r"(encoder|pos_emb|ln)/", name)
               or _HUGGING_FACE.search(name) for name in names)


def rename_tensors(tensors: dict[str, Tensor], config: Path, notes: list[str]
                   ) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the video side's tensors by the table's names; no hints.

    Raises:
      InputError: the layout of Hugging Face.
    """
    if name := next(filter(_HUGGING_FACE.search, tensors), None):
        raise InputError(
            f"{tensors[name].path}: VideoPrism in the layout of Hugging Face, "
            "which is not supported: give the .npz file of Google's own "
            "repository, such as google/videoprism-base-f16r288")
    text = [name for name in tensors
            if name.startswith(f"{_ROOT}text_encoder/")]
    if text:
        notes.append(f"a video-text model: {len(text)} tensors of its text "
                     "encoder are dropped")
    return _stacked({name: tensor for name, tensor in tensors.items()
                     if name not in text}, notes), {}


def _stacked(tensors: dict[str, Tensor], notes: list[str]
             ) -> dict[str, Tensor]:
    """Stacks tensors that a file has for each block, where they have one shape
    and one dtype; the others keep their names."""
    groups: dict[str, dict[int, str]] = {}
    for name in tensors:
        if match := _NUMBERED.fullmatch(name):
            groups.setdefault(match[1] + match[3], {})[int(match[2])] = name
    if groups:
        notes.append("blocks are stored one by one: stacked")
    tensors = dict(tensors)
    for stacked, names in groups.items():
        parts = [tensors[names[number]] for number in sorted(names)]
        if (stacked in tensors or sorted(names) != list(range(len(names)))
                or len({(part.shape, part.dtype) for part in parts}) > 1):
            continue
        for name in names.values():
            del tensors[name]
        tensors[stacked] = Tensor(
            parts[0].path, (len(parts), *parts[0].shape), parts[0].dtype,
            functools.partial(_read_stacked, parts))
    return tensors


def _read_stacked(parts: list[Tensor]) -> np.ndarray:
    return np.stack([part.read() for part in parts])


def describe(spec: VideoPrismSpec) -> str:
    """Returns a line about a checkpoint."""
    name = size_name(spec)
    auxiliary = spec.auxiliary_depth
    return ((f"{name}: " if name else "")
            + f"{spec.spatial_depth} spatial and {spec.temporal_depth} "
            "temporal "
            + (f"and {auxiliary} auxiliary " if auxiliary else "")
            + f"blocks of width {spec.width}, {spec.heads} heads, MLP "
            f"{spec.mlp_width}; patch {spec.patch}, trained with clips of "
            f"{spec.position_frames} frames at {spec.image_size[0]} x "
            f"{spec.image_size[1]}"
            + ("; the video side of a video-text model" if auxiliary else ""))


def infer_spec(tensors: Mapping[str, Tensor], *,
               clip_frames: int | None = None,
               image_size: tuple[int, int] | None = None) -> VideoPrismSpec:
    """Returns the spec of a checkpoint.

    Sizes are what most tensors show: a missing, extra or misshapen one does
    not change the spec and is reported later.

    Args:
      tensors: by the table's names.
      clip_frames: None is the length of the temporal positions, or 16.
      image_size: (height, width) in pixels; None is square, as the spatial
        positions show, or 288.

    Raises:
      InputError: a size is neither shown nor given.
    """
    shapes = {name.removeprefix(_ROOT): tensor.shape
              for name, tensor in tensors.items()}
    is_text_aligned = any(name.startswith(("vision_encoder/", "auxiliary_"))
                          for name in shapes)
    prefix = "vision_encoder/" if is_text_aligned else ""

    def shown(pattern: str, axis: int, least: int) -> int:
        """Returns the size of an axis that most tensors show, 0 if none."""
        sizes = [shape[axis] for name, shape in shapes.items()
                 if re.search(pattern, name) and len(shape) >= least]
        return mode(sizes) if sizes else 0

    depths = [shown(f"^{part}_encoder/transformers_stack/x_layers/", 0, 2)
              for part in (f"{prefix}spatial", f"{prefix}temporal",
                           "auxiliary")]
    width = shown(r"x_layers/.*layer_norm/|post/b$|ffn_layer2/", -1, 1)
    mlp_width = shown(r"ffn_layer1/", -1, 1)
    heads = shown(r"self_attention/(query|key|value)/|post/w$", -2, 2)
    if not (all(depths[:2]) and width and mlp_width and heads):
        raise InputError("no VideoPrism encoder: its spatial or temporal "
                         "blocks are missing; give a checkpoint of VideoPrism")
    pixels = shapes.get(f"{prefix}patch_projection/linear/kernel", (0,))[0]
    patch = math.isqrt(pixels // 3) or 18
    times = shapes.get(f"{prefix}temporal_pos_emb/emb_var", (0,))[0] or 16
    places = shapes.get(f"{prefix}spatial_pos_emb/emb_var", (0,))[0]
    if image_size is None:
        side = math.isqrt(places)
        if side ** 2 != places:
            raise InputError(f"{places} spatial positions are no square: give "
                             "the size of the frames (--image_size=H,W)")
        image_size = (side * patch or 288, side * patch or 288)
    return VideoPrismSpec(
        width=width, depth=sum(depths), heads=heads, mlp_width=mlp_width,
        patch=patch, clip_frames=clip_frames or times, image_size=image_size,
        temporal_depth=depths[1], auxiliary_depth=depths[2],
        position_frames=times)
