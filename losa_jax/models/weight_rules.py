"""Which tensor of a checkpoint is which parameter: the one table.

Every rule names a tensor of a layout, the parameter that it is, and how the
axes move; the same rows are read from left to right to convert and from right
to left to give a checkpoint back.

Layouts: VideoMAE and VideoMAEv2 (MIT), names and orders in the fixtures'
README; Hugging Face `transformers` VideoMAE (Apache-2.0), with the older
`q_bias` and the newer `query.bias`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from losa_jax.errors import InputError
from losa_jax.models.vit import VitSpec


class Transform(NamedTuple):
    """How the axes move; `ours` may leave the last reshape to the caller."""

    ours: Callable[[np.ndarray], np.ndarray]
    theirs: Callable[[np.ndarray], np.ndarray]


SAME = Transform(lambda x: x, lambda x: x)
# torch's linear weights are [out, in].
LINEAR = Transform(lambda x: x.T, lambda x: x.T)
# torch [c, 3, tubelet, patch, patch] <-> [tubelet, patch, patch, 3, c].
CONV = Transform(lambda x: x.transpose(2, 3, 4, 1, 0),
                 lambda x: x.transpose(4, 3, 0, 1, 2))
# [1, u h w, c] <-> [u, h, w, c]
POSITIONS = Transform(lambda x: x, lambda x: x.reshape(1, -1, x.shape[-1]))
# [heads, 1, 1] <-> [heads]
PER_HEAD = Transform(lambda x: x, lambda x: x.reshape(-1, 1, 1))


class Rule(NamedTuple):
    """One row.

    Attributes:
      source: name in the checkpoint; "#" stands for the block's number.
      target: our name; targets under "blocks/" are stacked over blocks.
      transform: of one block.
      third: which third of the target's last axis it fills; None: all of it.
    """

    source: str
    target: str
    transform: Transform
    third: int | None = None


def _affine(source: str, target: str) -> tuple[Rule, Rule]:
    return (Rule(f"{source}.weight", f"{target}/scale", SAME),
            Rule(f"{source}.bias", f"{target}/bias", SAME))


def _linear(source: str, target: str, kernel: Transform = LINEAR
            ) -> tuple[Rule, Rule]:
    return (Rule(f"{source}.weight", f"{target}/kernel", kernel),
            Rule(f"{source}.bias", f"{target}/bias", SAME))


VIDEOMAEV2, HUGGING_FACE = "VideoMAEv2", "Hugging Face"
_ATTENTION = "encoder.layer.#.attention.attention"
RULES: dict[str, tuple[Rule, ...]] = {
    VIDEOMAEV2: (
        *_linear("patch_embed.proj", "patch_embed", CONV),
        Rule("pos_embed", "pos_embed", POSITIONS),
        *_affine("blocks.#.norm1", "blocks/norm1"),
        Rule("blocks.#.attn.qkv.weight", "blocks/attn/qkv/kernel", LINEAR),
        Rule("blocks.#.attn.q_bias", "blocks/attn/q_bias", SAME),
        Rule("blocks.#.attn.v_bias", "blocks/attn/v_bias", SAME),
        Rule("blocks.#.attn.scale", "blocks/attn/logit_scale", PER_HEAD),
        *_linear("blocks.#.attn.proj", "blocks/attn/proj"),
        *_affine("blocks.#.norm2", "blocks/norm2"),
        *_linear("blocks.#.mlp.fc1", "blocks/mlp/fc1"),
        *_linear("blocks.#.mlp.fc2", "blocks/mlp/fc2"),
        Rule("blocks.#.gamma_1", "blocks/gamma_1", SAME),
        Rule("blocks.#.gamma_2", "blocks/gamma_2", SAME),
        *_affine("norm", "norm"),
        *_affine("fc_norm", "fc_norm"),
        *_linear("head", "classifier"),
    ),
    HUGGING_FACE: (
        *_linear("embeddings.patch_embeddings.projection", "patch_embed",
                 CONV),
        *_affine("encoder.layer.#.layernorm_before", "blocks/norm1"),
        *(Rule(f"{_ATTENTION}.{name}.weight", "blocks/attn/qkv/kernel",
               LINEAR, third)
          for third, name in enumerate(("query", "key", "value"))),
        Rule(f"{_ATTENTION}.q_bias", "blocks/attn/q_bias", SAME),
        Rule(f"{_ATTENTION}.query.bias", "blocks/attn/q_bias", SAME),
        Rule(f"{_ATTENTION}.v_bias", "blocks/attn/v_bias", SAME),
        Rule(f"{_ATTENTION}.value.bias", "blocks/attn/v_bias", SAME),
        *_linear("encoder.layer.#.attention.output.dense",
                 "blocks/attn/proj"),
        *_affine("encoder.layer.#.layernorm_after", "blocks/norm2"),
        *_linear("encoder.layer.#.intermediate.dense", "blocks/mlp/fc1"),
        *_linear("encoder.layer.#.output.dense", "blocks/mlp/fc2"),
        *_affine("layernorm", "norm"),
        *_affine("fc_norm", "fc_norm"),
        *_linear("classifier", "classifier"),
    ),
}


def _pattern(rule: Rule) -> re.Pattern[str]:
    number = r"(0|[1-9][0-9]{0,5})"
    return re.compile(re.escape(rule.source).replace(r"\#", number))


_PATTERNS = {layout: [(_pattern(rule), rule) for rule in rules]
             for layout, rules in RULES.items()}


def match(name: str, layout: str) -> tuple[Rule, int | None] | None:
    """The rule for a tensor's name and the block's number, if any."""
    for pattern, rule in _PATTERNS[layout]:
        if found := pattern.fullmatch(name):
            return rule, int(found[1]) if pattern.groups else None
    return None


def expected_shapes(spec: VitSpec) -> dict[str, tuple[int, ...]]:
    """Every parameter of the backbone, flat names, blocks stacked on axis 0.

    The same tree as `losa_jax.models.vit.VisionTransformer`.
    """
    c, m = spec.width, spec.mlp_width
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed/kernel": (spec.tubelet, spec.patch, spec.patch, 3, c),
        "patch_embed/bias": (c,),
    }
    if spec.positions == "learned":
        shapes["pos_embed"] = (spec.clip_tokens, *spec.grid, c)
    block: dict[str, tuple[int, ...]] = {
        "norm1/scale": (c,), "norm1/bias": (c,),
        "attn/qkv/kernel": (c, 3 * c),
        "attn/q_bias": (c,), "attn/v_bias": (c,),
        "attn/proj/kernel": (c, c), "attn/proj/bias": (c,),
        "norm2/scale": (c,), "norm2/bias": (c,),
        "mlp/fc1/kernel": (c, m), "mlp/fc1/bias": (m,),
        "mlp/fc2/kernel": (m, c), "mlp/fc2/bias": (c,),
    }
    if spec.cosine_attention:
        block["attn/logit_scale"] = (spec.heads,)
    if spec.layer_scale:
        block |= {"gamma_1": (c,), "gamma_2": (c,)}
    shapes |= {f"blocks/{name}": (spec.depth, *shape)
               for name, shape in block.items()}
    if spec.final_norm != "none":
        shapes |= {f"{spec.final_norm}/scale": (c,),
                   f"{spec.final_norm}/bias": (c,)}
    if spec.num_classes:
        shapes |= {"classifier/kernel": (c, spec.num_classes),
                   "classifier/bias": (spec.num_classes,)}
    return shapes


class Slot(NamedTuple):
    """One tensor of a checkpoint and its place in our parameters.

    Attributes:
      names: that the checkpoint may call it, the usual one first.
      rule: of the table.
      block: number, None outside the blocks.
      shape: of our block's part that it fills.
    """

    names: tuple[str, ...]
    rule: Rule
    block: int | None
    shape: tuple[int, ...]

    @property
    def source_shape(self) -> tuple[int, ...]:
        """What the checkpoint's tensor must be."""
        dummy = np.broadcast_to(np.int8(0), self.shape)
        return self.rule.transform.theirs(dummy).shape

    def ours(self, values: np.ndarray) -> np.ndarray:
        """The checkpoint's tensor as the part that it fills."""
        return self.rule.transform.ours(values).reshape(self.shape)

    def theirs(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        """The checkpoint's tensor cut out of our parameters."""
        values = params[self.rule.target]
        if self.block is not None:
            values = values[self.block]
        if self.rule.third is not None:
            first = self.rule.third * self.shape[-1]
            values = values[..., first:first + self.shape[-1]]
        return self.rule.transform.theirs(values)


def slots(spec: VitSpec, layout: str) -> list[Slot]:
    """Every tensor that a checkpoint of this spec must have.

    In the order of `expected_shapes`, block by block, thirds in order.
    """
    result = []
    for target, whole in expected_shapes(spec).items():
        rules = [rule for rule in RULES[layout] if rule.target == target]
        if not rules:
            raise InputError(f"the layout of {layout} has no {target}")
        stacked = target.startswith("blocks/")
        for block in range(spec.depth) if stacked else [None]:
            shape = whole[1:] if stacked else whole
            for third in dict.fromkeys(rule.third for rule in rules):
                alike = [rule for rule in rules if rule.third == third]
                part = shape if third is None else (
                    *shape[:-1], shape[-1] // 3)
                names = tuple(rule.source.replace("#", str(block))
                              for rule in alike)
                result.append(Slot(names, alike[0], block, part))
    return result


def check_parameters(spec: VitSpec,
                     shapes: Iterable[tuple[str, tuple[int, ...]]],
                     source: str) -> None:
    """Raises InputError with all differences from `expected_shapes`."""
    have, want = dict(shapes), expected_shapes(spec)
    problems = [f"missing: {name} {list(want[name])}"
                for name in want if name not in have]
    problems += [f"unexpected: {name} {list(have[name])}"
                 for name in have if name not in want]
    problems += [
        f"wrong shape: {name} is {list(have[name])}, its description asks "
        f"for {list(want[name])}"
        for name in want if name in have and have[name] != want[name]]
    if problems:
        raise InputError(f"{source} does not fit its description:\n  "
                         + "\n  ".join(problems))


def to_videomae(spec: VitSpec, params: Mapping[str, np.ndarray]
                ) -> dict[str, np.ndarray]:
    """Our flat parameters under VideoMAEv2's names and in its axis order.

    The exact inverse of the conversion. The arrays are views of `params`,
    not contiguous.

    Raises:
      InputError: the parameters are not those of the spec.
    """
    check_parameters(spec, ((name, tuple(value.shape))
                            for name, value in params.items()),
                     "the tree of parameters")
    return {slot.names[0]: slot.theirs(params)
            for slot in slots(spec, VIDEOMAEV2)}
