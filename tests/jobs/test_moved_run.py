"""A run is what it was: moved, renamed, or with other backbone weights."""

import json
import shutil

import numpy as np
import pytest

from losa_jax.errors import InputError
from losa_jax.inference.load import load
from losa_jax.jobs import cache as cache_job
from losa_jax.jobs.evaluate import evaluate
from losa_jax.jobs.export import export
from losa_jax.jobs.extract import ExtractSettings, extract
from losa_jax.jobs.train import train
from losa_jax.training import feature_store, restore
from losa_jax.weights import backbone_folder
from losa_jax.weights.name_table import expected_shapes


@pytest.fixture
def place(config, fake_run, tmp_path, monkeypatch):
    """Returns a folder with a run and its backbone, named from there."""
    place = tmp_path / "place"
    shutil.copytree(config.backbone.checkpoint, place / "backbones/tiny")
    shutil.copytree(fake_run, place / "runs/one")
    config = config.copy_and_resolve_references()
    config.backbone.checkpoint = "backbones/tiny"
    (place / "runs/one/config.json").write_text(json.dumps(config.to_dict()))
    monkeypatch.chdir(place)
    facts = restore.run_facts_of(place / "runs/one")
    facts |= restore.backbone_place(config, place / "runs/one")
    monkeypatch.setattr(restore, "run_facts_of", lambda workdir: facts)
    return place


def _other_weights(folder):
    """Replaces the backbone by one of the same size."""
    spec, _, _ = backbone_folder.open_backbone(folder)
    rng = np.random.default_rng(9)
    source = folder.parent / "other.safetensors"
    backbone_folder.save_source(source, spec, {
        name: rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in expected_shapes(spec).items()})
    backbone_folder.convert_backbone(source, folder)


def test_a_run_that_is_moved_along_with_its_backbone_finds_it(
        place, tmp_path, monkeypatch):
    before = load("runs/one").identity
    shutil.move(place, tmp_path / "elsewhere")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert load(tmp_path / "elsewhere/runs/one").identity == before
    # A folder of that name here that is another backbone is not taken.
    shutil.copytree(tmp_path / "elsewhere/backbones", "backbones")
    _other_weights(tmp_path / "other/backbones/tiny")
    assert load("../elsewhere/runs/one").identity == before


def test_a_run_with_a_copy_of_its_backbone_needs_nothing_else(
        place, tmp_path):
    before = load("runs/one").identity
    backbone_folder.copy_backbone(place / "backbones/tiny",
                                  place / "runs/one/backbone")
    shutil.move("runs/one", tmp_path / "alone")
    shutil.rmtree("backbones")
    assert load(tmp_path / "alone").identity == before


def test_without_its_backbone_all_places_are_named(place):
    shutil.rmtree("backbones")
    with pytest.raises(InputError, match=(
            "its backbone is neither in runs/one/backbone nor in "
            "backbones/tiny nor in .*backbones/tiny: give --backbone=")):
        load("runs/one")


@pytest.mark.parametrize("name", [
    "runs/one/config.json", "runs/one/thresholds.json",
    "runs/one/checkpoints/*/state/manifest.ocdbt",
    "runs/one/checkpoints/*/checksums.json", "backbones/tiny/backbone.json",
    "backbones/tiny/backbone.safetensors"])
@pytest.mark.parametrize("backbone", ["", "backbones/tiny"])
def test_pointers_in_place_of_a_runs_files_are_named(place, name, backbone):
    paths = [*place.glob(name)] or [place / name]
    for path in paths:
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=f"{paths[0].name}.*git lfs pull"):
        load("runs/one", backbone=backbone)


OTHER = "weights of the backbone .*the run has those of SHA-256"


def test_every_command_refuses_other_weights(place, config, tmp_path):
    config = config.copy_and_resolve_references()
    config.backbone.checkpoint = str(place / "backbones/tiny")
    run = place / "runs/one"
    cached = config.copy_and_resolve_references()
    cached.window.align_to_clips = True
    cached.data.cache = str(tmp_path / "cache")
    cache_job.cache(cached, tmp_path / "caching")
    _other_weights(place / "backbones/tiny")
    map_file = run / "map.json"
    map_file.write_text("as it was")
    for command in (
            lambda: train(config, run), lambda: evaluate(config, run),
            lambda: export(config, run),
            lambda: extract(config, run, ExtractSettings(
                tmp_path / "features", features="adapted")),
            lambda: load(run)):
        with pytest.raises(InputError, match=OTHER):
            command()
    assert map_file.read_text() == "as it was"
    for command in (lambda: cache_job.cache(cached, tmp_path / "caching"),
                    lambda: feature_store.open_store(cached)):
        with pytest.raises(InputError, match="holds features with backbone="):
            command()


def test_every_command_refuses_damaged_weights(place, config, tmp_path):
    config = config.copy_and_resolve_references()
    config.backbone.checkpoint = str(place / "backbones/tiny")
    path = place / "backbones/tiny/backbone.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    cached = config.copy_and_resolve_references()
    cached.window.align_to_clips = True
    cached.data.cache = str(tmp_path / "cache")
    run = place / "runs/one"
    for command in (
            lambda: train(config, run), lambda: evaluate(config, run),
            lambda: export(config, run), lambda: load(run),
            lambda: extract(config, run, ExtractSettings(
                tmp_path / "features")),
            lambda: cache_job.cache(cached, tmp_path / "caching")):
        with pytest.raises(InputError, match=(
                "backbone.safetensors is not the file that backbone.json")):
            command()
    assert not (tmp_path / "features").exists()
