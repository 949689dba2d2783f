"""V-JEPA 2's table of names, and the layouts of its public checkpoints.

The table has the names of Meta's code (github.com/facebookresearch/vjepa2);
those of Hugging Face's transformers (models/vjepa2) are first renamed to them.
Versions 2 and 2.1 share the table. The package's docstring explains each
definition.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mode
from typing import Any

from losa_jax.errors import InputError
from losa_jax.models.backbones import size_name
from losa_jax.models.backbones.vjepa2 import NORMED_BLOCKS, SIZES, VJepa2Spec
from losa_jax.utils.text_files import read_json
from losa_jax.weights.checkpoint_file import open_file, state_dict
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

TITLE = "V-JEPA 2"
# Of all of Meta's probes, whatever the width.
PROBE_HEADS = 16
_VECTOR = Layout(lambda array, spec: array.reshape(spec.width),
                 lambda array, spec: array.reshape(1, 1, spec.width))


def _linear(source: str, parameter: str) -> tuple[Rule, Rule]:
    return (Rule(f"{source}.weight", f"{parameter}/kernel", LINEAR),
            Rule(f"{source}.bias", f"{parameter}/bias", SAME))


def _norm(source: str, parameter: str) -> tuple[Rule, Rule]:
    return (Rule(f"{source}.weight", f"{parameter}/scale", SAME),
            Rule(f"{source}.bias", f"{parameter}/bias", SAME))


def _block(source: str, parameter: str) -> tuple[Rule, ...]:
    return (*_norm(f"{source}.norm1", f"{parameter}/norm1"),
            *_linear(f"{source}.attn.qkv", f"{parameter}/attn/qkv"),
            *_linear(f"{source}.attn.proj", f"{parameter}/attn/proj"),
            *_norm(f"{source}.norm2", f"{parameter}/norm2"),
            *_linear(f"{source}.mlp.fc1", f"{parameter}/mlp/fc1"),
            *_linear(f"{source}.mlp.fc2", f"{parameter}/mlp/fc2"))


_CROSS = "pooler.cross_attention_block"
RULES = (
    Rule("patch_embed.proj.weight", "patch_embed/kernel", CONV),
    Rule("patch_embed.proj.bias", "patch_embed/bias", SAME),
    Rule("patch_embed_img.proj.weight", "image_embed/kernel", CONV),
    Rule("patch_embed_img.proj.bias", "image_embed/bias", SAME),
    Rule("video_mod_embed", "video_vector", _VECTOR),
    Rule("img_mod_embed", "image_vector", _VECTOR),
    *_block("blocks.{i}", "blocks"),
    *_norm("norm", "norm"),
    *_norm("norms_block.{i}", "norms"),
    Rule("pooler.query_tokens", "probe/query", _VECTOR),
    *_block("pooler.blocks.{i}", "probe/blocks"),
    *_norm(f"{_CROSS}.norm1", "probe/cross/norm1"),
    *_linear(f"{_CROSS}.xattn.q", "probe/cross/query"),
    *_linear(f"{_CROSS}.xattn.kv", "probe/cross/key_value"),
    *_norm(f"{_CROSS}.norm2", "probe/cross/norm2"),
    *_linear(f"{_CROSS}.mlp.fc1", "probe/cross/mlp/fc1"),
    *_linear(f"{_CROSS}.mlp.fc2", "probe/cross/mlp/fc2"),
    *_linear("linear", "probe/classifier"),
)

HINTS = ("heads", "clip_frames", "image_size", "depth", "norm_epsilon",
         "rescales_positions", "probe_heads", "probe_blocks",
         "probe_norm_epsilon")
# The moving average, which is "ema_encoder" where a model was distilled and
# "target_encoder" may be its teacher.
WRAPPERS = ("ema_encoder", "target_encoder", "encoder")
# Hugging Face keeps three matrices, and two in the cross-attention.
JOINED = {
    f"{layer}.{joined}.{name}": tuple(f"{layer}.{part}.{name}"
                                      for part in parts)
    for layer, joined, parts in (
        ("blocks.{i}.attn", "qkv", ("query", "key", "value")),
        ("pooler.blocks.{i}.attn", "qkv", ("q", "k", "v")),
        (f"{_CROSS}.xattn", "kv", ("k", "v")))
    for name in ("weight", "bias")}

# What may precede the names: of Meta's wrappers, of Hugging Face's classifier.
_OUTER = r"(?:(?:module|model|backbone|vjepa2)\.)*"
_LAYER = r"encoder\.layer\.(\d+)\."
_POOLER = r"pooler\.self_attention_layers\.(\d+)\."
_POOLER_CROSS = r"pooler\.cross_attention_layer\."
HUGGING_FACE_NAMES = (
    (r"encoder\.embeddings\.patch_embeddings\.(.+)", r"patch_embed.\1"),
    (_LAYER + r"attention\.(.+)", r"blocks.\1.attn.\2"),
    (_LAYER + r"(.+)", r"blocks.\1.\2"),
    (r"encoder\.layernorm\.(.+)", r"norm.\1"),
    (_POOLER + r"layer_norm(.+)", r"pooler.blocks.\1.norm\2"),
    (_POOLER + r"self_attn\.out_proj\.(.+)", r"pooler.blocks.\1.attn.proj.\2"),
    (_POOLER + r"self_attn\.(q|k|v)_proj\.(.+)",
     r"pooler.blocks.\1.attn.\2.\3"),
    (_POOLER + r"(.+)", r"pooler.blocks.\1.\2"),
    (_POOLER_CROSS + r"layer_norm(.+)", rf"{_CROSS}.norm\1"),
    (_POOLER_CROSS + r"cross_attn\.(q|k|v)_proj\.(.+)",
     rf"{_CROSS}.xattn.\1.\2"),
    (_POOLER_CROSS + r"(.+)", rf"{_CROSS}.\1"),
    (r"classifier\.(.+)", r"linear.\1"),
)


def recognizes(names: Iterable[str]) -> bool:
    """Returns whether a checkpoint is of this family, by its names."""
    names = tuple(names)
    # Image transformers have the same blocks after a class token.
    return any(re.match(
        _OUTER + r"(?:blocks\.\d+\.attn\.qkv\.bias$"
        r"|encoder\.layer\.\d+\.attention\.(?:query|key|value|proj)\.)", name)
        for name in names) and not any(
            name.rpartition(".")[2] == "cls_token" for name in names)


def rename_tensors(tensors: dict[str, Tensor], config: Path, notes: list[str]
                   ) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors by the table's names, and hints of a config.

    Raises:
      InputError: two tensors are the same, or the config is not V-JEPA 2's.
    """
    tensors = rename(tensors, [(_OUTER + "(.*)", r"\1")])
    tensors = _without(tensors, r"predictor\.", "of the predictor", notes)
    if any(name.startswith("encoder.layer.") for name in tensors):
        notes.append("Hugging Face names")
        return rename(tensors, HUGGING_FACE_NAMES), _hugging_face_hints(config)
    notes.append("Meta's names")
    return _without(tensors, "pos_embed$", "of unused positions (V-JEPA 2 has "
                    "rotary ones; the first V-JEPA, whose tensors have the "
                    "same names, needs them and is not supported)", notes), {}


def _without(tensors: dict[str, Tensor], pattern: str, title: str,
             notes: list[str]) -> dict[str, Tensor]:
    kept = {name: tensor for name, tensor in tensors.items()
            if not re.match(pattern, name)}
    if dropped := len(tensors) - len(kept):
        notes.append(f"{dropped} tensors {title} are dropped")
    return kept


def probe_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of an attentive probe's file, by the table's names.

    Meta's files list one probe for each learning rate; the first is taken, as
    in the public code.

    Raises:
      InputError: not such a file.
    """
    content, _ = open_file(path)
    probes = content.get("classifiers") if isinstance(content, Mapping) else 0
    if isinstance(probes, list) and probes:
        content = probes[0]
    tensors = rename(state_dict(content)[0], [(_OUTER + "(.*)", r"\1")])
    if "pooler.query_tokens" not in tensors:
        some = ", ".join(map(str, [*content][:5] if isinstance(
            content, Mapping) else [])) or "nothing that has a name"
        raise InputError(f"{path}: no attentive probe; it begins with {some}: "
                         "give one of Meta's probe files for V-JEPA 2")
    return tensors


def _hugging_face_hints(path: Path) -> dict[str, Any]:
    remedy = "put the config.json of the same model beside the weights"
    facts = read_json(path, remedy)
    try:
        for key, value in (("model_type", "vjepa2"), ("hidden_act", "gelu"),
                           ("qkv_bias", True)):
            if facts.get(key, value) != value:
                raise InputError(
                    f"{path}: {key}={facts[key]!r}, but the tensors beside it "
                    f"are those of V-JEPA 2, with {value!r}: fetch the config "
                    "and the weights of one model")
        heads, size = facts["num_attention_heads"], facts["crop_size"]
        numbers = {"heads": heads, "clip_frames": facts["frames_per_clip"],
                   "depth": facts["num_hidden_layers"], "probe_heads": heads}
        size = tuple(size) if isinstance(size, list) else (size, size)
        if wrong := [number for number in (*numbers.values(), *size)
                     if type(number) is not int or number < 1]:
            raise ValueError(f"{wrong[0]!r} is no number of 1 or more")
        return {**numbers, "image_size": size,
                "norm_epsilon": facts["layer_norm_eps"],
                "probe_norm_epsilon": facts["layer_norm_eps"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the config of a V-JEPA 2 model "
                         f"({error!r}); {remedy}") from error


def describe(spec: VJepa2Spec) -> str:
    """Returns a line about a checkpoint."""
    name = size_name(spec)
    read = (f" of blocks {', '.join(map(str, spec.probe_blocks))}"
            if spec.probe_blocks else "")
    return ((f"{name}: " if name else "")
            + f"V-JEPA {spec.version}, {spec.depth} blocks of width "
            f"{spec.width}, {spec.heads} heads, MLP {spec.mlp_width}; patch "
            f"{spec.patch}, clips of {spec.clip_frames} frames at "
            f"{spec.image_size[0]} x {spec.image_size[1]}; "
            + (f"attentive classifier{read} with {spec.probe_heads} heads, "
               f"{spec.num_classes} classes" if spec.num_classes
               else "no classifier"))


def infer_spec(tensors: Mapping[str, Tensor], *, heads: int | None = None,
               clip_frames: int | None = None,
               image_size: tuple[int, int] | None = None,
               depth: int | None = None, norm_epsilon: float = 1e-6,
               rescales_positions: bool | None = None,
               probe_heads: int | None = None,
               probe_blocks: tuple[int, ...] = (),
               probe_norm_epsilon: float = 1e-5) -> VJepa2Spec:
    """Returns the spec of a checkpoint.

    Sizes are what most tensors show: a missing, extra or misshapen one does
    not change the spec and is reported later.

    Args:
      tensors: by the table's names.
      heads, probe_heads: None is that of the public encoder of this width, and
        `PROBE_HEADS`.
      clip_frames: None is 64.
      image_size: None is 256 x 256, or 384 x 384 for V-JEPA 2.1.
      rescales_positions: None is whether this is V-JEPA 2.1.
      probe_blocks, probe_norm_epsilon: see `VJepa2Spec`; Meta's by default.

    Raises:
      InputError: a size is neither shown nor given.
    """
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    by_block = block_shapes(shapes, RULES, "blocks.")
    widths = [shape[-1] for name, all_shapes in by_block.items()
              if re.match(r"norm|.*proj\.|.*qkv\.weight|.*fc1\.weight", name)
              for shape in all_shapes.values() if shape]
    mlp_widths = [shape[0] for name in ("mlp.fc1.weight", "mlp.fc1.bias")
                  for shape in by_block[name].values() if shape]
    if not (widths and mlp_widths):
        raise InputError("no V-JEPA 2 encoder: its blocks are missing; give a "
                         "checkpoint of V-JEPA 2 or 2.1")
    width, mlp_width = mode(widths), mode(mlp_widths)
    depth = depth or mode(1 + max(numbers) for numbers in by_block.values()
                          if numbers)
    modules = {name.rpartition(".")[0] for name in tensors}
    is_v21 = "norms_block.0" in modules or "video_mod_embed" in tensors
    if is_v21 and depth not in NORMED_BLOCKS:
        raise InputError(
            f"{depth} blocks, but V-JEPA 2.1 has "
            f"{', '.join(map(str, NORMED_BLOCKS))}: blocks are missing or "
            "left over; fetch the checkpoint again")
    # A missing or misshapen kernel is reported later; go on with Meta's.
    kernel = shapes.get("patch_embed.proj.weight", ())
    tubelet, patch = (kernel[2:4] if len(kernel) == 5 and 0 not in kernel
                      else (2, min(16, *(image_size or (16,)))))
    side = (384 if is_v21 else 256) // patch * patch
    probe: dict[str, Any] = {}
    if "linear" in modules or "pooler.query_tokens" in tensors:
        probe = _probe_sizes(shapes, width, probe_heads) | {
            "probe_blocks": probe_blocks,
            "probe_norm_epsilon": probe_norm_epsilon}
    return VJepa2Spec(
        width=width, depth=depth, mlp_width=mlp_width, patch=patch,
        heads=_heads(width, depth, mlp_width, heads), tubelet=tubelet,
        clip_frames=clip_frames or 64, image_size=image_size or (side, side),
        version="2.1" if is_v21 else "2",
        rescales_positions=(is_v21 if rescales_positions is None
                            else rescales_positions),
        norm_epsilon=norm_epsilon, **probe)


def _probe_sizes(shapes: Mapping[str, tuple[int, ...]], width: int,
                 heads: int | None) -> dict[str, int]:
    if heads is None and width % PROBE_HEADS:
        raise InputError(
            "the heads of the attentive classifier are in no tensor, and "
            f"Meta's {PROBE_HEADS} do not divide the width {width}: give "
            "--probe_heads=N")
    blocks = block_shapes(shapes, RULES, "pooler.blocks.").values()
    classes = (*shapes.get("linear.bias", ()),
               *shapes.get("linear.weight", ()), 1)
    return {"num_classes": classes[0], "probe_heads": heads or PROBE_HEADS,
            "probe_depth": max((1 + max(numbers) for numbers in blocks
                                if numbers), default=0)}


def _heads(width: int, depth: int, mlp_width: int, heads: int | None) -> int:
    public = {size["heads"] for size in SIZES.values()
              if size["width"] == width}
    if heads is None and not public:
        raise InputError(
            f"width {width} is none of V-JEPA 2's "
            f"{sorted({size['width'] for size in SIZES.values()})}: give the "
            "number of attention heads (--heads=N)")
    heads = heads or min(public)
    if width % heads:
        raise InputError(f"{heads} heads do not divide the width {width}: "
                         "give another --heads=N")
    for size in SIZES.values():
        if heads != size["heads"] and (width, depth, mlp_width) == (
                size["width"], size["depth"], size["mlp_width"]):
            raise InputError(f"{heads} heads, but V-JEPA 2's encoder of width "
                             f"{width} and {depth} blocks has "
                             f"{size['heads']}: leave out --heads")
    return heads
