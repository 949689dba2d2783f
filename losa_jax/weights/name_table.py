"""The tables of names of all families of backbones, read in both directions.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import NamedTuple

import numpy as np

from losa_jax.models.backbones import backbone_template, family_of
from losa_jax.models.backbones.base import BackboneSpec
from losa_jax.models.ops.params import flatten
from losa_jax.weights import rules, videomae, videoprism, vjepa2

# The package's docstring lists what such a module defines.
FAMILIES: dict[str, ModuleType] = {
    "videomae": videomae,
    "videoprism": videoprism,
    "vjepa2": vjepa2,
}


class Place(NamedTuple):
    """Where a tensor of a checkpoint belongs.

    Attributes:
      rule: of the table.
      block: index on the first axis of the parameter; None if not stacked.
      shape: that the tensor must have in the checkpoint.
    """

    rule: rules.Rule
    block: int | None
    shape: tuple[int, ...]

    def of(self, params: Mapping[str, np.ndarray], spec: BackboneSpec
           ) -> np.ndarray:
        """Returns the tensor as it is in the checkpoint."""
        array = params[self.rule.parameter]
        return self.rule.layout.to_source(
            array if self.block is None else array[self.block], spec)


def expected_shapes(spec: BackboneSpec) -> dict[str, tuple[int, ...]]:
    """Returns {parameter path: shape}; blocks are stacked."""
    return {name: tuple(leaf.shape) for name, leaf in
            flatten(backbone_template(spec).shapes).items()}


def expected_source(spec: BackboneSpec) -> dict[str, Place]:
    """Returns {name in the checkpoint: where it belongs}."""
    shapes = expected_shapes(spec)
    expected = {}
    for rule in FAMILIES[family_of(spec)].RULES:
        if rule.parameter not in shapes:
            continue
        stacked = "{i}" in rule.source
        shape = shapes[rule.parameter]
        # A view of one number: the layout changes its shape at no cost.
        probe = np.broadcast_to(False, shape[1:] if stacked else shape)
        source_shape = rule.layout.to_source(probe, spec).shape
        for block in range(shape[0]) if stacked else (None,):
            expected[rule.source.format(i=block)] = Place(
                rule, block, source_shape)
    return expected


def source_tensors(spec: BackboneSpec, params: Mapping[str, np.ndarray]
                   ) -> dict[str, np.ndarray]:
    """Returns flat parameters in the checkpoint's layout, exactly."""
    return {name: np.ascontiguousarray(place.of(params, spec))
            for name, place in expected_source(spec).items()}
