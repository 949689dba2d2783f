"""What ActionFormer's and TriDet's tables of names have in common.

The module of a detection head (`actionformer`, `tridet`) defines

    MODEL_NAME: str
        "model_name" of the public configuration.
    RULES: tuple[HeadRule, ...]
        the names of the public code and of its copy in OpenTAD
        (github.com/sming256/OpenTAD).
    recognizes(names) -> bool
        whether tensors of these public names are of this head.
    head_settings(public) -> dict
        keys of the config section `head`, in_width, num_classes and
        max_tokens, from a public configuration.
    infer_settings(parameters) -> dict
        the same, as far as the shapes of the converted parameters show.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from losa_jax.errors import InputError


class HeadRule(NamedTuple):
    """Tensors of one form.

    Attributes:
      source: regular expression of the public name.
      parameter: path of the parameter, a template of that expression.
      to_flax: layout of the parameter from PyTorch's.
    """

    source: str
    parameter: str
    to_flax: Callable[[np.ndarray], np.ndarray]


# PyTorch's kernels are [out, in, k]; Flax's are [k, in, out].
def conv(array: np.ndarray) -> np.ndarray:
    """Returns the kernel of a convolution over time."""
    return array.transpose(2, 1, 0)


def depthwise(array: np.ndarray) -> np.ndarray:
    """Returns a depthwise kernel [k, c] from [c, 1, k]."""
    return array[:, 0].T


def pointwise(array: np.ndarray) -> np.ndarray:
    """Returns the matrix [in, out] of a convolution of kernel size one."""
    return array[:, :, 0].T


def vector(array: np.ndarray) -> np.ndarray:
    """Returns a vector, which PyTorch may keep as [1, c, 1]."""
    return array.reshape(-1)


def layer(source: str, parameter: str,
          to_flax: Callable[[np.ndarray], np.ndarray]
          ) -> tuple[HeadRule, HeadRule]:
    """Returns the rules of a layer's kernel and bias."""
    return (HeadRule(rf"{source}\.weight", f"{parameter}/kernel", to_flax),
            HeadRule(rf"{source}\.bias", f"{parameter}/bias", vector))


def norm(source: str, parameter: str) -> tuple[HeadRule, HeadRule]:
    """Returns the rules of a norm's scale and bias."""
    return (HeadRule(rf"{source}\.weight", f"{parameter}/scale", vector),
            HeadRule(rf"{source}\.bias", f"{parameter}/bias", vector))


# A block of the pyramid: its public name, and its path.
BLOCK = r"(?:backbone|projection)\.(stem|branch)\.(\d+)\."
PATH = r"pyramid/\1/\2/"


def branch(path: str, public: str, last: str, convs: str, out: str
           ) -> tuple[HeadRule, ...]:
    """Returns the rules of an output branch.

    Args:
      path: of the branch.
      public, last: the public code's module, and its last convolution.
      convs, out: OpenTAD's names of its convolutions, and of the last.
    """
    return (
        *layer(rf"{public}\.head\.(\d+)\.conv", rf"{path}/convs/\1/conv", conv),
        *norm(rf"{public}\.norm\.(\d+)", rf"{path}/convs/\1/norm"),
        *layer(rf"{public}\.{last}\.conv", f"{path}/out", conv),
        *layer(rf"rpn_head\.{convs}\.(\d+)\.conv", rf"{path}/convs/\1/conv",
               conv),
        *norm(rf"rpn_head\.{convs}\.(\d+)\.norm", rf"{path}/convs/\1/norm"),
        *layer(rf"rpn_head\.{out}", f"{path}/out", conv))


SHARED_RULES = (
    *layer(r"(?:backbone\.embd|projection\.embed)\.(\d+)\.conv",
           r"pyramid/embedding/\1/conv", conv),
    *norm(r"backbone\.embd_norm\.(\d+)", r"pyramid/embedding/\1/norm"),
    *norm(r"projection\.embed\.(\d+)\.norm", r"pyramid/embedding/\1/norm"),
    *layer(BLOCK + r"mlp\.0", PATH + "fc1", pointwise),
    *layer(BLOCK + r"mlp\.[23]", PATH + "fc2", pointwise),
    HeadRule(BLOCK + r"drop_path_(attn|out|mlp)\.scale", PATH + r"\3_scale",
             vector),
    *norm(r"neck\.fpn_norms\.(\d+)", r"neck/norms/\1"),
    *layer(r"neck\.lateral_convs\.(\d+)\.conv", r"neck/lateral/\1", conv),
    *layer(r"neck\.fpn_convs\.(\d+)\.conv", r"neck/smooth/\1", depthwise),
    *branch("cls", "cls_head", "cls_head", "cls_convs", "cls_head"),
    *branch("reg", "reg_head", "offset_head", "reg_convs", "reg_head"),
)
_LEVEL_SCALE = r"(?:reg_head|rpn_head)\.scale\.(\d+)\.scale"
# Buffers and tables that are no parameters.
_IGNORED = (r"point_generator\..*|backbone\.pos_embd|projection\.pos_embed"
            r"|rpn_head\.(loss_normalizer|prior_generator\..*)"
            r"|.*\.l_norm\..*")


def apply_rules(rules: Iterable[HeadRule], tensors: Mapping[str, np.ndarray]
                ) -> dict[str, np.ndarray]:
    """Returns the flat parameters of a head.

    Args:
      rules: of the head.
      tensors: {public name, without prefix: array}.

    Raises:
      InputError: names that are in no rule.
    """
    parameters: dict[str, np.ndarray] = {}
    scales: dict[int, float] = {}
    unknown = []
    for name, array in tensors.items():
        hit = next(((match, rule) for rule in rules
                    if (match := re.fullmatch(rule.source, name))), None)
        if level := re.fullmatch(_LEVEL_SCALE, name):
            scales[int(level[1])] = float(array.reshape(()))
        elif hit:
            match, rule = hit
            parameters[match.expand(rule.parameter)] = rule.to_flax(array)
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


# --- Settings of the public configuration files ----------------------------


def model_section(public: Mapping[str, Any], backbone_type: str
                  ) -> dict[str, Any]:
    """Returns the settings of the model in a public configuration.

    Args:
      public: see `head_folder.head_settings`.
      backbone_type: the only one that our head has.

    Raises:
      InputError: an option that our head does not have.
    """
    data = public.get("dataset", {})
    model = {**{key: data[key] for key in (
        "input_dim", "num_classes", "max_seq_len") if key in data},
        **public.get("model", {})}
    only = {"backbone_type": backbone_type, "scale_factor": 2,
            "fpn_start_level": 0}
    wrong = [f"{key}={model[key]}" for key, value in only.items()
             if (model.get(key) or value) != value]
    if wrong:
        raise InputError("these options of the public code are not supported: "
                         + ", ".join(wrong) + "; convert a head that was "
                         "trained without them, or train one here")
    return model


def shared_settings(model: Mapping[str, Any], train: Mapping[str, Any]
                    ) -> dict[str, Any]:
    """Returns the settings that both heads have.

    What a file leaves out has the public code's default.

    Args:
      model: of `model_section`.
      train: the section "train_cfg".
    """
    arch = model.get("backbone_arch", (2, 2, 5))
    width = model.get("embd_dim", 512)
    return {
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


def per_level(value: int | Sequence[int]) -> tuple[int, ...]:
    """Returns one number for all levels, or one for each."""
    return tuple(value) if isinstance(value, Sequence) else (value,)


# --- Settings that shapes show ----------------------------------------------


def shape_settings(parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the settings of both heads that shapes show."""
    def count(prefix: str) -> int:
        return len({name.removeprefix(prefix).split("/")[0]
                    for name in parameters if name.startswith(prefix)})

    kernel, in_width, width = parameters["pyramid/embedding/0/conv/kernel"
                                         ].shape
    head_kernel, head_width, num_classes = parameters["cls/out/kernel"].shape
    lateral = parameters.get("neck/lateral/0/kernel")
    settings: dict[str, Any] = {
        "in_width": in_width, "width": width, "embedding_kernel": kernel,
        "num_classes": num_classes,
        "num_levels": 1 + count("pyramid/branch/"),
        "num_embedding_convs": count("pyramid/embedding/"),
        "embedding_norm": "pyramid/embedding/0/norm/scale" in parameters,
        "num_stem_blocks": count("pyramid/stem/"),
        "neck": "identity" if lateral is None else "fpn",
        "neck_norm": "neck/norms/0/scale" in parameters,
        "head_layers": 1 + count("cls/convs/"),
        "head_kernel": head_kernel, "head_width": head_width,
        "head_norm": "cls/convs/0/norm/scale" in parameters,
        "drop_path": 0.1 if any(name.endswith("mlp_scale")
                                for name in parameters) else 0.0,
    }
    if lateral is not None:
        settings["neck_width"] = lateral.shape[2]
    return settings
