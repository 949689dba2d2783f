"""ActionFormer's head: its table of names and its public configuration.

The public code is github.com/happyharrycn/actionformer_release;
`head_name_table` explains each definition.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from losa_jax.weights.head_name_table import (
    BLOCK,
    PATH,
    SHARED_RULES,
    HeadRule,
    depthwise,
    layer,
    model_section,
    norm,
    per_level,
    pointwise,
    shape_settings,
    shared_settings,
)

MODEL_NAME = "LocPointTransformer"
RULES = (
    *SHARED_RULES,
    *norm(BLOCK + r"ln(\d)", PATH + r"norm\3"),
    *layer(BLOCK + r"attn\.(query|key|value)_conv\.conv",
           PATH + r"attn/\3_conv", depthwise),
    *norm(BLOCK + r"attn\.(query|key|value)_norm", PATH + r"attn/\3_norm"),
    *layer(BLOCK + r"attn\.(query|key|value|proj)", PATH + r"attn/\3",
           pointwise),
    HeadRule(BLOCK + r"attn\.rel_pe", PATH + "attn/relative",
             lambda array: array[0, 0]),
)


def recognizes(names: Iterable[str]) -> bool:
    """Returns whether the blocks of the pyramid are transformers."""
    return any(".attn." in name for name in names)


def head_settings(public: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a public configuration."""
    model = model_section(public, "convTransformer")
    return {
        "kind": "actionformer",
        **shared_settings(model, public.get("train_cfg", {})),
        "attention_heads": model.get("n_head", 4),
        "attention_window": per_level(model.get("n_mha_win_size", -1)),
        "relative_positions": model.get("use_rel_pe", False)}


def infer_settings(parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what shapes show: neither attention heads and windows, nor
    absolute positions, nor dropout."""
    return {"kind": "actionformer", **shape_settings(parameters),
            "relative_positions": any(name.endswith("attn/relative")
                                      for name in parameters)}
