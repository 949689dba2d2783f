"""Reads `config.head` of ActionFormer and TriDet from YAML or from shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from losa_jax.errors import InputError

# {"model_name": the only "backbone_type" that our head has}
_BACKBONE_TYPES = {"LocPointTransformer": "convTransformer", "TriDet": "SGP"}


def head_settings(public: Mapping[str, Any]) -> dict[str, Any]:
    """Returns keys of the config section `head`, and in_width, num_classes
    and max_tokens, for a public configuration.

    Args:
      public: the YAML file's content: "model_name", "model", "train_cfg",
        "dataset"; what it leaves out has the public code's default.

    Raises:
      InputError: another model, or an option that our head does not have.
    """
    name = public.get("model_name", "LocPointTransformer")
    if name not in _BACKBONE_TYPES:
        raise InputError(f"model_name {name!r}: not one of "
                         f"{', '.join(_BACKBONE_TYPES)}")
    model = {**public.get("dataset", {}), **public.get("model", {})}
    only = {"backbone_type": _BACKBONE_TYPES[name], "scale_factor": 2,
            "fpn_start_level": 0}
    wrong = [f"{key}={model[key]}" for key, value in only.items()
             if (model.get(key) or value) != value]
    if wrong:
        raise InputError("these options of the public code are not supported: "
                         + ", ".join(wrong) + "; convert a head that was "
                         "trained without them, or train one here")
    train = public.get("train_cfg", {})
    arch = model.get("backbone_arch", (2, 2, 5))
    width, in_width = model.get("embd_dim", 512), model.get("input_dim", 2048)
    parts = {}
    if isinstance(in_width, Sequence):
        # Joined features, each with a projection; both are lists then.
        parts = {"input_widths": tuple(in_width),
                 "input_projections": tuple(width)}
        in_width, width = sum(in_width), sum(width)
    settings = {
        "in_width": in_width, **parts,
        "num_classes": model.get("num_classes", 20),
        "max_tokens": model.get("max_seq_len", 2304),
        "width": width,
        "num_levels": 1 + arch[-1],
        "num_embedding_convs": arch[0],
        "num_stem_blocks": arch[1],
        "embedding_kernel": model.get("embd_kernel_size", 3),
        "embedding_norm": model.get("embd_with_ln", True),
        "absolute_positions": model.get("use_abs_pe", False),
        "neck": "identity" if model.get("fpn_type", "identity") == "identity"
        else "fpn",
        "neck_width": model.get("fpn_dim", width),
        "neck_norm": model.get("fpn_with_ln", True),
        "head_layers": model.get("head_num_layers", 3),
        "head_kernel": model.get("head_kernel_size", 3),
        "head_width": model.get("head_dim", width),
        "head_norm": model.get("head_with_ln", True),
        "prior_probability": train.get("cls_prior_prob", 0.01),
        "drop_path": train.get("droppath", 0.1),
        "dropout": train.get("dropout", 0.0),
    }
    if name == "LocPointTransformer":
        return {
            "kind": "actionformer", **settings,
            "attention_heads": model.get("n_head", 4),
            "attention_window": _per_level(model.get("n_mha_win_size", -1)),
            "relative_positions": model.get("use_rel_pe", False)}
    return {
        "kind": "tridet", **settings,
        "sgp_window": _per_level(model.get("n_sgp_win_size", 1)),
        "sgp_k": float(model.get("k", 1.5)),
        "sgp_mlp_width": model.get("sgp_mlp_dim", 4 * width),
        "sgp_init_deviation": float(model.get("init_conv_vars", 1)),
        "downsample": model.get("downsample_type", "max"),
        "input_noise": float(model.get("input_noise", 0.0)),
        "trident": model.get("use_trident_head", True),
        "num_bins": model.get("num_bins", 16),
        # The public code spells it so.
        "boundary_kernel": model.get("boudary_kernel_size", 3)}


def _per_level(value: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def infer_settings(parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the settings that the shapes of flat parameters show.

    They show neither absolute positions nor dropout, nor ActionFormer's
    attention heads and windows.
    """
    def count(prefix: str) -> int:
        return len({name.removeprefix(prefix).split("/")[0]
                    for name in parameters if name.startswith(prefix)})

    def sizes(layer: str) -> list[int]:
        return [len(parameters[f"pyramid/branch/{i}/{layer}/kernel"])
                for i in range(count("pyramid/branch/"))]

    embedding = parameters["pyramid/embedding/0/conv/kernel"].shape
    output = parameters["cls/out/kernel"].shape
    lateral = parameters.get("neck/lateral/0/kernel")
    parts = [parameters[f"pyramid/projections/{i}/kernel"].shape
             for i in range(count("pyramid/projections/"))]
    settings: dict[str, Any] = {
        "in_width": sum(shape[1] for shape in parts) or embedding[1],
        **({"input_widths": [shape[1] for shape in parts],
            "input_projections": [shape[2] for shape in parts]} if parts
           else {}),
        "width": embedding[2],
        "embedding_kernel": embedding[0],
        "num_classes": output[2],
        "num_levels": 1 + count("pyramid/branch/"),
        "num_embedding_convs": count("pyramid/embedding/"),
        "embedding_norm": "pyramid/embedding/0/norm/scale" in parameters,
        "num_stem_blocks": count("pyramid/stem/"),
        "neck": "identity" if lateral is None else "fpn",
        "neck_norm": "neck/norms/0/scale" in parameters,
        "head_layers": 1 + count("cls/convs/"),
        "head_kernel": output[0], "head_width": output[1],
        "head_norm": "cls/convs/0/norm/scale" in parameters,
        "drop_path": 0.1 if any(name.endswith("mlp_scale")
                                for name in parameters) else 0.0,
    }
    if lateral is not None:
        settings["neck_width"] = lateral.shape[2]
    if "pyramid/branch/0/psi/kernel" not in parameters:
        return {"kind": "actionformer", **settings,
                "relative_positions": any(name.endswith("attn/relative")
                                          for name in parameters)}
    windows = sizes("psi")
    settings = {
        "kind": "tridet", **settings, "sgp_window": [1, *windows],
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
    """Returns a k for which `wide` is round((window + 1) k), made odd."""
    candidates = [1.0, 1.3, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0,
                  *(size / (window + 1) for window, size
                    in zip(windows, wide, strict=True))]
    return next((k for k in candidates if wide == [
        round((window + 1) * k) // 2 * 2 + 1 for window in windows]),
        candidates[-1])
