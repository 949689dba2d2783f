"""TriDet's head: its part of the table of names, and its public
configuration. The names that ActionFormer shares are `SHARED_RULES`.

Names of the public code (github.com/dingfengshi/TriDet) and of its copy in
OpenTAD (github.com/sming256/OpenTAD). See `head_name_table` for what each name
here is for.
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
    branch_rules,
    depthwise,
    flat,
    model_section,
    per_level,
    pointwise,
    shape_settings,
    shared_settings,
)

MODEL_NAME = "TriDet"
RULES = (
    *SHARED_RULES,
    HeadRule(BLOCK + r"ln" + NORM, PLACE + r"norm/\3", flat),
    HeadRule(BLOCK + r"gn" + NORM, PLACE + r"group_norm/\3", flat),
    HeadRule(BLOCK + r"(psi|fc|convw|convkw|global_fc)\.weight",
             PLACE + r"\3/kernel", depthwise),
    HeadRule(BLOCK + r"(psi|fc|convw|convkw|global_fc)\.bias",
             PLACE + r"\3/bias", flat),
    HeadRule(BLOCK + r"downsample\.1\.weight", PLACE + "down/kernel",
             pointwise),
    HeadRule(BLOCK + r"downsample\.1\.bias", PLACE + "down/bias", flat),
    *branch_rules("start", "start_head", "cls_head", "cls_start_convs",
                  "cls_start_head"),
    *branch_rules("end", "end_head", "cls_head", "cls_end_convs",
                  "cls_end_head"),
)


def recognizes(names: Iterable[str]) -> bool:
    """Whether the blocks of the pyramid are SGP blocks."""
    return any(".psi." in name for name in names)


def head_settings(public: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keys of the config section `head`; see `heads`."""
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
    """Returns what shapes tell: neither absolute positions nor dropout."""
    shared = shape_settings(parameters)

    def shape(name: str) -> tuple[int, ...]:
        return parameters[name].shape

    blocks = range(shared["num_levels"] - 1)
    windows = [1] + [shape(f"pyramid/branch/{i}/psi/kernel")[0]
                     for i in blocks]
    wides = [shape(f"pyramid/branch/{i}/convkw/kernel")[0] for i in blocks]
    settings = {
        "kind": "tridet", **shared,
        "sgp_window": windows, "sgp_k": _factor(windows[1:], wides),
        "sgp_mlp_width": shape("pyramid/branch/0/fc1/kernel")[1],
        "downsample": "avg" if "pyramid/branch/0/down/kernel" in parameters
        else "max",
        "trident": "start/out/kernel" in parameters}
    if settings["trident"]:
        settings |= {"num_bins": shape("reg/out/kernel")[2] // 2 - 1,
                     "boundary_kernel": shape("start/out/kernel")[0]}
    return settings


def _factor(windows: list[int], wides: list[int]) -> float:
    """A k that gives these kernels: round((w + 1) k), made odd."""
    def gives(k: float) -> bool:
        sizes = [round((window + 1) * k) for window in windows]
        return [size + 1 - size % 2 for size in sizes] == wides

    tried = [1.0, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0,
             *(wide / (window + 1) for window, wide
               in zip(windows, wides, strict=True))]
    return next((k for k in tried if gives(k)), tried[-1])
