"""Every recipe resolves to what is stored: a change shows in review.

After a wanted change: python -m tests.test_configs
"""

import importlib
import json
from pathlib import Path

import pytest

STORED = Path(__file__).parent / "stored_configs.json"
RECIPES = ("custom", "quick", "quick:ablation", "activitynet", "thumos",
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
           "thumos_features:i3d_opentad", "activitynet_features:tsp_opentad")


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
                "h, each also with _none, _ladder, _tia, _full")):
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


if __name__ == "__main__":
    STORED.write_text(json.dumps(
        {recipe: _resolve(recipe) for recipe in RECIPES}, indent=1,
        sort_keys=True) + "\n")
