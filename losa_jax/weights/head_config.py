"""Settings of ActionFormer's and TriDet's configuration files, as ours.

Users bring their YAML file; what it leaves out has the default of the
public code (shared/reference/heads_and_recipes.md, D1 and D2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from losa_jax.errors import InputError

_MODELS = {"LocPointTransformer": "actionformer", "TriDet": "tridet"}
_BACKBONES = {"actionformer": "convTransformer", "tridet": "SGP"}


def head_settings(public: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the config section `head`, and in_width, num_classes and
    max_tokens, for a public configuration.

    Args:
      public: the file's content: "model_name", "model", "train_cfg",
        "dataset".

    Raises:
      InputError: another model, or an option that ours does not have.
    """
    name = public.get("model_name", "LocPointTransformer")
    if name not in _MODELS:
        raise InputError(f"model_name {name!r}: known are "
                         f"{', '.join(_MODELS)}")
    kind = _MODELS[name]
    data = public.get("dataset", {})
    model = {**{key: data[key] for key in (
        "input_dim", "num_classes", "max_seq_len") if key in data},
        **public.get("model", {})}
    train = public.get("train_cfg", {})
    arch = model.get("backbone_arch", (2, 2, 5))
    _check(model, kind)
    width = model.get("embd_dim", 512)
    settings = {
        "kind": kind,
        "in_width": model.get("input_dim", 2048),
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
    if kind == "actionformer":
        settings |= {
            "attention_heads": model.get("n_head", 4),
            "attention_window": _per_level(model.get("n_mha_win_size", -1)),
            "relative_positions": model.get("use_rel_pe", False)}
    else:
        settings |= {
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
    return settings


def _check(model: Mapping[str, Any], kind: str) -> None:
    wrong = []
    backbone = model.get("backbone_type", _BACKBONES[kind])
    if backbone != _BACKBONES[kind]:
        wrong.append(f"backbone_type={backbone}")
    if model.get("scale_factor", 2) != 2:
        wrong.append(f"scale_factor={model['scale_factor']}")
    if model.get("fpn_start_level", 0):
        wrong.append(f"fpn_start_level={model['fpn_start_level']}")
    if wrong:
        raise InputError("these options of the public code are not built: "
                         + ", ".join(wrong) + "; convert a head that was "
                         "trained without them, or train one here")


def _per_level(value: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)
