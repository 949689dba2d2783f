"""Lines of a family's table of names, and their application."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from losa_jax.errors import InputError
from losa_jax.weights.torch_pickle import Tensor


class Layout(NamedTuple):
    """How a tensor of the checkpoint becomes a parameter, and the inverse.

    Both take the array (of one block where blocks are stacked) and the spec.
    """

    to_flax: Callable[[np.ndarray, Any], np.ndarray]
    to_source: Callable[[np.ndarray, Any], np.ndarray]


# PyTorch's linear maps are (out, in) and Flax's (in, out); PyTorch's
# convolutions are (out, in, t, h, w) and Flax's (t, h, w, in, out).
SAME = Layout(lambda array, spec: array, lambda array, spec: array)
LINEAR = Layout(lambda array, spec: array.T, lambda array, spec: array.T)
CONV = Layout(lambda array, spec: array.transpose(2, 3, 4, 1, 0),
              lambda array, spec: array.transpose(4, 3, 0, 1, 2))


class Rule(NamedTuple):
    """One line of a table.

    Attributes:
      source: name in the checkpoint; {i} counts the blocks, which the
        parameter stacks on a first axis.
      parameter: its path, such as "blocks/attn/qkv/kernel".
      layout: how the two arrays differ.
    """

    source: str
    parameter: str
    layout: Layout


def rename(tensors: Mapping[str, Tensor],
           patterns: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Returns the tensors under new names.

    Args:
      patterns: (regular expression, replacement): the first that matches the
        whole name applies; other names stay.

    Raises:
      InputError: two tensors would get one name.
    """
    patterns = tuple(patterns)
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        new = next((match.expand(replacement)
                    for pattern, replacement in patterns
                    if (match := re.fullmatch(pattern, name))), name)
        if new in renamed:
            raise InputError(f"tensors {origin[new]} and {name} both become "
                             f"{new}: remove one from the checkpoint")
        renamed[new], origin[new] = tensor, name
    return renamed


def block_shapes(shapes: Mapping[str, tuple[int, ...]], rules: Iterable[Rule],
                 prefix: str) -> dict[str, dict[int, tuple[int, ...]]]:
    """Returns {name within a block: {block: shape}} for a table's names.

    `prefix` precedes the number of the block, such as "blocks.".
    """
    numbered = prefix + "{i}."
    blocks: dict[str, dict[int, tuple[int, ...]]] = {
        rule.source.removeprefix(numbered): {} for rule in rules
        if rule.source.startswith(numbered)}
    for name, shape in shapes.items():
        match = re.fullmatch(re.escape(prefix) + r"(\d+)\.(.+)", name)
        if match and match[2] in blocks:
            blocks[match[2]][int(match[1])] = shape
    return blocks
