"""Backbones by name."""

import math

import pytest

from losa_jax.errors import InputError
from losa_jax.models.backbones import SIZES, backbone_size, size_name
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.weights.name_table import expected_shapes


@pytest.mark.parametrize("name, millions", [
    # Encoders without classifier; VideoMAEv2's table has 22, 86, 304, 633
    # and 1011 with one.
    ("vit_s", 21.9), ("vit_b", 86.2), ("vit_l", 303.9), ("vit_h", 631.7),
    ("vit_g", 1011.6)])
def test_named_sizes_have_the_published_parameter_counts(name, millions):
    shapes = expected_shapes(VideoMaeSpec(**SIZES[name]))
    count = sum(math.prod(shape) for shape in shapes.values())
    assert count / 1e6 == pytest.approx(millions, rel=0.002)


def test_single_numbers_of_a_named_size_can_be_replaced():
    assert backbone_size("vit_s", patch=14) == {**SIZES["vit_s"], "patch": 14}
    spec = VideoMaeSpec(**backbone_size("vit_s", patch=14))
    assert size_name(spec) == "vit_s"


def test_a_size_without_a_name_needs_three_numbers():
    size = backbone_size(width=96, depth=6, heads=4)
    assert size == {"width": 96, "depth": 6, "heads": 4, "mlp_width": 384,
                    "patch": 16}
    assert size_name(VideoMaeSpec(**size)) == ""


@pytest.mark.parametrize("options, message", [
    ({"name": "vit_x"}, "vit_x.*vit_s, vit_b"),
    ({"width": 96}, "needs its depth, heads"),
    ({}, "needs its width, depth, heads, mlp_width"),
    ({"name": "vit_s", "heads": 5}, "width=384 does not divide.*heads=5")])
def test_incomplete_sizes_raise_errors_that_name_the_gap(options, message):
    with pytest.raises(InputError, match=message):
        backbone_size(**options)
