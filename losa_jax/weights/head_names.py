"""The table of names of ActionFormer's and TriDet's heads.

Public names are those of github.com/happyharrycn/actionformer_release,
github.com/dingfengshi/TriDet and their copies in github.com/sming256/OpenTAD.
"""

import re
from collections.abc import Mapping

import numpy as np

from losa_jax.errors import InputError


# PyTorch's kernels are [out, in, k]; ours are [k, in, out].
def _conv(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 1, 0)


def _depthwise(array: np.ndarray) -> np.ndarray:
    return array[:, 0].T  # [k, c]


def _pointwise(array: np.ndarray) -> np.ndarray:
    return array[:, :, 0].T  # [in, out]


def _vector(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)  # PyTorch may keep [1, c, 1]


_BLOCK = r"(?:backbone|projection)\.(stem|branch)\.(\d+)\."
_PATH = r"pyramid/\1/\2/"
# (regular expression of the public name, path of the layer, layout of its
# weight); _vector marks a norm.
_LAYERS = (
    (r"(?:backbone\.embd|projection\.embed)\.(\d+)\.conv",
     r"pyramid/embedding/\1/conv", _conv),
    (r"backbone\.proj\.(\d+)\.conv", r"pyramid/projections/\1", _conv),
    (r"backbone\.embd_norm\.(\d+)", r"pyramid/embedding/\1/norm", _vector),
    (r"projection\.embed\.(\d+)\.norm", r"pyramid/embedding/\1/norm", _vector),
    (_BLOCK + r"mlp\.0", _PATH + "fc1", _pointwise),
    (_BLOCK + r"mlp\.[23]", _PATH + "fc2", _pointwise),
    # ActionFormer's transformer blocks
    (_BLOCK + r"ln(\d)", _PATH + r"norm\3", _vector),
    (_BLOCK + r"attn\.(query|key|value)_conv\.conv", _PATH + r"attn/\3_conv",
     _depthwise),
    (_BLOCK + r"attn\.(query|key|value)_norm", _PATH + r"attn/\3_norm",
     _vector),
    (_BLOCK + r"attn\.(query|key|value|proj)", _PATH + r"attn/\3", _pointwise),
    # TriDet's SGP blocks
    (_BLOCK + "ln", _PATH + "norm", _vector),
    (_BLOCK + "gn", _PATH + "group_norm", _vector),
    (_BLOCK + r"(psi|fc|convw|convkw|global_fc)", _PATH + r"\3", _depthwise),
    (_BLOCK + r"downsample\.1", _PATH + "down", _pointwise),
    (r"neck\.fpn_norms\.(\d+)", r"neck/norms/\1", _vector),
    (r"neck\.lateral_convs\.(\d+)\.conv", r"neck/lateral/\1", _conv),
    (r"neck\.fpn_convs\.(\d+)\.conv", r"neck/smooth/\1", _depthwise),
    # Output branches: path and OpenTAD's name, last layer of the public code
    *(entry for path, opentad, last in (
        ("cls", "cls", "cls_head"), ("reg", "reg", "offset_head"),
        ("start", "cls_start", "cls_head"), ("end", "cls_end", "cls_head"))
      for entry in (
        (rf"(?:{path}_head\.head|rpn_head\.{opentad}_convs)\.(\d+)\.conv",
         rf"{path}/convs/\1/conv", _conv),
        (rf"{path}_head\.norm\.(\d+)", rf"{path}/convs/\1/norm", _vector),
        (rf"rpn_head\.{opentad}_convs\.(\d+)\.norm",
         rf"{path}/convs/\1/norm", _vector),
        (rf"{path}_head\.{last}\.conv|rpn_head\.{opentad}_head",
         f"{path}/out", _conv))),
)
_RULES = (
    *(rule for name, path, layout in _LAYERS for rule in (
        (rf"(?:{name})\.weight",
         f"{path}/{'scale' if layout is _vector else 'kernel'}", layout),
        (rf"(?:{name})\.bias", f"{path}/bias", _vector))),
    (_BLOCK + r"drop_path_(attn|out|mlp)\.scale", _PATH + r"\3_scale",
     _vector),
    (_BLOCK + r"attn\.rel_pe", _PATH + "attn/relative",
     lambda array: array[0, 0]),
)
_LEVEL_SCALE = r"(?:reg_head|rpn_head)\.scale\.(\d+)\.scale"
# Buffers and tables that are no parameters.
_IGNORED = (r"point_generator\..*|backbone\.pos_embd|projection\.pos_embed"
            r"|rpn_head\.(loss_normalizer|prior_generator\..*)"
            r"|.*\.l_norm\..*")


def from_public(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the flat parameters of a head.

    Args:
      tensors: {public name, without prefix: array}.

    Raises:
      InputError: names that are not in the table.
    """
    parameters: dict[str, np.ndarray] = {}
    scales: dict[int, float] = {}
    unknown = []
    for name, array in tensors.items():
        matches = ((match.expand(path), layout) for pattern, path, layout
                   in _RULES if (match := re.fullmatch(pattern, name)))
        path, layout = next(matches, ("", _vector))
        if level := re.fullmatch(_LEVEL_SCALE, name):
            scales[int(level[1])] = float(array.reshape(()))
        elif path:
            parameters[path] = layout(array)
        elif not re.fullmatch(_IGNORED, name):
            unknown.append(name)
    if unknown or not scales:
        raise InputError(
            "this is no head of ActionFormer, TriDet or OpenTAD's copies of "
            f"them: {len(unknown)} tensors are in no rule: "
            f"{', '.join(unknown[:8])}. Give a checkpoint that one of these "
            "programs wrote")
    parameters["reg_scale"] = np.asarray(
        [scales[i] for i in sorted(scales)], np.float32)
    return parameters
