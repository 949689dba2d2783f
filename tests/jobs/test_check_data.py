"""--mode=check_data names every fault of videos and annotations."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from configs import thumos_features
from losa_jax.data.annotations import load
from losa_jax.errors import InputError
from losa_jax.jobs.check_data import check_data
from losa_jax.jobs.setup import load_data
from losa_jax.training.feature_store import open_store
from tests.custom_recipe import custom_config
from tests.data.tiny_set import make_tiny_set


@pytest.fixture
def odd(config, tmp_path):
    """Returns the config of a tiny set with one fault of each category."""
    config = config.copy_and_resolve_references()
    folder = tmp_path / "videos"
    shutil.copytree(config.data.videos, folder)
    with open(config.data.annotations) as file:
        content = json.load(file)
    database = content["database"]
    names = [name for name in database
             if database[name]["subset"] == "training"]
    (folder / f"{names[0]}.mp4").unlink()
    (folder / f"{names[1]}.mp4").write_bytes(b"no video")
    database[names[2]]["duration"] *= 2
    database[names[2]]["fps"] = 12.0
    entry = database[names[3]]
    entry["annotations"][0]["segment"][1] = entry["duration"] + 5
    entry["annotations"].append(entry["annotations"][1])
    del entry["annotations"][0]["label_id"]
    config.data.annotations = str(tmp_path / "odd.json")
    (tmp_path / "odd.json").write_text(json.dumps(content))
    config.data.videos = str(folder)
    return config, names


@pytest.mark.slow
def test_every_fault_is_named(odd, tmp_path, capsys, monkeypatch):
    config, names = odd
    parsed = []
    real = load.read_database
    monkeypatch.setattr(load, "read_database", lambda path: (
        parsed.append(str(path)) or real(path)))
    findings = check_data(config, tmp_path / "work")
    assert parsed == [config.data.annotations]
    faults = {(one.video_id, one.category) for one in findings}
    assert faults == {
        (names[0], "missing or unreadable"),
        (names[1], "missing or unreadable"),
        (names[2], "another duration"), (names[2], "another frame rate"),
        (names[3], "actions outside"), (names[3], "actions given twice")}
    printed = capsys.readouterr().out
    assert "4 of 6 videos can be read" in printed
    report = json.loads((tmp_path / "work/check_data.json").read_text())
    assert len(report["findings"]) == len(findings)

    # The block list lets training start.
    block = tmp_path / "work/block_list.txt"
    assert block.read_text().split() == sorted(names[:2])
    config.data.block_list = str(block)
    config.data.on_outside = "clip"
    (tmp_path / "run").mkdir()
    data = load_data(config, tmp_path / "run")
    assert {video.video_id for video in data.train} == set(names[2:])


@pytest.fixture
def tiny(tmp_path):
    """Returns the config of a tiny set and a function that changes its
    annotations."""
    folder = make_tiny_set(tmp_path)
    config = custom_config()
    config.data.annotations = str(folder / "annotations.json")
    config.data.videos = str(folder / "videos")
    config.data.on_outside = "clip"

    def change(function):
        path = folder / "annotations.json"
        database = json.loads(path.read_text())["database"]
        function(database)
        path.write_text(json.dumps({"database": database}))

    return config, change


def test_the_block_list_is_read_as_it_is_written(tiny, tmp_path, capsys):
    config, change = tiny
    names = ["kitchen 03 (missing)", "#1", "étude 2.mp4", "kitchen"]

    def add(database):
        for name in names:
            database[name] = dict(database["training.0"])
            database[f"{name} test"] = dict(database["testing.0"])

    change(add)
    check_data(config, tmp_path / "work")
    config.data.block_list = str(tmp_path / "work/block_list.txt")
    data = load_data(config, tmp_path)
    assert [video.video_id for video in data.train] == [
        f"training.{number}" for number in range(4)]
    capsys.readouterr()
    check_data(config, tmp_path / "work")
    assert "not in the annotations" not in capsys.readouterr().out


def test_classes_are_listed_with_their_counts(tiny, tmp_path, capsys):
    config, change = tiny

    def rename(database):
        database["training.0"]["annotations"][0]["label"] = "Hop"
        database["testing.0"]["subset"] = "validation"

    change(rename)
    check_data(config, tmp_path / "work")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["actions", "training", "validation", "testing"]
    assert [line.split() for line in lines[1:4]] == [
        ["Hop", "1", "0", "0"], ["hop", "3", "1", "1"],
        ["run", "4", "1", "1"]]
    assert "labels that are nearly equal: 'Hop', 'hop'" in lines
    report = json.loads((tmp_path / "work/check_data.json").read_text())
    assert report["classes"]["hop"]["training"] == 3
    assert len(report["names"]) == 1


@pytest.mark.parametrize("segment, unit", [
    ([0, 1_200_000], "microseconds"), ([100, 1500], "milliseconds"),
    ([5, 38], "frames at 25 frames a second")])
def test_the_unit_of_times_far_outside_is_named(tiny, tmp_path, segment, unit):
    config, change = tiny
    change(lambda database: database["training.0"].update(
        annotations=[{"label": "hop", "segment": segment}], fps=None))
    findings = check_data(config, tmp_path / "work")
    (detail,) = [one.detail for one in findings
                 if one.video_id == "training.0"]
    assert detail.endswith(f"look like {unit}: convert them to seconds")


def test_other_subsets_and_no_actions_are_refused(tiny, tmp_path):
    config, change = tiny
    config.data.train_subset, config.data.test_subset = "train", "test"
    with pytest.raises(InputError, match=(
            r"set --config.data.train_subset=training "
            r"--config.data.test_subset=testing")):
        check_data(config, tmp_path / "work")
    config.data.train_subset, config.data.test_subset = "training", "testing"
    change(lambda database: [entry.update(annotations=[])
                             for entry in database.values()])
    with pytest.raises(InputError, match="nothing to train on"):
        check_data(config, tmp_path / "work")


@pytest.fixture
def features(tmp_path):
    """Returns a features recipe: one sound file, and one of each fault."""
    folder, rng = tmp_path / "features", np.random.default_rng(0)
    folder.mkdir()
    database = {}
    for name in ("good", "gone", "nan", "wide", "long", "pointer", "cut"):
        database[name] = {
            "subset": "validation", "duration": 10.0, "fps": 30.0,
            "annotations": [{"label": "run", "segment": [1, 2]}]}
        np.save(folder / f"{name}.npy", rng.normal(size=(
            720 if name == "long" else 72, 5 if name == "wide" else 4)))
    (folder / "gone.npy").rename(folder / "Gone.csv")
    array = np.load(folder / "nan.npy")
    array[[5, 9]] = np.nan
    np.save(folder / "nan.npy", array)
    (folder / "pointer.npy").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:9\nsize 9\n")
    content = (folder / "cut.npy").read_bytes()
    (folder / "cut.npy").write_bytes(content[:-100])
    (tmp_path / "annotations.json").write_text(
        json.dumps({"database": database}))
    config = thumos_features.get_config()
    config.data.annotations = str(tmp_path / "annotations.json")
    config.data.test_subset = "validation"
    config.features.folder, config.features.width = str(folder), 4
    return config


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_a_features_recipe_checks_the_features(
        features, tmp_path, monkeypatch, capsys, cache_gib):
    monkeypatch.chdir(tmp_path)
    features.data.frame_cache_gib = cache_gib
    details = {one.video_id: one.detail
               for one in check_data(features, tmp_path / "work")}
    assert sorted(details) == ["cut", "gone", "long", "nan", "pointer", "wide"]
    for name, message in {
            "cut": "2304 bytes", "gone": "nearest there: Gone.csv",
            "long": "720 features", "nan": "rows 5, 9",
            "pointer": "git lfs pull", "wide": "shape (72, 5)"}.items():
        assert message in details[name]
    assert "1 of 7 videos' features can be read" in capsys.readouterr().out
    block = tmp_path / "work/block_list.txt"
    assert block.read_text().split() == sorted(details)


@pytest.mark.parametrize("cache_gib", [0.0, 1.0])
def test_bad_features_stop_or_are_skipped(features, tmp_path, cache_gib):
    path = Path(features.features.folder) / "crc.npz"
    np.savez_compressed(path, np.ones((72, 4)))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    path = Path(features.data.annotations)
    database = json.loads(path.read_text())["database"]
    database["crc"] = database["good"]
    path.write_text(json.dumps({"database": database}))
    features.data.frame_cache_gib = cache_gib
    with pytest.raises(InputError, match="(?s)crc: .*crc.npz.*on_broken_video"):
        load_data(features, tmp_path, store=open_store(features))
    features.data.on_broken_video = "skip"
    data = load_data(features, tmp_path, store=open_store(features))
    bad = {"crc", "cut", "gone", "long", "pointer", "wide"}
    # Without a cache numbers are checked in the windows that are read.
    kept = ["good"] if cache_gib else ["good", "nan"]
    assert {*data.broken} - {"nan"} == bad
    assert [video.video_id for video in data.test] == kept


@pytest.mark.parametrize("recipe", ["features", "videos"])
def test_an_empty_setting_is_not_the_current_folder(
        features, config, tmp_path, monkeypatch, recipe):
    monkeypatch.chdir(features.features.folder)
    config = (features if recipe == "features"
              else config).copy_and_resolve_references()
    config.features.folder = config.data.videos = config.data.cache = ""
    with pytest.raises(InputError, match="set\n  --config.data.videos=FOLDER"):
        check_data(config, tmp_path / "work")
    assert not (tmp_path / "work/block_list.txt").exists()


def test_what_the_folder_of_videos_holds_besides_is_listed(
        config, tmp_path, caplog):
    config = config.copy_and_resolve_references()
    folder = tmp_path / "videos"
    shutil.copytree(config.data.videos, folder)
    one, two = sorted(folder.glob("*.mp4"))[:2]
    one.rename(one.with_suffix(".MTS"))
    two.rename(folder / f"{two.name}.part")
    (folder / "notes.txt").write_text("hello")
    config.data.videos = str(folder)
    finding, = (one for one in check_data(config, tmp_path / "work")
                if one.category == "missing or unreadable")
    assert finding.video_id == two.stem
    assert f"nearest there: {two.name}.part" in finding.detail
    line, = (record.message for record in caplog.records
             if "left out" in record.message)
    assert f"partial downloads: 1 ({two.name}.part)" in line
    assert "text: 1 (notes.txt)" in line
