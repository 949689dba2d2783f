"""Every recipe resolves to what is stored: a change shows in review.

After a wanted change: python -m tests.test_configs
"""

import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import common
from losa_jax.models.backbones import backbone_template, requested_spec
from losa_jax.planning.estimate import matmul_flops

STORED = Path(__file__).parent / "stored_configs.json"
RECIPES = ("custom", "quick", "quick:ablation", "quick:hard", "activitynet",
           "thumos",
           "activitynet:g1536", "activitynet:s", "activitynet:s_proposals",
           "activitynet:g1536_proposals",
           "thumos_features", "thumos_features:i3d_tridet",
           "thumos_features:videomaev2", "thumos_features:videomaev2_tridet",
           "activitynet_features", "activitynet_features:tsp_tridet",
           "thumos:g768",
           "thumos:s", "thumos:b", "thumos:l", "thumos:h", "thumos:s_none",
           "thumos:g1536_ladder", "thumos:g1536_tia", "thumos:b_full",
           "activitynet:l", "activitynet:g1536_proposals_tia",
           "activitynet:s_proposals_none", "activitynet:b_proposals_full",
           "thumos_features:i3d_opentad", "activitynet_features:tsp_opentad",
           *(f"thumos:{name}" for name in common.OTHER_FAMILIES),
           "activitynet:vjepa2_g", "activitynet:videoprism_l_proposals_none",
           "multithumos", "multithumos:s_tia", "multithumos:g1536_tia",
           "multithumos_features", "multithumos_features:i3d_rgb",
           "epic", "epic:noun_tia", "epic_features", "epic_features:noun",
           "epic_features:noun_opentad", "epic_features:verb_tridet",
           "epic_features:noun_tridet", "charades", "charades:g_tia",
           "charades_features", "charades_features:videomae",
           "hacs_features", "hacs_features:i3d_tridet",
           "hacs_features:slowfast_proposals", "ego4d:l_tia",
           "ego4d_features",
           "ego4d_features:slowfast_egovlp",
           "ego4d_features:internvideo_opentad", "fineaction_features",
           "fineaction_features:videomae", "epic_sounds_features")


def _resolve(recipe):
    name, _, variant = recipe.partition(":")
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config(variant) if variant else module.get_config()
    flat = {}

    def walk(section, prefix):
        for key, value in section.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(config.to_dict(), "")
    return json.loads(json.dumps(flat))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_the_stored_one(recipe):
    assert _resolve(recipe) == json.loads(STORED.read_text())[recipe]


def test_every_config_file_is_a_recipe():
    files = {path.stem for path in Path("configs").glob("*.py")}
    assert files - {"__init__", "common"} == {
        recipe.partition(":")[0] for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
def test_headers_say_command_and_result(recipe):
    module = importlib.import_module(
        f"configs.{recipe.partition(':')[0]}")
    for word in ("python -m losa_jax.main --config=configs/", "Hardware"):
        assert word in module.__doc__


def test_unknown_variant_names_the_known_ones():
    module = importlib.import_module("configs.thumos")
    for variant in ("xl", "s_losa", "none"):
        with pytest.raises(ValueError, match=(
                f"thumos.py:{variant}: the variants are g1536, g768, s, b, l, "
                "h, vjepa2_l, .*, each also with _none, _ladder, _tia, "
                "_full")):
            module.get_config(variant)


@pytest.mark.parametrize("name", ["thumos", "activitynet"])
def test_every_size_of_backbone_has_a_recipe(name):
    module = importlib.import_module(f"configs.{name}")
    for variant in ("s", "b", "l", "h", "g768", "g1536"):
        config = module.get_config(variant)
        assert config.backbone.name == f"vit_{variant[0]}"
        assert (config.augment.size, config.window.samples) == (
            (224, 1536) if variant == "g1536" else
            (224, 768) if (name, variant) == ("activitynet", "l") else
            (160, 768))


def _spec(config):
    return requested_spec({"name": config.backbone.name},
                          clip_frames=config.window.clip_samples,
                          image_size=(config.augment.size,) * 2)


def _window_flops(config):
    """Returns the operations of encoding one window."""
    window, side = config.window, config.augment.size
    clips = jax.ShapeDtypeStruct(
        (window.samples // window.clip_samples, window.clip_samples, side,
         side, 3), jnp.uint8)
    template = backbone_template(_spec(config))
    return matmul_flops(jax.make_jaxpr(
        lambda tree, clips: template.bind(tree).features(clips).last)(
            template.shapes, clips))


@pytest.mark.parametrize("recipe", ["thumos", "activitynet"])
@pytest.mark.parametrize("name", common.OTHER_FAMILIES)
def test_a_window_of_another_family_costs_no_more_than_videomaes(name, recipe):
    module = importlib.import_module(f"configs.{recipe}")
    other = module.get_config(name)
    same = module.get_config(common.OTHER_FAMILIES[name].size)
    # The pixels of larger patches are a few more products.
    assert _window_flops(other) <= 1.001 * _window_flops(same)
    seconds = [config.window.samples * config.window.frame_stride
               for config in (other, same)]
    assert seconds[0] == seconds[1]
    specs = [_spec(config) for config in (other, same)]
    assert other.augment.size % specs[0].patch == 0
    tokens = [config.window.samples // spec.tubelet
              for config, spec in zip((other, same), specs, strict=True)]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("name", common.OTHER_FAMILIES)
def test_another_family_changes_nothing_but_its_frames(name):
    other = _resolve(f"thumos:{name}")
    same = _resolve(f"thumos:{common.OTHER_FAMILIES[name].size}")
    assert {key for key in other if other[key] != same[key]} <= {
        "backbone.name", "window.samples", "window.frame_stride",
        "window.clip_samples", "augment.size"}


if __name__ == "__main__":
    STORED.write_text(json.dumps(
        {recipe: _resolve(recipe) for recipe in RECIPES}, indent=1,
        sort_keys=True) + "\n")
