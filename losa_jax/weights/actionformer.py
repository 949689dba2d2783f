"""ActionFormer's head: its part of the table of names, and its public
configuration. The names that TriDet shares are `SHARED_RULES`.

Names of the public code (github.com/happyharrycn/actionformer_release) and
of its copy in OpenTAD (github.com/sming256/OpenTAD). See `head_name_table` for
what each name here is for.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from losa_jax.weights.head_name_table import (
    BLOCK,
    NORM,
    PLACE,
    SHARED_RULES,
    HeadRule,
    depthwise,
    flat,
    model_section,
    per_level,
    pointwise,
    shape_settings,
    shared_settings,
)

MODEL_NAME = "LocPointTransformer"
RULES = (
    *SHARED_RULES,
    HeadRule(BLOCK + r"ln(\d)" + NORM, PLACE + r"norm\3/\4", flat),
    HeadRule(BLOCK + r"attn\.(query|key|value)_conv\.conv\.weight",
             PLACE + r"attn/\3_conv/kernel", depthwise),
    HeadRule(BLOCK + r"attn\.(query|key|value)_norm" + NORM,
             PLACE + r"attn/\3_norm/\4", flat),
    HeadRule(BLOCK + r"attn\.(query|key|value|proj)\.weight",
             PLACE + r"attn/\3/kernel", pointwise),
    HeadRule(BLOCK + r"attn\.(query|key|value|proj)\.bias",
             PLACE + r"attn/\3/bias", flat),
    HeadRule(BLOCK + r"attn\.rel_pe", PLACE + "attn/relative",
             lambda array: array[0, 0]),
)


def recognizes(names: Iterable[str]) -> bool:
    """Whether the blocks of the pyramid are transformers."""
    return any(".attn." in name for name in names)


def head_settings(public: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keys of the config section `head`; see `heads`."""
    model = model_section(public, "convTransformer")
    return {
        "kind": "actionformer",
        **shared_settings(model, public.get("train_cfg", {})),
        "attention_heads": model.get("n_head", 4),
        "attention_window": per_level(model.get("n_mha_win_size", -1)),
        "relative_positions": model.get("use_rel_pe", False)}


def infer_settings(parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what shapes tell: neither attention heads and windows, nor
    absolute positions, nor dropout."""
    return {"kind": "actionformer", **shape_settings(parameters),
            "relative_positions": any(name.endswith("attn/relative")
                                      for name in parameters)}
