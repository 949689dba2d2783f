"""The settings of a run as prediction reads them."""

import json
import re

import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import common, custom, thumos
from losa_jax.data.windows.sampling import clip_step
from losa_jax.errors import InputError
from losa_jax.inference import exported
from losa_jax.inference.load import identity_of, load, read_config
from losa_jax.jobs.setup import write_json
from losa_jax.utils import recipes


@pytest.mark.parametrize("text, message", [
    ("{", "config.json: not JSON: line 1.*restore it from a copy"),
    ('{"data": {}, "train": 3}', "it has no adapter, .*train, .*restore"),
    ("[]", "it has no adapter, augment"),
    ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull")])
def test_damaged_settings_of_a_run_are_named(tmp_path, text, message):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load(tmp_path)


DEFAULTS = flatten_dict(common.get_config().to_dict(), sep=".")


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_key_that_a_run_lacks_or_has_of_a_wrong_type_is_named(tmp_path, key):
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "config.json"
    missing = () if key in recipes.LATER_KEYS else (
        (None, "is missing"), ({}, "is missing"))
    for value, message in (*missing, ([[1]], r"=\[\[1\]\] is no "),
                           ("x" if "name" not in key else 3, "is no ")):
        settings = flatten_dict(common.get_config().to_dict(), sep=".")
        if isinstance(settings[key], str) and value == "x":
            value = True
        settings[key] = value
        if value is None:
            del settings[key]
        write_json(path, unflatten_dict(settings, sep="."))
        with pytest.raises(InputError) as caught:
            read_config(tmp_path)
        assert re.search(
            rf"^{path}: not the settings of a run of this version, for\n  "
            rf"config.{key}.*{message}.*\nrestore it from a copy, or write ",
            str(caught.value))


def test_a_run_of_before_later_keys_is_read_with_their_defaults(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    old = {key: value for key, value in DEFAULTS.items()
           if key not in recipes.LATER_KEYS}
    assert len(old) == len(DEFAULTS) - len(recipes.LATER_KEYS)
    write_json(tmp_path / "config.json", unflatten_dict(old, sep="."))
    assert json.loads(read_config(tmp_path).to_json()) == json.loads(
        common.get_config().to_json())


def test_an_export_of_before_later_keys_is_read_with_their_defaults(
        tmp_path, monkeypatch):
    settings = unflatten_dict({
        key: value for key, value in DEFAULTS.items()
        if key.split(".")[0] in ("window", "augment", "data", "evaluate")
        and key not in recipes.LATER_KEYS}, sep=".")
    manifest = {"class_names": ["a"], "thresholds": {}, "settings": settings,
                "files": {name: {"sha256": ""} for name in (
                    exported.WEIGHTS_FILE, exported.PROGRAM_FILE)}}
    monkeypatch.setattr(exported, "is_exported", lambda folder: True)
    monkeypatch.setattr(exported, "load_exported",
                        lambda folder: (manifest, None))
    config = load(tmp_path).config
    assert clip_step(config.window) == common.get_config().window.clip_samples
    assert config.evaluate.per_frame == "" and "head" not in config


def test_what_else_is_scored_does_not_decide_the_detections():
    config = common.get_config()
    before = identity_of(config, ["a"], [])
    config.evaluate.per_frame = "charades"
    config.evaluate.ego4d_recall = True
    assert identity_of(config, ["a"], []) == before
    config.evaluate.nms_sigma = 0.3
    assert identity_of(config, ["a"], []) != before


def test_the_settings_of_every_recipe_are_read_back(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for config in (common.get_config(), custom.get_config(),
                   thumos.get_config("s")):
        write_json(tmp_path / "config.json", config.to_dict())
        assert json.loads(read_config(tmp_path).to_json()) == json.loads(
            config.to_json())
