"""Tables of names: which tensor of a checkpoint is which parameter of ours.

One mechanism for every family of backbones, in both directions; the table
itself is `RULES` of the family's weights module (see the package).
"""

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from losa_jax.errors import InputError
from losa_jax.models.backbones import (
    BACKBONES,
    backbone_template,
    family_of,
)
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.ops.params import flatten
from losa_jax.weights.checkpoint_file import Tensor


class Layout(NamedTuple):
    """What becomes of an array on its way, given the spec.

    Attributes:
      to_ours: (source array, of one block where blocks are stacked, and
        spec) to our array.
      to_source: its exact inverse.
    """

    to_ours: Callable[[np.ndarray, Any], np.ndarray]
    to_source: Callable[[np.ndarray, Any], np.ndarray]


# PyTorch's linear maps are (out, in), ours (in, out); its convolutions
# (out, in, t, h, w), ours (t, h, w, in, out).
SAME = Layout(lambda array, spec: array, lambda array, spec: array)
LINEAR = Layout(lambda array, spec: array.T, lambda array, spec: array.T)
CONV = Layout(lambda array, spec: array.transpose(2, 3, 4, 1, 0),
              lambda array, spec: array.transpose(4, 3, 0, 1, 2))


class Rule(NamedTuple):
    """One parameter.

    Attributes:
      source: name in the checkpoint; {i} counts the blocks that ours stacks
        on a first axis.
      ours: path of the parameter, as "blocks/attn/qkv/kernel".
      layout: how the two arrays differ.
    """

    source: str
    ours: str
    layout: Layout


class Place(NamedTuple):
    """Where a tensor of a checkpoint belongs.

    Attributes:
      rule: of the table.
      block: its place on the first axis of ours; None if not stacked.
      shape: that it must have in the checkpoint.
    """

    rule: Rule
    block: int | None
    shape: tuple[int, ...]

    def of(self, params: Mapping[str, np.ndarray], spec: BackboneSpec
           ) -> np.ndarray:
        """Returns the tensor as it is in the checkpoint."""
        array = params[self.rule.ours]
        return self.rule.layout.to_source(
            array if self.block is None else array[self.block], spec)


class Renamed(NamedTuple):
    """The tensors of a checkpoint by the names of its family's table.

    Attributes:
      tensors: unread.
      hints: keyword arguments of `infer_spec` that a config beside it gives.
      notes: what was renamed or dropped, for people.
      layout: whose names the file has.
    """

    tensors: dict[str, Tensor]
    hints: dict[str, Any]
    notes: tuple[str, ...]
    layout: str


def weights_module(family: str) -> ModuleType:
    """Returns `losa_jax.weights.<family>`; the package has its contract.

    Raises:
      InputError: the family is not in `BACKBONES`.
    """
    if family not in BACKBONES:
        raise InputError(f"backbone family {family!r}: choose one of "
                         f"{', '.join(BACKBONES)}")
    return importlib.import_module(f"losa_jax.weights.{family}")


def expected_shapes(spec: BackboneSpec) -> dict[str, tuple[int, ...]]:
    """Returns {parameter path: shape}; blocks are stacked."""
    return {name: tuple(leaf.shape) for name, leaf in
            flatten(backbone_template(spec).shapes).items()}


def expected_source(spec: BackboneSpec) -> dict[str, Place]:
    """Returns {name in the checkpoint: where it belongs}."""
    shapes = expected_shapes(spec)
    expected = {}
    for rule in weights_module(family_of(spec)).RULES:
        if rule.ours not in shapes:
            continue
        stacked = "{i}" in rule.source
        shape = shapes[rule.ours]
        # A view of one number: the shape changes as a real tensor's would.
        probe = np.broadcast_to(np.zeros((), np.bool_),
                                shape[1:] if stacked else shape)
        source_shape = rule.layout.to_source(probe, spec).shape
        for block in range(shape[0]) if stacked else (None,):
            expected[rule.source.format(i=block)] = Place(
                rule, block, source_shape)
    return expected


def source_tensors(spec: BackboneSpec, params: Mapping[str, np.ndarray]
                   ) -> dict[str, np.ndarray]:
    """Returns our flat parameters in the checkpoint's layout, exactly."""
    return {name: np.ascontiguousarray(place.of(params, spec))
            for name, place in expected_source(spec).items()}


# --- Names that differ from the table's ------------------------------------


def rename(tensors: Mapping[str, Tensor],
           patterns: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """Returns the tensors under new names.

    Args:
      tensors: by name.
      patterns: (regular expression, replacement); the first that matches
        all of a name counts, and a name that none matches stays.

    Raises:
      InputError: two tensors would get one name.
    """
    patterns = tuple(patterns)
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in tensors.items():
        new = next((match.expand(ours) for pattern, ours in patterns
                    if (match := re.fullmatch(pattern, name))), name)
        if new in renamed:
            raise InputError(f"{origin[new]} and {name} are both {new}: one "
                             "of them does not belong in the checkpoint")
        renamed[new], origin[new] = tensor, name
    return renamed
