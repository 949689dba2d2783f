"""VideoMAE's weights: the table of names, and the layouts that circulate.

Names on the left are those of VideoMAEv2's model definition
(github.com/OpenGVLab/VideoMAEv2); those of Hugging Face's transformers
(models/videomae) and of OpenTAD and mmaction2 are first renamed to them. See
the package for what each name here is for.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from losa_jax.errors import InputError
from losa_jax.models.backbones.sizes import size_name
from losa_jax.models.backbones.videomae import SIZES, VideoMaeSpec
from losa_jax.weights.checkpoint_file import Tensor
from losa_jax.weights.name_table import (
    CONV,
    LINEAR,
    SAME,
    Layout,
    Renamed,
    Rule,
    rename,
)

TITLE = "VideoMAE"
# The number of heads is in no tensor's shape.
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

# Fields of the spec that tensors may not tell.
HINTS = ("heads", "clip_frames", "image_size", "depth", "norm_epsilon",
         "final_norm_epsilon")
# Hugging Face's parts.
JOINED = {"blocks.{i}.attn.qkv.weight": tuple(
    f"blocks.{{i}}.attn.{part}.weight" for part in ("query", "key", "value"))}

# What may stand before the encoder's names, outermost first.
_PREFIXES = ("module.", "model.", "backbone.", "videomae.", "encoder.")
_LAYER = r"encoder\.layer\.(\d+)\."
HUGGING_FACE_NAMES = (
    (r"embeddings\.patch_embeddings\.projection\.(weight|bias)",
     r"patch_embed.proj.\1"),
    (_LAYER + r"attention\.attention\.(query|key|value)\.weight",
     r"blocks.\1.attn.\2.weight"),
    (_LAYER + r"attention\.attention\.(q|v)_bias", r"blocks.\1.attn.\2_bias"),
    (_LAYER + r"attention\.attention\.(q|v)(?:uery|alue)\.bias",
     r"blocks.\1.attn.\2_bias"),
    (_LAYER + r"attention\.attention\.key\.bias",
     r"blocks.\1.attn.k_bias"),
    (_LAYER + r"attention\.output\.dense\.(weight|bias)",
     r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"layernorm_before\.(weight|bias)", r"blocks.\1.norm1.\2"),
    (_LAYER + r"layernorm_after\.(weight|bias)", r"blocks.\1.norm2.\2"),
    (_LAYER + r"intermediate\.dense\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"output\.dense\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(weight|bias)", r"norm.\1"),
    (r"fc_norm\.(weight|bias)", r"fc_norm.\1"),
    (r"classifier\.(weight|bias)", r"head.\1"),
)
OPENTAD_NAMES = (
    (r"patch_embed\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"blocks\.(\d+)\.mlp\.layers\.0\.0\.(weight|bias)",
     r"blocks.\1.mlp.fc1.\2"),
    (r"blocks\.(\d+)\.mlp\.layers\.1\.(weight|bias)",
     r"blocks.\1.mlp.fc2.\2"),
    (r"cls_head\.fc_cls\.(weight|bias)", r"head.\1"),
)


def recognizes(names: Iterable[str]) -> bool:
    """Whether a checkpoint is of this family, by names as in the file.

    Biases on query and value alone are VideoMAE's; other transformers have
    one of all three.
    """
    return any(re.search(
        r"(^|\.)(blocks\.\d+\.attn\.[qv]_bias$"
        r"|encoder\.layer\.\d+\.attention\.attention\.)", name)
        for name in names)


def rename_tensors(tensors: dict[str, Tensor], config: Path) -> Renamed:
    """Returns the tensors by the table's names.

    Args:
      tensors: by names as in the file.
      config: Hugging Face's config.json; read where the names are theirs,
        which tell neither heads nor epsilons.

    Raises:
      InputError: two tensors are the same, or the config is no VideoMAE's.
    """
    notes: list[str] = []
    hints: dict[str, Any] = {}
    layout = "VideoMAEv2"
    tensors = _strip_prefixes(tensors, notes)
    if any(name.startswith("patch_embed.projection.") for name in tensors):
        layout = "OpenTAD (mmaction2)"
        tensors = rename(tensors, OPENTAD_NAMES)
    if any(name.startswith("encoder.layer.") for name in tensors):
        layout = "Hugging Face"
        hints = _hugging_face_hints(config)
        tensors = rename(tensors, HUGGING_FACE_NAMES)
        for name in [name for name in tensors
                     if name.endswith(".attn.k_bias")]:
            # The softmax does not see it; VideoMAE's is zero by construction.
            if not tensors[name].read().any():
                del tensors[name]
                notes.append(f"{name} is zero, as it must be: dropped")
    return Renamed(tensors, hints, tuple(notes), layout)


def _strip_prefixes(tensors: dict[str, Tensor], notes: list[str]
                    ) -> dict[str, Tensor]:
    """Takes off what stands before the encoder's names.

    Names outside a prefix keep theirs: they are the classifier's, or are
    reported as unexpected later.
    """
    for prefix in _PREFIXES:
        if prefix == "videomae.":  # outer prefixes are off by now
            tensors = _drop_decoder(tensors, notes)
        is_encoder = any(re.match(
            re.escape(prefix) + r"(.+\.)?(blocks\.\d+|encoder\.layer\.\d+)\.",
            name) for name in tensors)
        nested = prefix == "encoder." and any(
            name.startswith("encoder.layer.") for name in tensors)
        if is_encoder and not nested:
            notes.append(f"prefix {prefix!r} stripped")
            tensors = rename(tensors, [(re.escape(prefix) + "(.*)", r"\1")])
    return tensors


def _drop_decoder(tensors: dict[str, Tensor], notes: list[str]
                  ) -> dict[str, Tensor]:
    decoder = {name for name in tensors if re.match(
        r"(decoder\.|encoder_to_decoder|mask_token)", name)}
    if not decoder or not any(name.startswith(("encoder.", "videomae."))
                              for name in tensors):
        return tensors
    notes.append(f"a pre-training checkpoint: {len(decoder)} tensors of its "
                 "decoder are dropped")
    return {name: tensor for name, tensor in tensors.items()
            if name not in decoder}


def _hugging_face_hints(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; a Hugging Face folder has "
                         "config.json and model.safetensors")
    try:
        facts = json.loads(path.read_text())
        size = facts["image_size"]
        size = tuple(size) if isinstance(size, list) else (size, size)
        if facts.get("hidden_act", "gelu") != "gelu":
            raise InputError(f"{path}: hidden_act={facts['hidden_act']!r}; "
                             "only VideoMAE's gelu is supported")
        epsilon = facts["layer_norm_eps"]
        hints = {"heads": facts["num_attention_heads"],
                 "clip_frames": facts["num_frames"],
                 "depth": facts.get("num_hidden_layers"),
                 "image_size": size, "norm_epsilon": epsilon}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the config of a VideoMAE model "
                         f"({error!r}); give its .safetensors file itself, "
                         "with --heads, --frames and --image_size"
                         ) from error
    # fc_norm is built with torch's default there, whatever the config says.
    return hints | {"final_norm_epsilon": 1e-5 if facts.get(
        "use_mean_pooling", True) else epsilon}


def describe(spec: VideoMaeSpec) -> str:
    """A checkpoint in a line."""
    name = size_name(spec)
    return ((f"{name.replace('_', '-')}: " if name else "")
            + f"{spec.depth} blocks of width {spec.width}, {spec.heads} heads, "
            f"MLP {spec.mlp_width}; patch {spec.patch}, clips of "
            f"{spec.clip_frames} frames at {spec.image_size[0]} x "
            f"{spec.image_size[1]}; positions {spec.positions}, final norm "
            f"{spec.final_norm}, {spec.num_classes} classes"
            + (", LayerScale" if spec.layer_scale else "")
            + (", cosine attention" if spec.cosine_attention else ""))


def doubts(spec: VideoMaeSpec) -> list[str]:
    """A checkpoint that lost a whole part looks like a smaller model."""
    lines = [f"VideoMAE's models of width {spec.width} have {size['depth']} "
             f"blocks; this one has {spec.depth}" for size in SIZES.values()
             if size["width"] == spec.width and size["depth"] != spec.depth]
    return lines + ([] if spec.num_classes
                    else ["no classifier in it: features only"])


def infer_spec(tensors: Mapping[str, Tensor], *, heads: int | None = None,
               clip_frames: int | None = None,
               image_size: tuple[int, int] | None = None,
               depth: int | None = None, norm_epsilon: float = 1e-6,
               final_norm_epsilon: float = 1e-6) -> VideoMaeSpec:
    """Returns the spec of a checkpoint in VideoMAEv2's names.

    Args:
      tensors: by the table's names.
      heads: None takes what cosine attention's scales say, or VideoMAE's
        for the width.
      clip_frames: None is 16, or what learned positions of this image_size
        say.
      image_size: height, width in pixels; None is square as a learned
        position table says, or 224.
      depth: None is what the tensors show.
      norm_epsilon, final_norm_epsilon: VideoMAEv2's by default.

    Raises:
      InputError: tensors that tell the sizes are missing, or sizes that no
        tensor tells must be given.
    """
    votes = _size_votes(tensors)
    if not (votes["width"] and votes["mlp_width"] and votes["depth"]):
        some = ", ".join(list(tensors)[:5])
        raise InputError(f"no VideoMAE encoder; the file begins with {some}: "
                         "give a checkpoint of VideoMAE or VideoMAEv2")
    width, mlp_width, shown_depth = (
        votes[key].most_common(1)[0][0]
        for key in ("width", "mlp_width", "depth"))
    depth = depth or shown_depth
    # Where it is missing or misshapen, that is reported; go on with VideoMAE's.
    tubelet, patch = 2, min((16, *(image_size or ())))
    kernel = tensors.get("patch_embed.proj.weight")
    shows_patch = False
    if kernel is not None and len(kernel.shape) == 5 and (
            0 not in kernel.shape):
        shows_patch = True
        tubelet, patch = kernel.shape[2:4]
    heads = heads or (votes["heads"].most_common(1) or [(None, 0)])[0][0]
    if heads is None:
        if width not in HEADS_OF_WIDTH:
            raise InputError(f"width {width} is none of VideoMAE's "
                             f"{sorted(HEADS_OF_WIDTH)}: give the number of "
                             "attention heads (--heads=N)")
        heads = HEADS_OF_WIDTH[width]
    if width % heads:
        raise InputError(f"{heads} heads do not divide the width {width}: "
                         "give another --heads=N")
    learned = "pos_embed" in tensors
    positions = (tensors["pos_embed"].shape[1] if learned and len(
        tensors["pos_embed"].shape) == 3 else 0)
    if clip_frames is None:
        patches = 0 if image_size is None else (
            image_size[0] // patch * (image_size[1] // patch))
        known = patches and positions and positions % patches == 0
        clip_frames = positions // patches * tubelet if known else 16
    if clip_frames % tubelet:
        raise InputError(f"clips of {clip_frames} frames cannot be cut into "
                         f"tubelets of {tubelet}: give another --frames=N")
    if image_size is None:
        side = 224 // patch * patch
        grid = round((positions / (clip_frames // tubelet)) ** 0.5)
        # A table of another form is reported as misshapen.
        if grid and grid * grid * (clip_frames // tubelet) == positions:
            side = grid * patch
        image_size = (side, side)
    if shows_patch and any(size % patch for size in image_size):
        raise InputError(f"patches of {patch} pixels do not fill "
                         f"{image_size}: give another --image_size=H,W")
    has_head = "head.weight" in tensors or "head.bias" in tensors
    # Every classifier stands behind a norm: one without has lost it.
    final_norm = next((name for name in ("fc_norm", "norm")
                       if f"{name}.weight" in tensors
                       or f"{name}.bias" in tensors),
                      "fc_norm" if has_head else "none")
    return VideoMaeSpec(
        width=width, depth=depth, heads=heads,
        mlp_width=mlp_width, patch=patch, tubelet=tubelet,
        clip_frames=clip_frames, image_size=image_size,
        positions="learned" if learned else "sincos",
        # Of two a block.
        layer_scale=votes["gamma"].total() > depth,
        cosine_attention=2 * votes["attn.scale"].total() >= depth,
        final_norm=final_norm,
        num_classes=_num_classes(tensors, width) if has_head else 0,
        norm_epsilon=norm_epsilon, final_norm_epsilon=final_norm_epsilon)


def _num_classes(tensors: Mapping[str, Tensor], width: int) -> int:
    """As the head's weight says, or its bias where the weight is odd."""
    weight, bias = tensors.get("head.weight"), tensors.get("head.bias")
    if weight is not None and len(weight.shape) == 2 and (
            weight.shape[1] == width):
        return weight.shape[0]
    shapes = [tensor.shape for tensor in (bias, weight)
              if tensor is not None and tensor.shape]
    return shapes[0][0] if shapes else 1


def _size_votes(tensors: Mapping[str, Tensor]) -> dict[str, Counter]:
    """How many tensors speak for each size.

    A vote, so that one missing, extra or misshapen tensor is reported as
    that and does not change what the checkpoint is taken for.
    """
    votes: dict[str, Counter] = {key: Counter() for key in (
        "width", "mlp_width", "depth", "gamma", "attn.scale", "heads")}
    last: dict[str, int] = {}
    for name, tensor in tensors.items():
        if not (numbered := re.fullmatch(r"blocks\.(\d+)\.(.+)", name)):
            continue
        block, rest = int(numbered[1]), numbered[2]
        if f"blocks.{{i}}.{rest}" not in {rule.source for rule in RULES}:
            continue
        last[rest] = max(last.get(rest, 0), block)
        if rest in ("gamma_1", "gamma_2"):
            votes["gamma"][True] += 1
        if rest == "attn.scale":
            votes[rest][True] += 1
            if len(tensor.shape) == 3:
                votes["heads"][tensor.shape[0]] += 1
        if len(tensor.shape) == 1:
            size = "mlp_width" if rest == "mlp.fc1.bias" else "width"
            votes[size][tensor.shape[0]] += 1
        elif rest == "mlp.fc1.weight" and len(tensor.shape) == 2:
            votes["mlp_width"][tensor.shape[0]] += 1
            votes["width"][tensor.shape[1]] += 1
    votes["depth"].update(block + 1 for block in last.values())
    return votes
