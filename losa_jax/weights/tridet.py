"""TriDet's head: its table of names and its public configuration.

The public code is github.com/dingfengshi/TriDet; `head_name_table` explains
each definition.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from losa_jax.weights.head_name_table import (
    BLOCK,
    PATH,
    SHARED_RULES,
    branch,
    depthwise,
    layer,
    model_section,
    norm,
    per_level,
    pointwise,
    shape_settings,
    shared_settings,
)

MODEL_NAME = "TriDet"
RULES = (
    *SHARED_RULES,
    *norm(BLOCK + "ln", PATH + "norm"),
    *norm(BLOCK + "gn", PATH + "group_norm"),
    *layer(BLOCK + r"(psi|fc|convw|convkw|global_fc)", PATH + r"\3",
           depthwise),
    *layer(BLOCK + r"downsample\.1", PATH + "down", pointwise),
    *branch("start", "start_head", "cls_head", "cls_start_convs",
            "cls_start_head"),
    *branch("end", "end_head", "cls_head", "cls_end_convs", "cls_end_head"),
)


def recognizes(names: Iterable[str]) -> bool:
    """Returns whether the blocks of the pyramid are SGP blocks."""
    return any(".psi." in name for name in names)


def head_settings(public: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a public configuration."""
    model = model_section(public, "SGP")
    shared = shared_settings(model, public.get("train_cfg", {}))
    return {
        "kind": "tridet", **shared,
        "sgp_window": per_level(model.get("n_sgp_win_size", 1)),
        "sgp_k": float(model.get("k", 1.5)),
        "sgp_mlp_width": model.get("sgp_mlp_dim", 4 * shared["width"]),
        "sgp_init_deviation": float(model.get("init_conv_vars", 1)),
        "downsample": model.get("downsample_type", "max"),
        "input_noise": float(model.get("input_noise", 0.0)),
        "trident": model.get("use_trident_head", True),
        "num_bins": model.get("num_bins", 16),
        # The public code spells it so.
        "boundary_kernel": model.get("boudary_kernel_size", 3)}


def infer_settings(parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what shapes show: neither absolute positions nor dropout."""
    shared = shape_settings(parameters)

    def sizes(layer: str) -> list[int]:
        return [len(parameters[f"pyramid/branch/{i}/{layer}/kernel"])
                for i in range(shared["num_levels"] - 1)]

    windows = sizes("psi")
    settings = {
        "kind": "tridet", **shared, "sgp_window": [1, *windows],
        "sgp_k": _window_factor(windows, sizes("convkw")),
        "sgp_mlp_width": parameters["pyramid/branch/0/fc1/kernel"].shape[1],
        "downsample": "avg" if "pyramid/branch/0/down/kernel" in parameters
        else "max",
        "trident": "start/out/kernel" in parameters}
    if settings["trident"]:
        settings |= {
            "num_bins": parameters["reg/out/kernel"].shape[2] // 2 - 1,
            "boundary_kernel": len(parameters["start/out/kernel"])}
    return settings


def _window_factor(windows: list[int], wide: list[int]) -> float:
    """Returns a k for which round((window + 1) k), made odd, is `wide`."""
    candidates = [1.0, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0,
                  *(size / (window + 1) for window, size
                    in zip(windows, wide, strict=True))]
    return next((k for k in candidates if wide == [
        round((window + 1) * k) // 2 * 2 + 1 for window in windows]),
        candidates[-1])
