"""Head-only training on files of features, and imported heads."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs import thumos_features
from losa_jax import convert
from losa_jax.errors import InputError
from losa_jax.jobs.evaluate import evaluate
from losa_jax.jobs.train import train
from losa_jax.weights.head_folder import convert_head, load_head

WIDTH = 16


@pytest.fixture(scope="module")
def set_of_features(shared_dir, tmp_path_factory):
    """Returns real annotations of six short THUMOS videos, random features."""
    folder = tmp_path_factory.mktemp("features")
    database = json.loads((shared_dir / "data/thumos14/thumos14.json"
                           ).read_text())["database"]
    chosen = sorted((name for name, entry in database.items()
                     if entry["subset"].lower() == "validation"),
                    key=lambda name: database[name]["duration"])[:6]
    rng = np.random.default_rng(0)
    kept = {}
    for name in chosen:
        entry = database[name]
        kept[name] = {**entry, "annotations": [
            {"label": one["label"], "segment": one["segment"]}
            for one in entry["annotations"]]}
        count = int(entry["duration"] * entry["fps"] - 16) // 4
        np.save(folder / f"{name}.npy",
                rng.normal(size=(count, WIDTH)).astype(np.float32))
    (folder / "annotations.json").write_text(json.dumps({"database": kept}))
    return folder


def _config(folder):
    config = thumos_features.get_config()
    config.data.annotations = str(folder / "annotations.json")
    config.data.test_subset = "validation"
    config.features.folder = str(folder)
    config.features.width = WIDTH
    config.window.samples = config.window.tokens = 256
    config.head.width = 64
    config.head.num_levels = 4
    return config


def _run(environment, folder, variant, workdir, *more):
    """Runs the command line."""
    flags = {
        "data.annotations": folder / "annotations.json",
        "data.test_subset": "validation", "features.folder": folder,
        "features.width": WIDTH, "window.samples": 256, "window.tokens": 256,
        "head.width": 32, "head.num_levels": 4, "head.sgp_mlp_width": 64,
        "train.learning_rate": 2e-3, "train.ema_decay": 0.98,
        "train.epochs": 60, "train.schedule_epochs": 60,
        "train.evaluate_from_epoch": 60, "train.warmup_epochs": 3.0,
        "train.checkpoint_every_epochs": 60,
        "loss.initial_normalizer": 20.0}
    subprocess.run(
        [sys.executable, "-m", "losa_jax.main",
         f"--config=configs/thumos_features.py:{variant}",
         f"--workdir={workdir}",
         *(f"--config.{name}={value}" for name, value in flags.items()),
         *more], check=True, env=environment)


@pytest.mark.shared
@pytest.mark.slow
def test_real_annotations_are_overfitted(
        one_device, set_of_features, tmp_path):
    _run(one_device, set_of_features, "i3d", tmp_path)

    def read(name):
        return json.loads((tmp_path / name).read_text())

    report = read("map.json")
    assert report["average_map"] >= 0.95
    thresholds = read("thresholds.json")
    assert min(one["f1"] for one in thresholds.values()) > 0.7
    cost = read("cost.json")
    assert cost["frozen_parameters"] == 0 < cost["trained_parameters"]

    # The same run scored again, with the scores of all classes.
    _run(one_device, set_of_features, "i3d", tmp_path, "--mode=eval",
         "--config.evaluate.keep_all_scores=True",
         f"--output={tmp_path / 'again'}")
    assert read("again/map.json")["average_map"] == pytest.approx(
        report["average_map"], abs=1e-6)
    entry = next(iter(read("again/predictions.json")["results"].values()))[0]
    assert entry["class_scores"][entry["label"]] >= entry["score"] - 1e-5
    assert len(entry["class_scores"]) == len(thresholds)


@pytest.mark.shared
@pytest.mark.slow
def test_proposals_get_their_classes_from_a_classifier(
        one_device, set_of_features, tmp_path):
    """TriDet proposes actions, and a perfect classifier gives their classes."""
    database = json.loads((set_of_features / "annotations.json"
                           ).read_text())["database"]
    scores = tmp_path / "scores.json"
    present = {name: {one["label"] for one in entry["annotations"]}
               for name, entry in database.items()}
    names = sorted(set().union(*present.values()))
    scores.write_text(json.dumps({"class": names, "results": {
        name: [float(label in labels) for label in names]
        for name, labels in present.items()}}))
    _run(one_device, set_of_features, "i3d_tridet", tmp_path,
         "--config.data.class_agnostic=True",
         f"--config.evaluate.video_scores={scores}")
    report = json.loads((tmp_path / "map.json").read_text())
    assert tuple(report["class_names"]) == tuple(names)
    assert report["average_map"] >= 0.8
    # Whose classes it is of stands beside the mAP and with the predictions.
    assert report["classes_from"] == (
        f"video-level scores {scores} (sqrt, top 2)")
    external = json.loads((tmp_path / "predictions.json").read_text())[
        "external_data"]
    assert external == {"used": True,
                        "details": f"classes from: {report['classes_from']}"}


@pytest.mark.shared
@pytest.mark.slow
def test_an_imported_head_is_scored_without_a_run(
        set_of_features, shared_dir, tmp_path, capsys):
    parity = shared_dir / "data/parity"
    data = np.load(parity / "actionformer_tiny.npz")
    save_file({f"module.{key.removeprefix('param/')}": data[key]
               for key in data if key.startswith("param/")},
              tmp_path / "head.safetensors")
    out = tmp_path / "head"
    assert convert.main([str(tmp_path / "head.safetensors"),
                         f"--output={out}"]) == 0
    printed = capsys.readouterr().out
    assert "actionformer of " in printed and "16 channels, 5 classes" in printed
    public = tmp_path / "public.yaml"
    public.write_text("model_name: LocPointTransformer\nmodel: {embd_dim: 32,"
                      " n_mha_win_size: 5, n_head: 4, head_dim: 32, fpn_dim: "
                      "32, backbone_arch: [2, 2, 3]}\n")
    assert "attention_window" in printed and "(5,)" not in printed
    assert convert.main([str(tmp_path / "head.safetensors"),
                         f"--public_config={public}",
                         f"--output={out}"]) == 0
    printed = capsys.readouterr().out
    assert "--config.head.attention_window='(5,)'" in printed
    flags = dict(line.strip().removeprefix("--config.head.").split("=", 1)
                 for line in printed.splitlines() if "--config.head." in line)
    assert flags["width"] == "32" and flags["num_levels"] == "4"

    names = tmp_path / "classes.txt"
    database = json.loads((set_of_features / "annotations.json").read_text())
    labels = sorted({one["label"] for entry in database["database"].values()
                     for one in entry["annotations"]})
    # The head has five classes: five of the data's.
    keep = labels[:5]
    for entry in database["database"].values():
        entry["annotations"] = [one for one in entry["annotations"]
                                if one["label"] in keep]
    (tmp_path / "annotations.json").write_text(json.dumps(database))
    names.write_text("\n".join(keep))
    config = _config(set_of_features)
    config.data.annotations = str(tmp_path / "annotations.json")
    config.data.class_names = str(names)
    config.head.checkpoint = str(out)
    with pytest.raises(InputError, match="does not fit the config's head"):
        evaluate(config, tmp_path / "run")
    config.head.width, config.head.attention_window = 32, (5,)
    report = evaluate(config, tmp_path / "run")
    assert report.num_predictions > 100
    flat, facts = load_head(out)
    assert facts["settings"]["kind"] == "actionformer"
    np.testing.assert_array_equal(
        flat["cls/out/bias"], data["param/cls_head.cls_head.conv.bias"])


@pytest.mark.parametrize("changes, message", [
    ({"adapter.kind": "losa"}, "adapter.kind=none"),
    ({"window.clip_samples": 16}, "a sample is one feature"),
    ({"features.width": 0}, "features.width=0")])
def test_settings_that_do_not_fit_features_are_refused(
        tmp_path, changes, message):
    config = _config(tmp_path)
    for key, value in changes.items():
        section, name = key.split(".")
        config[section][name] = value
    (tmp_path / "annotations.json").write_text("{}")
    with pytest.raises(InputError, match=message):
        train(config, tmp_path / "run")


def test_a_file_without_a_head_is_refused(tmp_path):
    save_file({"cls_head.foo": np.zeros(3, np.float32)},
              tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="in no rule: cls_head.foo"):
        convert_head(tmp_path / "a.safetensors", tmp_path / "out")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="no head of ActionFormer"):
        convert_head(tmp_path / "b.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.torch
@pytest.mark.shared
def test_opentad_heads_are_imported_with_their_moving_averages(
        shared_dir, tmp_path):
    """OpenTAD has other names for the tensors; its EMA weights are taken."""
    torch = pytest.importorskip("torch")
    data = np.load(shared_dir / "data/parity/tridet_tiny.npz")
    public = {key.removeprefix("param/"): data[key] for key in data
              if key.startswith("param/")}
    renamed = {}
    for name, array in public.items():
        name = name.replace("backbone.embd_norm.0.", "projection.embed.0.norm.")
        name = name.replace("backbone.embd_norm.1.", "projection.embed.1.norm.")
        name = name.replace("backbone.embd.", "projection.embed.")
        name = name.replace("backbone.", "projection.")
        for ours, theirs in (("cls", "cls"), ("reg", "reg"),
                             ("start", "cls_start"), ("end", "cls_end")):
            for i in range(2):
                name = name.replace(f"{ours}_head.head.{i}.",
                                    f"rpn_head.{theirs}_convs.{i}.", 1)
                name = name.replace(f"{ours}_head.norm.{i}.",
                                    f"rpn_head.{theirs}_convs.{i}.norm.", 1)
            for last in ("cls_head", "offset_head"):
                if name.startswith(f"{ours}_head.{last}.conv."):
                    name = name.replace(f"{ours}_head.{last}.conv.",
                                        f"rpn_head.{theirs}_head.")
        name = name.replace("reg_head.scale.", "rpn_head.scale.")
        if ".ln." in name or "norm" in name:
            array = array.reshape(-1)
        renamed[f"module.{name}"] = torch.from_numpy(array)
    renamed["module.rpn_head.loss_normalizer"] = torch.tensor(100.0)
    renamed["module.backbone.model.patch_embed.weight"] = torch.zeros(3)
    torch.save({"epoch": 3, "state_dict": {
        name: torch.zeros_like(tensor) for name, tensor in renamed.items()},
        "state_dict_ema": renamed}, tmp_path / "opentad.pth")
    save_file(public, tmp_path / "public.safetensors")
    one = convert_head(tmp_path / "opentad.pth", tmp_path / "one")
    two = convert_head(tmp_path / "public.safetensors", tmp_path / "two")
    assert one["taken"] == "state_dict_ema"
    assert one["settings"] == {**two["settings"], "opentad": True}
    assert two["settings"]["sgp_k"] == 5.0
    first, second = (load_head(tmp_path / name)[0] for name in ("one", "two"))
    assert set(first) == set(second)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    plain = convert_head(tmp_path / "opentad.pth", tmp_path / "plain",
                         ema=False)
    assert plain["taken"] == "state_dict"
    assert not load_head(tmp_path / "plain")[0]["reg_scale"].any()
