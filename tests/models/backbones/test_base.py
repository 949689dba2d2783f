"""VideoMAE keeps the contract of backbones; specs refuse what cannot be."""

import pytest

from losa_jax.errors import InputError
from losa_jax.models.backbones import BACKBONES, backbone_template, family_of
from losa_jax.models.backbones.videomae import VideoMaeSpec
from losa_jax.weights.name_table import FAMILIES
from tests.models.backbones.contract import check_family

TINY = dict(width=24, depth=3, heads=2, mlp_width=40, patch=8, clip_frames=4,
            image_size=(16, 24))


@pytest.mark.parametrize("options", [
    {}, {"positions": "learned", "layer_scale": True, "num_classes": 3,
         "cosine_attention": True},
    {"final_norm": "norm"}, {"final_norm": "none"}])
def test_videomae_keeps_the_contract(tmp_path, options):
    check_family(VideoMaeSpec(**TINY | options), tmp_path)


@pytest.mark.parametrize("field, value, message", [
    ("positions", "learnt", "VideoMaeSpec.positions='learnt': choose one of "
                            "sincos, learned"),
    ("final_norm", "layer", "VideoMaeSpec.final_norm='layer': choose one of "
                            "norm, fc_norm, none"),
    ("heads", 5, "VideoMaeSpec.width=24 does not divide by .*heads=5"),
    ("depth", 0, "VideoMaeSpec.depth=0"),
    ("clip_frames", 5, "VideoMaeSpec.clip_frames=5 cannot be cut into "
                       "tubelets of 2"),
    ("image_size", (4, 24), "VideoMaeSpec.image_size=.* below the patch of 8"),
])
def test_a_spec_checks_itself(field, value, message):
    with pytest.raises(InputError, match=message):
        VideoMaeSpec(**TINY | {field: value})


def test_each_family_has_weights_and_unique_names():
    assert set(FAMILIES) == set(BACKBONES)
    sizes = [name for family in BACKBONES.values() for name in family.sizes]
    assert len(sizes) == len(set(sizes))
    for name, family in BACKBONES.items():
        module = FAMILIES[name]
        assert module.TITLE and module.RULES and module.HINTS is not None
        for size in family.sizes.values():
            spec = family.spec(**size)
            assert family_of(spec) == name
            assert backbone_template(spec).shapes
