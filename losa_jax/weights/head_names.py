"""Which tensor of a public head is which parameter of ours: one table.

Names of ActionFormer and TriDet, and of OpenTAD's copies of them, on the
left; facts: shared/data/parity/README.md and the public code (names only).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from losa_jax.errors import InputError

# Our layouts: vectors lie flat; time kernels are [k, in, out], depthwise
# ones [k, c], pointwise ones [in, out].
FLAT, CONV, DEPTHWISE, POINTWISE = "flat", "conv", "depthwise", "pointwise"


class Rule(NamedTuple):
    """A regular expression, what it becomes, and what becomes of the array."""

    source: str
    ours: str
    layout: str


_BLOCK = r"(?:backbone|projection)\.(stem|branch)\.(\d+)\."
_PLACE = r"pyramid/\1/\2/"
_NORM = r"\.(weight|bias)"
# Branches of the output heads: ours by the public names.
_HEADS = {"cls": ("cls_head", "cls_head", "cls_convs", "cls_head"),
          "reg": ("reg_head", "offset_head", "reg_convs", "reg_head"),
          "start": ("start_head", "cls_head", "cls_start_convs",
                    "cls_start_head"),
          "end": ("end_head", "cls_head", "cls_end_convs", "cls_end_head")}


def _rules() -> tuple[Rule, ...]:
    rules = [
        Rule(r"backbone\.embd\.(\d+)\.conv\.weight",
             r"pyramid/embedding/\1/conv/kernel", CONV),
        Rule(r"backbone\.embd\.(\d+)\.conv\.bias",
             r"pyramid/embedding/\1/conv/bias", FLAT),
        Rule(r"backbone\.embd_norm\.(\d+)" + _NORM,
             r"pyramid/embedding/\1/norm/\2", FLAT),
        Rule(r"projection\.embed\.(\d+)\.conv\.weight",
             r"pyramid/embedding/\1/conv/kernel", CONV),
        Rule(r"projection\.embed\.(\d+)\.norm" + _NORM,
             r"pyramid/embedding/\1/norm/\2", FLAT),
        # Transformer blocks.
        Rule(_BLOCK + r"ln(\d)" + _NORM, _PLACE + r"norm\3/\4", FLAT),
        Rule(_BLOCK + r"attn\.(query|key|value)_conv\.conv\.weight",
             _PLACE + r"attn/\3_conv/kernel", DEPTHWISE),
        Rule(_BLOCK + r"attn\.(query|key|value)_norm" + _NORM,
             _PLACE + r"attn/\3_norm/\4", FLAT),
        Rule(_BLOCK + r"attn\.(query|key|value|proj)\.weight",
             _PLACE + r"attn/\3/kernel", POINTWISE),
        Rule(_BLOCK + r"attn\.(query|key|value|proj)\.bias",
             _PLACE + r"attn/\3/bias", FLAT),
        Rule(_BLOCK + r"attn\.rel_pe", _PLACE + "attn/relative", FLAT),
        # SGP blocks.
        Rule(_BLOCK + r"ln" + _NORM, _PLACE + r"norm/\3", FLAT),
        Rule(_BLOCK + r"gn" + _NORM, _PLACE + r"group_norm/\3", FLAT),
        Rule(_BLOCK + r"(psi|fc|convw|convkw|global_fc)\.weight",
             _PLACE + r"\3/kernel", DEPTHWISE),
        Rule(_BLOCK + r"(psi|fc|convw|convkw|global_fc)\.bias",
             _PLACE + r"\3/bias", FLAT),
        Rule(_BLOCK + r"downsample\.1\.weight", _PLACE + "down/kernel",
             POINTWISE),
        Rule(_BLOCK + r"downsample\.1\.bias", _PLACE + "down/bias", FLAT),
        # Both.
        Rule(_BLOCK + r"mlp\.0\.weight", _PLACE + "fc1/kernel", POINTWISE),
        Rule(_BLOCK + r"mlp\.0\.bias", _PLACE + "fc1/bias", FLAT),
        Rule(_BLOCK + r"mlp\.[23]\.weight", _PLACE + "fc2/kernel",
             POINTWISE),
        Rule(_BLOCK + r"mlp\.[23]\.bias", _PLACE + "fc2/bias", FLAT),
        Rule(_BLOCK + r"drop_path_(attn|out|mlp)\.scale",
             _PLACE + r"\3_scale", FLAT),
        # Neck.
        Rule(r"neck\.fpn_norms\.(\d+)" + _NORM, r"neck/norms/\1/\2", FLAT),
        Rule(r"neck\.lateral_convs\.(\d+)\.conv\.weight",
             r"neck/lateral/\1/kernel", CONV),
        Rule(r"neck\.lateral_convs\.(\d+)\.conv\.bias",
             r"neck/lateral/\1/bias", FLAT),
        Rule(r"neck\.fpn_convs\.(\d+)\.conv\.weight",
             r"neck/smooth/\1/kernel", DEPTHWISE),
        Rule(r"neck\.fpn_convs\.(\d+)\.conv\.bias",
             r"neck/smooth/\1/bias", FLAT),
    ]
    for ours, (public, last, convs, out) in _HEADS.items():
        rules += [
            Rule(rf"{public}\.head\.(\d+)\.conv\.weight",
                 rf"{ours}/convs/\1/conv/kernel", CONV),
            Rule(rf"{public}\.head\.(\d+)\.conv\.bias",
                 rf"{ours}/convs/\1/conv/bias", FLAT),
            Rule(rf"{public}\.norm\.(\d+)" + _NORM,
                 rf"{ours}/convs/\1/norm/\2", FLAT),
            Rule(rf"{public}\.{last}\.conv\.weight", f"{ours}/out/kernel",
                 CONV),
            Rule(rf"{public}\.{last}\.conv\.bias", f"{ours}/out/bias", FLAT),
            Rule(rf"rpn_head\.{convs}\.(\d+)\.conv\.weight",
                 rf"{ours}/convs/\1/conv/kernel", CONV),
            Rule(rf"rpn_head\.{convs}\.(\d+)\.norm" + _NORM,
                 rf"{ours}/convs/\1/norm/\2", FLAT),
            Rule(rf"rpn_head\.{out}\.weight", f"{ours}/out/kernel", CONV),
            Rule(rf"rpn_head\.{out}\.bias", f"{ours}/out/bias", FLAT)]
    return tuple(rules)


RULES = _rules()
_LEVEL_SCALE = r"(?:reg_head|rpn_head)\.scale\.(\d+)\.scale"
# Buffers and tables that are no parameters.
_IGNORED = (r"point_generator\..*", r"backbone\.pos_embd",
            r"projection\.pos_embed", r"rpn_head\.loss_normalizer",
            r"rpn_head\.prior_generator\..*", r".*\.l_norm\..*")


def from_public(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Flat parameters of our head.

    Args:
      tensors: {public name, without prefix: array}.

    Raises:
      InputError: names that are in no rule.
    """
    flat: dict[str, np.ndarray] = {}
    scales: dict[int, float] = {}
    unknown = []
    for name, array in tensors.items():
        array = np.asarray(array)
        if level := re.fullmatch(_LEVEL_SCALE, name):
            scales[int(level[1])] = float(array.reshape(()))
        elif found := _find(name):
            key, layout = found
            flat[key] = _to_ours(array, layout, key)
        elif not any(re.fullmatch(pattern, name) for pattern in _IGNORED):
            unknown.append(name)
    if unknown or not scales:
        raise InputError(
            "this is no head of ActionFormer, TriDet or OpenTAD's copies of "
            f"them: {len(unknown)} tensors are in no rule: "
            f"{', '.join(unknown[:8])}. Give a checkpoint that one of these "
            "programs wrote")
    flat["reg_scale"] = np.asarray([scales[i] for i in sorted(scales)],
                                   np.float32)
    return flat


def _find(name: str) -> tuple[str, str] | None:
    for rule in RULES:
        if re.fullmatch(rule.source, name):
            key = re.sub(rule.source, rule.ours, name)
            return re.sub("weight$", "scale", key), rule.layout
    return None


def _to_ours(array: np.ndarray, layout: str, key: str) -> np.ndarray:
    if layout == CONV:
        return array.transpose(2, 1, 0)
    if layout == DEPTHWISE:
        return array[:, 0].T
    if layout == POINTWISE:
        return array[:, :, 0].T
    if key.endswith("relative"):
        return array[0, 0]
    return array.reshape(-1)
