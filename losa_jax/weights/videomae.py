"""Which tensor of a checkpoint is which parameter: one table, both ways.

Names on the left are VideoMAEv2's; Hugging Face's are first renamed to them.
Facts: shared/data/parity/README.md, "VideoMAE V2 fixtures" and "Hugging Face
folders".
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.backbones.sizes import HEADS_OF_WIDTH
from losa_jax.models.backbones.videomae import VisionTransformer, VitSpec
from losa_jax.models.ops.params import Template, flatten

SAME, LINEAR, CONV, POSITIONS, HEADS = (
    "same", "linear", "conv", "positions", "heads")


class Rule(NamedTuple):
    """One tensor; {i} counts blocks, which ours stacks on a first axis."""

    source: str
    ours: str
    layout: str


RULES = (
    Rule("patch_embed.proj.weight", "patch_embed/kernel", CONV),
    Rule("patch_embed.proj.bias", "patch_embed/bias", SAME),
    Rule("pos_embed", "pos_embed", POSITIONS),
    Rule("blocks.{i}.norm1.weight", "blocks/norm1/scale", SAME),
    Rule("blocks.{i}.norm1.bias", "blocks/norm1/bias", SAME),
    Rule("blocks.{i}.attn.qkv.weight", "blocks/attn/qkv/kernel", LINEAR),
    Rule("blocks.{i}.attn.q_bias", "blocks/attn/q_bias", SAME),
    Rule("blocks.{i}.attn.v_bias", "blocks/attn/v_bias", SAME),
    Rule("blocks.{i}.attn.scale", "blocks/attn/logit_scale", HEADS),
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

# Hugging Face VideoMAE, after the prefix `videomae.`; query, key and value
# are joined into qkv afterwards.
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

# OpenTAD and mmaction2 (shared/data/parity/README.md, "adapters in a video
# transformer"), after the prefix `backbone.`.
OPENTAD_NAMES = (
    (r"patch_embed\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"blocks\.(\d+)\.mlp\.layers\.0\.0\.(weight|bias)",
     r"blocks.\1.mlp.fc1.\2"),
    (r"blocks\.(\d+)\.mlp\.layers\.1\.(weight|bias)",
     r"blocks.\1.mlp.fc2.\2"),
    (r"cls_head\.fc_cls\.(weight|bias)", r"head.\1"),
)


class Tensor(Protocol):
    """A tensor of some file: its shape is known before it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def read(self) -> np.ndarray: ...


def to_ours(array: np.ndarray, layout: str, spec: VitSpec) -> np.ndarray:
    """A source tensor (of one block) in our layout."""
    if layout == LINEAR:
        return array.T
    if layout == CONV:
        return array.transpose(2, 3, 4, 1, 0)
    if layout == POSITIONS:
        return array.reshape(spec.clip_tokens, *spec.grid, spec.width)
    if layout == HEADS:
        return array.reshape(spec.heads)
    return array


def to_source(array: np.ndarray, layout: str, spec: VitSpec) -> np.ndarray:
    """The exact inverse of `to_ours`."""
    if layout == LINEAR:
        return array.T
    if layout == CONV:
        return array.transpose(4, 3, 0, 1, 2)
    if layout == POSITIONS:
        return array.reshape(1, -1, spec.width)
    if layout == HEADS:
        return array.reshape(spec.heads, 1, 1)
    return array


def expected_shapes(spec: VitSpec) -> dict[str, tuple[int, ...]]:
    """Our flat parameter names and shapes; blocks are stacked."""
    template = Template(lambda: VisionTransformer(spec, rngs=nnx.Rngs(0)))
    return {name: tuple(leaf.shape)
            for name, leaf in flatten(template.shapes).items()}


def expected_source(spec: VitSpec) -> dict[str, tuple[Rule, int | None,
                                                      tuple[int, ...]]]:
    """{source name: (rule, block or None, shape in the source)}."""
    shapes = expected_shapes(spec)
    expected = {}
    for rule in RULES:
        if rule.ours not in shapes:
            continue
        stacked = "{i}" in rule.source
        shape = shapes[rule.ours][1:] if stacked else shapes[rule.ours]
        # A view of one number: the shape changes as a real tensor's would.
        probe = np.broadcast_to(np.zeros((), np.bool_), shape)
        source_shape = to_source(probe, rule.layout, spec).shape
        for block in range(spec.depth) if stacked else (None,):
            name = rule.source.format(i=block)
            expected[name] = (rule, block, source_shape)
    return expected


def infer_spec(tensors: Mapping[str, Tensor], *, heads: int | None = None,
               clip_frames: int | None = None,
               image_size: tuple[int, int] | None = None,
               depth: int | None = None) -> VitSpec:
    """What a checkpoint in VideoMAEv2's names is.

    Args:
      tensors: by source name.
      heads: None takes what cosine attention's scales say, or VideoMAE's
        for the width.
      clip_frames: None is 16, or what learned positions of this image_size
        say.
      image_size: height, width in pixels; None is square as a learned
        position table says, or 224.
      depth: None is what the tensors show.

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
    tubelet, patch = 2, 16
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
    return VitSpec(
        width=width, depth=depth, heads=heads,
        mlp_width=mlp_width, patch=patch, tubelet=tubelet,
        clip_frames=clip_frames, image_size=image_size,
        positions="learned" if learned else "sincos",
        # Of two a block.
        layer_scale=votes["gamma"].total() > depth,
        cosine_attention=2 * votes["attn.scale"].total() >= depth,
        final_norm=final_norm,
        num_classes=_num_classes(tensors, width) if has_head else 0)


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
        if not (found := re.fullmatch(r"blocks\.(\d+)\.(.+)", name)):
            continue
        block, rest = int(found[1]), found[2]
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
            kind = "mlp_width" if rest == "mlp.fc1.bias" else "width"
            votes[kind][tensor.shape[0]] += 1
        elif rest == "mlp.fc1.weight" and len(tensor.shape) == 2:
            votes["mlp_width"][tensor.shape[0]] += 1
            votes["width"][tensor.shape[1]] += 1
    votes["depth"].update(block + 1 for block in last.values())
    return votes
