"""What the tables of heads are made of, and what ActionFormer's and TriDet's
have in common: embedding, MLPs, neck and output branches.

A head's module (`actionformer`, `tridet`) has

    MODEL_NAME       "model_name" of the public configuration
    RULES            its table
    recognizes(names) -> bool            whether public tensors are its own
    head_settings(public) -> dict        keys of the config section `head`,
                                         from a public configuration
    infer_settings(flat) -> dict         the same, as far as the shapes of
                                         our parameters tell
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from losa_jax.errors import InputError


class HeadRule(NamedTuple):
    """Tensors of one form.

    Attributes:
      source: regular expression of the public name, OpenTAD's copy of the
        head included.
      ours: what it becomes; a last "weight" is then called "scale".
      to_ours: what becomes of the array.
    """

    source: str
    ours: str
    to_ours: Callable[[np.ndarray], np.ndarray]


# Vectors of ours lie flat; time kernels are [k, in, out], depthwise ones
# [k, c], pointwise ones [in, out]. PyTorch's are [out, in, k].
def flat(array: np.ndarray) -> np.ndarray:
    """A vector, or what PyTorch keeps as [1, c, 1]."""
    return array.reshape(-1)


def conv(array: np.ndarray) -> np.ndarray:
    """A convolution over time."""
    return array.transpose(2, 1, 0)


def depthwise(array: np.ndarray) -> np.ndarray:
    """A convolution over time of each channel alone."""
    return array[:, 0].T


def pointwise(array: np.ndarray) -> np.ndarray:
    """A convolution of kernel size one: a linear map."""
    return array[:, :, 0].T


BLOCK = r"(?:backbone|projection)\.(stem|branch)\.(\d+)\."
PLACE = r"pyramid/\1/\2/"
NORM = r"\.(weight|bias)"


def branch_rules(ours: str, public: str, last: str, convs: str, out: str
                 ) -> tuple[HeadRule, ...]:
    """The rules of an output branch.

    Args:
      ours: its name in our head.
      public: module of the public code, and `last`: its last convolution.
      convs, out: OpenTAD's names of its convolutions, and of the last.
    """
    return (
        HeadRule(rf"{public}\.head\.(\d+)\.conv\.weight",
                 rf"{ours}/convs/\1/conv/kernel", conv),
        HeadRule(rf"{public}\.head\.(\d+)\.conv\.bias",
                 rf"{ours}/convs/\1/conv/bias", flat),
        HeadRule(rf"{public}\.norm\.(\d+)" + NORM,
                 rf"{ours}/convs/\1/norm/\2", flat),
        HeadRule(rf"{public}\.{last}\.conv\.weight", f"{ours}/out/kernel",
                 conv),
        HeadRule(rf"{public}\.{last}\.conv\.bias", f"{ours}/out/bias", flat),
        HeadRule(rf"rpn_head\.{convs}\.(\d+)\.conv\.weight",
                 rf"{ours}/convs/\1/conv/kernel", conv),
        HeadRule(rf"rpn_head\.{convs}\.(\d+)\.norm" + NORM,
                 rf"{ours}/convs/\1/norm/\2", flat),
        HeadRule(rf"rpn_head\.{out}\.weight", f"{ours}/out/kernel", conv),
        HeadRule(rf"rpn_head\.{out}\.bias", f"{ours}/out/bias", flat))


SHARED_RULES = (
    HeadRule(r"backbone\.embd\.(\d+)\.conv\.weight",
             r"pyramid/embedding/\1/conv/kernel", conv),
    HeadRule(r"backbone\.embd\.(\d+)\.conv\.bias",
             r"pyramid/embedding/\1/conv/bias", flat),
    HeadRule(r"backbone\.embd_norm\.(\d+)" + NORM,
             r"pyramid/embedding/\1/norm/\2", flat),
    HeadRule(r"projection\.embed\.(\d+)\.conv\.weight",
             r"pyramid/embedding/\1/conv/kernel", conv),
    HeadRule(r"projection\.embed\.(\d+)\.norm" + NORM,
             r"pyramid/embedding/\1/norm/\2", flat),
    HeadRule(BLOCK + r"mlp\.0\.weight", PLACE + "fc1/kernel", pointwise),
    HeadRule(BLOCK + r"mlp\.0\.bias", PLACE + "fc1/bias", flat),
    HeadRule(BLOCK + r"mlp\.[23]\.weight", PLACE + "fc2/kernel", pointwise),
    HeadRule(BLOCK + r"mlp\.[23]\.bias", PLACE + "fc2/bias", flat),
    HeadRule(BLOCK + r"drop_path_(attn|out|mlp)\.scale", PLACE + r"\3_scale",
             flat),
    HeadRule(r"neck\.fpn_norms\.(\d+)" + NORM, r"neck/norms/\1/\2", flat),
    HeadRule(r"neck\.lateral_convs\.(\d+)\.conv\.weight",
             r"neck/lateral/\1/kernel", conv),
    HeadRule(r"neck\.lateral_convs\.(\d+)\.conv\.bias",
             r"neck/lateral/\1/bias", flat),
    HeadRule(r"neck\.fpn_convs\.(\d+)\.conv\.weight",
             r"neck/smooth/\1/kernel", depthwise),
    HeadRule(r"neck\.fpn_convs\.(\d+)\.conv\.bias",
             r"neck/smooth/\1/bias", flat),
    *branch_rules("cls", "cls_head", "cls_head", "cls_convs", "cls_head"),
    *branch_rules("reg", "reg_head", "offset_head", "reg_convs", "reg_head"),
)
_LEVEL_SCALE = r"(?:reg_head|rpn_head)\.scale\.(\d+)\.scale"
# Buffers and tables that are no parameters.
_IGNORED = (r"point_generator\..*", r"backbone\.pos_embd",
            r"projection\.pos_embed", r"rpn_head\.loss_normalizer",
            r"rpn_head\.prior_generator\..*", r".*\.l_norm\..*")


def apply_rules(rules: Sequence[HeadRule], tensors: Mapping[str, np.ndarray]
                ) -> dict[str, np.ndarray]:
    """Returns flat parameters of our head.

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
        array = np.asarray(array)
        rule = next((rule for rule in rules
                     if re.fullmatch(rule.source, name)), None)
        if level := re.fullmatch(_LEVEL_SCALE, name):
            scales[int(level[1])] = float(array.reshape(()))
        elif rule is not None:
            ours = re.sub(rule.source, rule.ours, name)
            parameters[re.sub("weight$", "scale", ours)] = rule.to_ours(array)
        elif not any(re.fullmatch(pattern, name) for pattern in _IGNORED):
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
      public: the file's content: "model_name", "model", "train_cfg",
        "dataset".
      backbone_type: the only one that ours has.

    Raises:
      InputError: an option that ours does not have.
    """
    data = public.get("dataset", {})
    model = {**{key: data[key] for key in (
        "input_dim", "num_classes", "max_seq_len") if key in data},
        **public.get("model", {})}
    wrong = []
    backbone = model.get("backbone_type", backbone_type)
    if backbone != backbone_type:
        wrong.append(f"backbone_type={backbone}")
    if model.get("scale_factor", 2) != 2:
        wrong.append(f"scale_factor={model['scale_factor']}")
    if model.get("fpn_start_level", 0):
        wrong.append(f"fpn_start_level={model['fpn_start_level']}")
    if wrong:
        raise InputError("these options of the public code are not built: "
                         + ", ".join(wrong) + "; convert a head that was "
                         "trained without them, or train one here")
    return model


def shared_settings(model: Mapping[str, Any], train: Mapping[str, Any]
                    ) -> dict[str, Any]:
    """Returns keys of the config section `head`, and in_width, num_classes
    and max_tokens; what a file leaves out has the public code's default.

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
    """One number for all levels, or one for each."""
    return tuple(value) if isinstance(value, Sequence) else (value,)


# --- Settings that shapes tell ----------------------------------------------


def shape_settings(parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns keys of the config section `head` that the shapes tell."""
    def count(prefix: str) -> int:
        numbers = {name.removeprefix(prefix).split("/")[0]
                   for name in parameters if name.startswith(prefix)}
        return len(numbers)

    def shape(name: str) -> tuple[int, ...]:
        return parameters[name].shape

    first = shape("pyramid/embedding/0/conv/kernel")
    has_neck = "neck/lateral/0/kernel" in parameters
    settings: dict[str, Any] = {
        "in_width": first[1], "width": first[2],
        "embedding_kernel": first[0],
        "num_classes": shape("cls/out/kernel")[2],
        "num_levels": 1 + count("pyramid/branch/"),
        "num_embedding_convs": count("pyramid/embedding/"),
        "embedding_norm": "pyramid/embedding/0/norm/scale" in parameters,
        "num_stem_blocks": count("pyramid/stem/"),
        "neck": "fpn" if has_neck else "identity",
        "neck_norm": "neck/norms/0/scale" in parameters,
        "head_layers": 1 + count("cls/convs/"),
        "head_kernel": shape("cls/out/kernel")[0],
        "head_width": shape("cls/out/kernel")[1],
        "head_norm": "cls/convs/0/norm/scale" in parameters,
        "drop_path": 0.1 if any(name.endswith("mlp_scale")
                                for name in parameters) else 0.0,
    }
    if has_neck:
        settings["neck_width"] = shape("neck/lateral/0/kernel")[2]
    return settings
