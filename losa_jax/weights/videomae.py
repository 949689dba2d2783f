"""VideoMAE's table of names, and the layouts of its public checkpoints.

The table has the names of VideoMAEv2 (github.com/OpenGVLab/VideoMAEv2); those
of Hugging Face's transformers (models/videomae), OpenTAD and mmaction2 are
first renamed to them. The package's docstring explains each definition.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mode
from typing import Any

from losa_jax.errors import InputError
from losa_jax.models.backbones import size_name
from losa_jax.models.backbones.videomae import SIZES, VideoMaeSpec
from losa_jax.utils.text_files import read_json
from losa_jax.weights.rules import (
    CONV,
    LINEAR,
    SAME,
    Layout,
    Rule,
    block_shapes,
    rename,
)
from losa_jax.weights.torch_pickle import Tensor

TITLE = "VideoMAE"
# No tensor's shape shows the number of heads.
HEADS_OF_WIDTH = {size["width"]: size["heads"] for size in SIZES.values()}
_POSITIONS = Layout(
    lambda array, spec: array.reshape(spec.clip_tokens, *spec.grid,
                                      spec.width),
    lambda array, spec: array.reshape(1, -1, spec.width))
_HEADS = Layout(lambda array, spec: array.reshape(spec.heads),
                lambda array, spec: array.reshape(spec.heads, 1, 1))

RULES = (
    Rule("patch_embed.proj.weight", "patch_embed/kernel", CONV),
    Rule("patch_embed.proj.bias", "patch_embed/bias", SAME),
    Rule("pos_embed", "pos_embed", _POSITIONS),
    Rule("blocks.{i}.norm1.weight", "blocks/norm1/scale", SAME),
    Rule("blocks.{i}.norm1.bias", "blocks/norm1/bias", SAME),
    Rule("blocks.{i}.attn.qkv.weight", "blocks/attn/qkv/kernel", LINEAR),
    Rule("blocks.{i}.attn.q_bias", "blocks/attn/q_bias", SAME),
    Rule("blocks.{i}.attn.v_bias", "blocks/attn/v_bias", SAME),
    Rule("blocks.{i}.attn.scale", "blocks/attn/logit_scale", _HEADS),
    Rule("blocks.{i}.attn.proj.weight", "blocks/attn/proj/kernel", LINEAR),
    Rule("blocks.{i}.attn.proj.bias", "blocks/attn/proj/bias", SAME),
    Rule("blocks.{i}.norm2.weight", "blocks/norm2/scale", SAME),
    Rule("blocks.{i}.norm2.bias", "blocks/norm2/bias", SAME),
    Rule("blocks.{i}.mlp.fc1.weight", "blocks/mlp/fc1/kernel", LINEAR),
    Rule("blocks.{i}.mlp.fc1.bias", "blocks/mlp/fc1/bias", SAME),
    Rule("blocks.{i}.mlp.fc2.weight", "blocks/mlp/fc2/kernel", LINEAR),
    Rule("blocks.{i}.mlp.fc2.bias", "blocks/mlp/fc2/bias", SAME),
    Rule("blocks.{i}.gamma_1", "blocks/gamma_1", SAME),
    Rule("blocks.{i}.gamma_2", "blocks/gamma_2", SAME),
    Rule("norm.weight", "norm/scale", SAME),
    Rule("norm.bias", "norm/bias", SAME),
    Rule("fc_norm.weight", "fc_norm/scale", SAME),
    Rule("fc_norm.bias", "fc_norm/bias", SAME),
    Rule("head.weight", "classifier/kernel", LINEAR),
    Rule("head.bias", "classifier/bias", SAME),
)

HINTS = ("heads", "clip_frames", "image_size", "depth", "norm_epsilon",
         "final_norm_epsilon")
WRAPPERS = ()
# Hugging Face keeps three matrices.
JOINED = {"blocks.{i}.attn.qkv.weight": tuple(
    f"blocks.{{i}}.attn.{part}.weight" for part in ("query", "key", "value"))}

# What may precede the names of the encoder.
_OUTER = r"(?:(?:module|model|backbone)\.)*"
_BLOCK = re.compile(_OUTER + r"(?:videomae\.)?(?:encoder\.)?(?="
                    r"(?:blocks|encoder\.layer)\.\d+\.)")
_LAYER = r"encoder\.layer\.(\d+)\."
HUGGING_FACE_NAMES = (
    (r"embeddings\.patch_embeddings\.projection\.(.+)", r"patch_embed.proj.\1"),
    (_LAYER + r"attention\.attention\.(query|key|value)\.weight",
     r"blocks.\1.attn.\2.weight"),
    (_LAYER + r"attention\.attention\.(q|k|v)(?:uery|ey|alue)?[._]bias",
     r"blocks.\1.attn.\2_bias"),
    (_LAYER + r"attention\.output\.dense\.(.+)", r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"layernorm_before\.(.+)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"layernorm_after\.(.+)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"intermediate\.dense\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"output\.dense\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(.+)", r"norm.\1"),
    (r"classifier\.(.+)", r"head.\1"),
)
OPENTAD_NAMES = (
    (r"patch_embed\.projection\.(.+)", r"patch_embed.proj.\1"),
    (r"blocks\.(\d+)\.mlp\.layers\.0\.0\.(.+)", r"blocks.\1.mlp.fc1.\2"),
    (r"blocks\.(\d+)\.mlp\.layers\.1\.(.+)", r"blocks.\1.mlp.fc2.\2"),
    (r"cls_head\.fc_cls\.(.+)", r"head.\1"),
)


def recognizes(names: Iterable[str]) -> bool:
    """Returns whether a checkpoint is of this family, by its names."""
    # Only VideoMAE has biases on query and value alone.
    return any(re.search(
        r"(^|\.)(blocks\.\d+\.attn\.[qv]_bias$"
        r"|encoder\.layer\.\d+\.attention\.attention\.)", name)
        for name in names)


def rename_tensors(tensors: dict[str, Tensor], config: Path, notes: list[str]
                   ) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors by the table's names, and hints of a config.

    Raises:
      InputError: two tensors are the same, or the config is not VideoMAE's.
    """
    tensors = _without_decoder(tensors, notes)
    prefix = max((match[0] for name in tensors
                  if (match := _BLOCK.match(name))), key=len, default="")
    if prefix:
        notes.append(f"prefix {prefix!r} stripped")
        # Names outside a prefix keep theirs, as the classifier's.
        optional = "".join(rf"(?:{part}\.)?" for part in prefix.split(".")[:-1])
        tensors = rename(tensors, [(optional + "(.*)", r"\1")])
    if any(name.startswith("patch_embed.projection.") for name in tensors):
        notes.append("OpenTAD (mmaction2) names")
        return rename(tensors, OPENTAD_NAMES), {}
    if not any(name.startswith("encoder.layer.") for name in tensors):
        notes.append("VideoMAEv2 names")
        return tensors, {}
    notes.append("Hugging Face names")
    tensors = rename(tensors, HUGGING_FACE_NAMES)
    for name in list(tensors):
        # A bias on the keys has no effect; VideoMAE's is always zero.
        if name.endswith(".attn.k_bias") and not tensors[name].read().any():
            del tensors[name]
            notes.append(f"{name} is zero, as it must be: dropped")
    return tensors, _hugging_face_hints(config)


def _without_decoder(tensors: dict[str, Tensor], notes: list[str]
                     ) -> dict[str, Tensor]:
    decoder = {name for name in tensors if re.match(
        _OUTER + r"(?:decoder\.|encoder_to_decoder|mask_token)", name)}
    if not decoder or not any(re.match(_OUTER + r"(?:encoder|videomae)\.",
                                       name) for name in tensors):
        return tensors
    notes.append(f"a pre-training checkpoint: {len(decoder)} tensors of its "
                 "decoder are dropped")
    return {name: tensor for name, tensor in tensors.items()
            if name not in decoder}


def _hugging_face_hints(path: Path) -> dict[str, Any]:
    remedy = "put the config.json of the same model beside the weights"
    try:
        facts = read_json(path, remedy)
        size = facts["image_size"]
        if facts.get("hidden_act", "gelu") != "gelu":
            raise InputError(f"{path}: hidden_act={facts['hidden_act']!r}; "
                             "only VideoMAE's gelu is supported")
        epsilon = facts["layer_norm_eps"]
        # fc_norm always has torch's default there.
        has_fc_norm = facts.get("use_mean_pooling", True)
        return {"heads": facts["num_attention_heads"],
                "clip_frames": facts["num_frames"],
                "depth": facts.get("num_hidden_layers"),
                "image_size": tuple(size) if isinstance(size, list)
                else (size, size),
                "norm_epsilon": epsilon,
                "final_norm_epsilon": 1e-5 if has_fc_norm else epsilon}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the config of a VideoMAE model "
                         f"({error!r}); {remedy}") from error


def describe(spec: VideoMaeSpec) -> str:
    """Returns a line about a checkpoint."""
    name = size_name(spec)
    usual = {size["depth"] for size in SIZES.values()
             if size["width"] == spec.width} - {spec.depth}
    return ((f"{name.replace('_', '-')}: " if name else "")
            + f"{spec.depth} blocks of width {spec.width}"
            + (f" (VideoMAE's have {min(usual)} blocks)" if usual else "")
            + f", {spec.heads} heads, "
            f"MLP {spec.mlp_width}; patch {spec.patch}, clips of "
            f"{spec.clip_frames} frames at {spec.image_size[0]} x "
            f"{spec.image_size[1]}; positions {spec.positions}, final norm "
            f"{spec.final_norm}, "
            + (f"{spec.num_classes} classes" if spec.num_classes
               else "no classifier")
            + (", LayerScale" if spec.layer_scale else "")
            + (", cosine attention" if spec.cosine_attention else ""))


def infer_spec(tensors: Mapping[str, Tensor], *, heads: int | None = None,
               clip_frames: int | None = None,
               image_size: tuple[int, int] | None = None,
               depth: int | None = None, norm_epsilon: float = 1e-6,
               final_norm_epsilon: float = 1e-6) -> VideoMaeSpec:
    """Returns the spec of a checkpoint.

    Sizes are what most tensors show: a missing, extra or misshapen one does
    not change the spec and is reported later.

    Args:
      tensors: by the table's names.
      heads, depth: None is what the tensors show, or VideoMAE's heads for
        the width.
      clip_frames: None is what learned positions show, or 16.
      image_size: (height, width) in pixels; None is square, as learned
        positions show, or 224.
      norm_epsilon, final_norm_epsilon: VideoMAEv2's by default.

    Raises:
      InputError: a size is neither shown nor given.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    blocks = block_shapes(shapes, RULES, "blocks.")
    widths = [
        shape[-1] for name, by_block in blocks.items()
        if name not in ("mlp.fc1.bias", "mlp.fc2.weight", "attn.scale")
        for shape in by_block.values() if shape]
    mlp_widths = [
        shape[0] for name in ("mlp.fc1.weight", "mlp.fc1.bias")
        for shape in blocks[name].values() if shape]
    if not (widths and mlp_widths):
        raise InputError("no VideoMAE encoder: its blocks are missing; give a "
                         "checkpoint of VideoMAE or VideoMAEv2")
    width = mode(widths)
    depth = depth or mode(1 + max(by_block) for by_block in blocks.values()
                          if by_block)
    # A missing or misshapen kernel is reported later; go on with VideoMAE's.
    tubelet, patch = 2, min((16, *(image_size or ())))
    kernel = shapes.get("patch_embed.proj.weight", ())
    has_patch = len(kernel) == 5 and 0 not in kernel
    if has_patch:
        tubelet, patch = kernel[2:4]
    positions = shapes.get("pos_embed", ())
    clip_frames, image_size = _clip_size(
        positions[1] if len(positions) == 3 else 0, tubelet, patch,
        clip_frames, image_size)
    if has_patch and any(size % patch for size in image_size):
        raise InputError(f"patches of {patch} pixels do not fill "
                         f"{image_size}: give another --image_size=H,W")
    modules = {name.rpartition(".")[0] for name in tensors}
    num_classes = 0
    if "head" in modules:
        weight, bias = (shapes.get(f"head.{name}", ())
                        for name in ("weight", "bias"))
        fits = len(weight) == 2 and weight[1] == width
        num_classes = (weight if fits else (*bias, *weight, 1))[0]
    # A classifier always follows a norm, which may be missing.
    final_norm = next((name for name in ("fc_norm", "norm")
                       if name in modules),
                      "fc_norm" if "head" in modules else "none")
    gammas = len(blocks["gamma_1"]) + len(blocks["gamma_2"])
    scales = blocks["attn.scale"]
    return VideoMaeSpec(
        width=width, depth=depth, mlp_width=mode(mlp_widths),
        heads=_heads(width, heads, scales.values()),
        patch=patch, tubelet=tubelet,
        clip_frames=clip_frames, image_size=image_size,
        positions="learned" if "pos_embed" in tensors else "sincos",
        layer_scale=gammas > depth,  # of two in each block
        cosine_attention=2 * len(scales) >= depth,
        final_norm=final_norm, num_classes=num_classes,
        norm_epsilon=norm_epsilon, final_norm_epsilon=final_norm_epsilon)


def _heads(width: int, heads: int | None,
           scales: Iterable[tuple[int, ...]]) -> int:
    shown = [shape[0] for shape in scales if len(shape) == 3]
    heads = heads or (mode(shown) if shown else HEADS_OF_WIDTH.get(width))
    if heads is None:
        raise InputError(f"width {width} is none of VideoMAE's "
                         f"{sorted(HEADS_OF_WIDTH)}: give the number of "
                         "attention heads (--heads=N)")
    if width % heads:
        raise InputError(f"{heads} heads do not divide the width {width}: "
                         "give another --heads=N")
    return heads


def _clip_size(positions: int, tubelet: int, patch: int,
               clip_frames: int | None, image_size: tuple[int, int] | None
               ) -> tuple[int, tuple[int, int]]:
    """Returns frames and (height, width) of a clip.

    `positions` is the number of learned positions, or 0.
    """
    if clip_frames is None:
        rows, columns = (size // patch for size in image_size or (0, 0))
        patches = rows * columns
        clip_frames = (positions // patches * tubelet
                       if patches and positions and positions % patches == 0
                       else 16)
    if clip_frames % tubelet:
        raise InputError(f"clips of {clip_frames} frames: give --frames=N, a "
                         f"multiple of the tubelet's {tubelet} frames")
    if image_size is None:
        side = 224 // patch
        grid = round((positions / (clip_frames // tubelet)) ** 0.5)
        if grid and grid * grid * (clip_frames // tubelet) == positions:
            side = grid
        image_size = (side * patch, side * patch)
    return clip_frames, image_size
