"""The headers of recipes and docs/planning.md state what --mode=plan gave."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from benchmarks.recipe_plans import RECIPES, RESULTS, TOPOLOGY
from losa_jax.jobs.plan import DEFAULT_CLASSES
from losa_jax.planning.estimate import estimate, trace_steps
from losa_jax.planning.topology import describe_devices
from losa_jax.training import build

STORED = json.loads(RESULTS.read_text())


def _peak_gib(recipe):
    return max(STORED[recipe]["gib"].values())


@pytest.mark.parametrize("file", ["thumos", "activitynet"])
def test_a_header_states_the_memory_of_its_recipes(file):
    header = " ".join(
        importlib.import_module(f"configs.{file}").__doc__.split())
    line = re.search(
        rf"Hardware: GiB a chip of {TOPOLOGY} by --mode=plan: ([^;]*);",
        header)[1]
    stated = dict(pair.split() for pair in line.split(", "))
    assert {f"{file}:{name}": float(gib) for name, gib in stated.items()} == {
        recipe: _peak_gib(recipe) for recipe in STORED
        if recipe.startswith(f"{file}:")}


def test_every_stored_recipe_fits_its_chips():
    assert set(STORED) <= set(RECIPES)
    assert {"thumos:g1536", "activitynet:g768", "activitynet:g1536"} <= set(
        STORED)
    for recipe, stored in STORED.items():
        assert stored["topology"] == TOPOLOGY and stored["fits"], recipe


def test_the_planning_page_has_the_memory_of_every_stored_recipe():
    page = Path("docs/planning.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+\.py:\w+)` \| .* \| ([\d.]+) \|$", page,
                           re.MULTILINE))
    assert {name.replace(".py:", ":"): float(gib)
            for name, gib in rows.items()} == {
        recipe: _peak_gib(recipe) for recipe in STORED}


@pytest.mark.slow
@pytest.mark.libtpu
def test_the_smallest_recipe_needs_the_stored_memory():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (extra `tpu`)")
    config = importlib.import_module("configs.thumos").get_config("s")
    chip, devices = describe_devices(TOPOLOGY)
    mesh = build.build_mesh(config, devices)
    steps = trace_steps(config, DEFAULT_CLASSES, mesh)
    need = estimate(steps.evaluate, chip, len(devices),
                    batch_bytes=steps.evaluate_batch_bytes)
    assert need.peak_bytes / 2**30 == pytest.approx(
        STORED["thumos:s"]["gib"]["evaluate"], rel=0.05)
