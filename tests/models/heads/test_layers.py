"""What both heads are made of; test_head_parity.py has the public numbers."""

import jax
import numpy as np
import pytest
from flax import nnx

from losa_jax.models.heads.base import PyramidSpec
from losa_jax.models.heads.layers import OutputHead
from losa_jax.models.ops.params import flatten, parameters


@pytest.mark.parametrize("changes, kernel_size", [
    ({}, 3), ({}, 1), ({"opentad": True}, 5),
    ({"reference_masking": True}, 3), ({"head_norm": False}, 5),
    ({"opentad": True, "reference_masking": True}, 3)])
def test_levels_together_are_each_alone(changes, kernel_size):
    spec = PyramidSpec(6, 3, width=8, **changes)
    head = OutputHead(spec, 3, nnx.Rngs(0), kernel_size=kernel_size)
    rng = np.random.default_rng(0)
    for leaf in jax.tree.leaves(nnx.state(head, nnx.Param),
                                is_leaf=lambda x: isinstance(x, nnx.Param)):
        # Biases of zero would hide what runs from one level into the next.
        leaf[...] = rng.normal(size=leaf.shape).astype(np.float32)
    assert all(np.abs(leaf).min() > 0
               for leaf in flatten(parameters(head)).values())
    levels = []
    for length, valid in ((12, 9), (6, 5), (3, 3), (1, 1)):
        mask = np.arange(length)[None] < valid
        tokens = rng.normal(size=(1, length, 8)).astype(np.float32)
        levels.append((tokens * mask[..., None], mask))
    run = jax.jit(head)
    together = run(levels)
    for level, got in zip(levels, together, strict=True):
        (alone,) = run([level])
        assert got.shape == (1, level[0].shape[1], 3)
        np.testing.assert_allclose(got, alone, atol=1e-5)
