"""What the table of names of a family of backbones is made of.

A table is `RULES` of the family's module (see the package's docstring).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from losa_jax.errors import InputError
from losa_jax.weights.checkpoint_file import Tensor


class Layout(NamedTuple):
    """How a checkpoint's array differs from the parameter, given the spec.

    Attributes:
      to_flax: (array of one tensor, spec) to the parameter (of one block).
      to_source: its exact inverse.
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
    """One parameter.

    Attributes:
      source: name in the checkpoint; {i} counts the blocks, which the
        parameter stacks on a first axis.
      parameter: its path, such as "blocks/attn/qkv/kernel".
      layout: how the two arrays differ.
    """

    source: str
    parameter: str
    layout: Layout


class Renamed(NamedTuple):
    """The tensors of a checkpoint by the names of its family's table.

    Attributes:
      tensors: unread.
      hints: arguments of `infer_spec` from a config beside the checkpoint.
      notes: what was renamed or dropped, for people.
      layout: which program's names the file has.
    """

    tensors: dict[str, Tensor]
    hints: dict[str, Any]
    notes: tuple[str, ...]
    layout: str


def rename(tensors: Mapping[str, Tensor],
           patterns: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Returns the tensors under new names.

    Args:
      tensors: by name.
      patterns: (regular expression, replacement); the first that matches all
        of a name applies, and a name that none matches stays.

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
            raise InputError(f"{origin[new]} and {name} are both {new}: one "
                             "of them does not belong in the checkpoint")
        renamed[new], origin[new] = tensor, name
    return renamed
