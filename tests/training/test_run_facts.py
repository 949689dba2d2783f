"""What of a run may not change, and how it is reported."""

import pytest

from losa_jax.errors import InputError
from losa_jax.training.run_facts import same_facts


def _differences(saved, now, keys, workdir):
    with pytest.raises(InputError) as caught:
        same_facts(saved, now, keys, workdir)
    first, *lines, end = str(caught.value).splitlines()
    assert first == f"{workdir} holds a run with other settings:"
    return [line.strip() for line in lines], end


def test_an_older_run_lacks_settings_that_have_their_default(tmp_path):
    saved = {"model": {"adapter": {"width": 8}}, "loss": {}}
    now = {"model": {"adapter": {"width": 8, "tap_pool": "grid"}},
           "loss": {"every_class": False}}
    same_facts(saved, now, ("model", "loss"), tmp_path)
    now["model"]["adapter"]["tap_pool"] = "attention"
    now["loss"]["weight"] = 2.0
    assert _differences(saved, now, ("model", "loss"), tmp_path)[0] == [
        'config.adapter.tap_pool: the run has "grid", this command "attention"',
        "config.loss.weight: the run has null, this command 2.0"]


def test_other_features_than_those_of_the_run_are_named(tmp_path):
    """Also of a run that is older than one of their settings."""
    spec = {"folder": "a", "stride_frames": 4.0, "width": 8, "channels": []}
    saved = {"backbone": "", "backbone_spec": spec}
    now = {"backbone": "", "backbone_spec": spec | {
        "folder": "b", "resize": "linear"}}
    keys = ("backbone", "features")
    same_facts(saved, now, keys, tmp_path)
    now["backbone_spec"] |= {"stride_frames": 8.0, "resize": "average"}
    lines, end = _differences(saved, now, keys, tmp_path)
    assert lines == [
        "config.features.stride_frames: the run has 4.0, this command 8.0",
        'config.features.resize: the run has "linear", this command "average"']
    assert "--config.features.resize=linear" in end
    # Of a backbone the weights are compared instead.
    same_facts({"backbone_spec": {"width": 4}}, {"backbone_spec": {}}, keys,
               tmp_path)


def test_changed_settings_are_listed_with_the_way_back(tmp_path):
    saved = {"seed": 1, "train": {"learning_rate": 1e-4, "epochs": 3},
             "tap_layers": [1]}
    now = {"seed": 1, "train": {"learning_rate": 2e-4, "epochs": 3},
           "tap_layers": [1, 2]}
    same_facts(saved, now, ("seed",), tmp_path)
    lines, end = _differences(saved, now, ("seed", "train", "tap_layers"),
                              tmp_path)
    assert lines == [
        "config.train.learning_rate: the run has 0.0001, this command 0.0002",
        "config.adapter.tap_layers: the run has [1], this command [1, 2]"]
    assert end == (
        "go on with the settings of the run "
        "(--config.train.learning_rate=0.0001 --config.adapter.tap_layers="
        "'(1,)'), or choose another --workdir for a new run")


def test_facts_of_the_model_are_named_as_keys_of_the_config(tmp_path):
    saved = {"model": {"head": {"kind": "tridet", "width": 8}, "size": 96,
                       "dtype": "float32"}}
    now = {"model": {"head": {"kind": "tridet", "width": 4, "new": [1]},
                     "size": 64, "dtype": "bfloat16"}}
    lines, _ = _differences(saved, now, ("model",), tmp_path)
    assert lines == [
        "config.head.width: the run has 8, this command 4",
        "config.augment.size: the run has 96, this command 64",
        'config.backbone.dtype: the run has "float32", this command '
        '"bfloat16"',
        "config.head.new: the run has null, this command [1]"]


@pytest.mark.parametrize("after, message", [
    (["a", "c", "d"], "without b; with the new c, d"),
    (["b", "a"], "the same in another order")])
def test_other_classes_are_named(tmp_path, after, message):
    lines, _ = _differences({"class_names": ["a", "b"]},
                            {"class_names": after}, ("class_names",), tmp_path)
    assert lines == [f"classes of the annotations: {message}"]


def test_another_backbone_is_named_as_such(tmp_path):
    lines, end = _differences({"backbone": "a" * 64}, {"backbone": "b" * 64},
                              ("backbone",), tmp_path)
    assert lines == [
        "weights of the backbone (config.backbone.checkpoint): the run has "
        "those of SHA-256 aaaaaaaaaaaa, this command bbbbbbbbbbbb"]
    assert end.startswith("go on with the settings of the run, or choose")
