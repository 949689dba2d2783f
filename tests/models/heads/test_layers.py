"""What both heads are made of; tests/weights/test_head_folder.py has the public
numbers."""

import jax
import numpy as np
import pytest
from flax import nnx

from losa_jax.errors import InputError
from losa_jax.models.heads.actionformer import ActionFormerSpec
from losa_jax.models.heads.layers import OutputHead
from losa_jax.models.heads.pyramid_spec import PyramidSpec
from losa_jax.models.heads.tridet import TriDetSpec
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


NAN = float("nan")


@pytest.mark.parametrize("wrong, message", [
    ({"in_width": 0}, "in_width=0"),
    ({"num_classes": 0}, "num_classes=0"),
    ({"num_levels": 1.5}, "num_levels=1.5: .* a whole number"),
    ({"num_levels": True}, "num_levels=True"),
    ({"num_embedding_convs": -1}, "num_embedding_convs=-1"),
    ({"num_embedding_convs": 0}, "num_embedding_convs=0 leaves .*in_width=6"),
    *(({"input_widths": one, "input_projections": other},
       "input_widths=.* with the sum PyramidSpec.in_width=6")
      for one, other in (((2, 4), (3,)), ((2, 5), (3, 3)), ((), (3,)),
                         ((6, 0), (3, 3)), ((2, 4), (3, 3.0)))),
    ({"num_stem_blocks": -1}, "num_stem_blocks=-1: must be at least 0"),
    ({"embedding_kernel": 2}, "embedding_kernel=2: must be an odd number"),
    ({"head_kernel": 0}, "head_kernel=0: must be an odd number"),
    ({"head_width": -1}, "head_width=-1"),
    ({"neck_width": -1}, "neck_width=-1"),
    ({"head_norm": "no"}, "head_norm='no'"),
    ({"prior_probability": 0.0}, "prior_probability=0.0: must be above 0"),
    ({"prior_probability": 1.0}, "prior_probability=1.0: .* below 1"),
    ({"max_tokens": 0}, "max_tokens=0"),
    ({"drop_path": 1.0}, "drop_path=1.0: must be at least 0 and below 1"),
    ({"input_dropout": -0.1}, "input_dropout=-0.1"),
    ({"input_dropout": 1}, "input_dropout=1"),
    ({"input_noise": -1.0}, "input_noise=-1.0: must be at least 0"),
    ({"input_noise": NAN}, "input_noise=nan"),
    ({"center_radius": -1.0}, "center_radius=-1.0: must be above 0"),
    ({"center_radius": NAN}, "center_radius=nan"),
    ({"label_smoothing": 2.0}, "label_smoothing=2.0"),
    ({"regression_weight": NAN}, "regression_weight=nan: .* finite number"),
    ({"normalizer_momentum": 1.1}, "normalizer_momentum=1.1: .* at most 1"),
    ({"regression_edges": (4.0,)}, "regression_edges=.* 5 ascending numbers"),
    *(({"num_levels": 3, "regression_edges": edges}, "regression_edges=")
      for edges in ((8.0, 4.0), (4.0, 4.0), (0.0, 4.0), (-4.0, 4.0),
                    (4.0, NAN), (NAN, 4.0), (4.0, float("inf")), ("a", "b"),
                    [4.0, 8.0], 4.0, None))])
def test_invalid_specs_raise_an_error_that_names_the_field(wrong, message):
    with pytest.raises(InputError, match=f"PyramidSpec.{message}"):
        PyramidSpec(**{"in_width": 6, "num_classes": 3, "width": 8, **wrong})


def test_unusual_but_valid_specs_are_accepted():
    """No embedding, no stem, a loss that weighs itself."""
    PyramidSpec(8, 3, width=8, num_embedding_convs=0, num_stem_blocks=0,
                regression_weight=-1.0, center_radius=None, num_levels=2,
                regression_edges=(5,), normalizer_momentum=1)


def test_a_subclass_describes_the_fields_of_both():
    for spec, own in ((ActionFormerSpec, "dropout"), (TriDetSpec, "iou_power")):
        lines = spec.__doc__.splitlines()
        assert sum(line.strip() == "Attributes:" for line in lines) == 1
        fields = [line.strip().partition(": ")[0] for line in lines]
        for name in ("in_width, width", "normalizer_momentum", own):
            assert fields.count(name) == 1
