"""The same command with changed data trains on from the run's weights."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from losa_jax.data.predictions import read_predictions, write_predictions
from losa_jax.data.records import Action, Video
from losa_jax.detection.metrics import evaluate_map
from losa_jax.detection.segments import Detection
from losa_jax.distributed import remote_workdir
from losa_jax.errors import InputError
from losa_jax.inference.load import load
from losa_jax.jobs import setup
from losa_jax.jobs import train as train_job
from losa_jax.jobs.again import compare
from losa_jax.jobs.evaluate import evaluate
from losa_jax.training import restore, rounds
from tests.jobs.flags import flags_of

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
NEW_CLASS = "a new one"  # the first in the order of the names


class _Died(Exception):
    pass


def _trace(workdir):
    lines = [json.loads(line) for line in
             (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines
            for key in ("loss", "map") if key in line]


@pytest.fixture(scope="module")
def first(config, tmp_path_factory):
    """Returns a config without one of the training videos."""
    config = config.copy_and_resolve_references()
    content = json.loads(Path(config.data.annotations).read_text())
    for video in content["database"].values():
        for action in video["annotations"]:
            action.pop("label_id", None)
    folder = tmp_path_factory.mktemp("annotations")
    (folder / "all.json").write_text(json.dumps(content))
    names = [name for name, video in content["database"].items()
             if video["subset"] == config.data.train_subset]
    del content["database"][names[1]]
    (folder / "few.json").write_text(json.dumps(content))
    config.data.annotations = str(folder / "few.json")
    config.train.epochs = config.train.schedule_epochs = 2
    config.train.batch_windows = 1
    config.evaluate.tiou_thresholds = (0.1, 0.3)
    # Named from here, as a user would.
    config.backbone.checkpoint = os.path.relpath(config.backbone.checkpoint)
    return config


@pytest.fixture(scope="module")
def second(first):
    """Returns the config with that video and with a new class."""
    config = first.copy_and_resolve_references()
    path = Path(first.data.annotations).with_name("all.json")
    content = json.loads(path.read_text())
    for subset in ("training", "testing"):
        video = next(one for one in content["database"].values()
                     if one["subset"] == subset)
        video["annotations"][0]["label"] = NEW_CLASS
    path = path.with_name("second.json")
    path.write_text(json.dumps(content))
    config.data.annotations = str(path)
    return config


@pytest.fixture(scope="module")
def finished(first, tmp_path_factory):
    """Returns the work directory of the first run, and its report."""
    workdir = tmp_path_factory.mktemp("first") / "run"
    return workdir, train_job.train(first, workdir)


@pytest.fixture(scope="module")
def next_round(second, finished, tmp_path_factory):
    """Returns the work directory after the second run."""
    workdir = tmp_path_factory.mktemp("second") / "run"
    # A relative path, here to the backbone, must stay right.
    shutil.copytree(finished[0], workdir)
    train_job.train(second, workdir)
    return workdir


def test_a_finished_run_with_new_data_starts_another_round(
        first, second, finished, next_round, monkeypatch, capsys):
    old, report = finished
    folder = next_round / "rounds/1"
    facts = restore.run_facts_of(next_round)
    assert facts["started_from"] == {
        "folder": "rounds/1", "map": pytest.approx(report.average_map),
        "step": json.loads((old / "map.json").read_text())["step"]}
    assert facts["class_names"][0] == NEW_CLASS
    for name in ("predictions.json", "map.json", "config.json",
                 "metrics.jsonl", "thresholds.json", "cost.json"):
        assert (folder / name).read_text() == (old / name).read_text()
        assert (next_round / name).read_text() != (old / name).read_text() or (
            name in ("map.json", "thresholds.json"))
    assert len(_trace(next_round)) == 8 + 2  # from step 0

    # It is a complete run: evaluated, and loaded from anywhere.
    again = evaluate(first, folder)
    np.testing.assert_array_equal(again.map_per_threshold,
                                  report.map_per_threshold)
    before = load(old).identity
    monkeypatch.chdir(next_round)
    assert load(folder).identity == load("rounds/1").identity == before
    assert load(next_round).class_names[0] == NEW_CLASS


def test_both_maps_are_of_the_same_videos_with_the_truth_of_today(
        second, finished, next_round):
    changes = json.loads((next_round / "again.json").read_text())
    content = json.loads(Path(second.data.annotations).read_text())["database"]
    names = sorted({action["label"] for video in content.values()
                    for action in video["annotations"]})
    truth = {name: [(*action["segment"], action["label"])
                    for action in video["annotations"]]
             for name, video in content.items() if video["subset"] == "testing"}
    scored = {name: read_predictions(folder / "predictions.json")
              for name, folder in (("before", next_round / "rounds/1"),
                                   ("after", next_round))}
    both, known = changes["scores"]
    assert (both["num_videos"], both["num_classes"]) == (2, len(names))
    assert (known["num_videos"], known["num_classes"]) == (2, len(names) - 1)
    for key, rows in scored.items():
        want = evaluate_map(truth, rows, class_names=names,
                            tiou_thresholds=(0.1, 0.3))
        np.testing.assert_allclose(both[f"{key}_per_threshold"],
                                   want.map_per_threshold)
        want = evaluate_map({name: [one for one in actions if one[2] in names
                                    and one[2] != NEW_CLASS]
                             for name, actions in truth.items()}, rows,
                            class_names=names[1:], tiou_thresholds=(0.1, 0.3))
        assert known[key] == pytest.approx(want.average_map)
    training = [name for name, video in content.items()
                if video["subset"] == "training"]
    assert changes["videos"] == {
        "before": 3, "after": 4, "added": [training[1]],
        "changed": [training[0]], "gone": []}
    assert changes["classes"] == {"added": [NEW_CLASS], "gone": []}
    assert changes["actions"]["after"] == sum(
        len(content[name]["annotations"]) for name in training)


def _comparison(tmp_path, monkeypatch, capsys, config, old, new):
    """Returns what is printed about detections of one action."""
    (tmp_path / "rounds/1/checkpoints").mkdir(parents=True, exist_ok=True)
    if old is not None:
        write_predictions(tmp_path / "rounds/1/predictions.json", {
            "one": [Detection(0.0, old, "jump", 0.9)], "gone": []})
    video = Video("one", None, None, (Action(0.0, 4.0, "jump"),))
    data = setup.DataSet(("jump",), ("jump",), (video,), (
        video, dataclasses.replace(video, video_id="two")), {})
    facts = {"class_names": ["jump"], "training_set": {"videos": {"one": 7}},
             **compare.data_facts(config, data),
             "started_from": {"folder": "rounds/1", "step": 3, "map": 0.5}}
    monkeypatch.setattr(restore, "run_facts_of", lambda folder: {
        **facts, "training_set": {"videos": {"zero": 3}}})
    compare.compare_rounds(config, tmp_path, data, facts, {
        "one": [Detection(0.0, new, "jump", 0.9)], "two": []})
    return capsys.readouterr().out


def test_worse_weights_are_named_with_the_way_back(
        first, tmp_path, monkeypatch, capsys):
    printed = _comparison(tmp_path, monkeypatch, capsys, first, 4.0, 0.8)
    assert ("training videos: 1, now 1; added 1 (one); gone 1 (zero)"
            in printed)
    assert "their actions: 1, now 1" in printed
    assert "mAP of the same 1 testing videos, 1 classes" in printed
    assert "rounds/1      100.00  100.00  100.00" in printed
    assert "now           100.00    0.00   50.00" in printed
    assert ("The new weights are worse, by 50.00 points" in printed and
            f"--checkpoint={tmp_path}/rounds/1" in printed)
    better = _comparison(tmp_path, monkeypatch, capsys, first, 0.8, 4.0)
    assert "worse" not in better and "review" not in better
    (tmp_path / "rounds/1/predictions.json").unlink()
    nothing = _comparison(tmp_path, monkeypatch, capsys, first, None, 4.0)
    assert "rounds/1 has no predictions" in nothing
    assert json.loads((tmp_path / "again.json").read_text())["scores"] == []


def test_the_same_data_again_is_no_new_round(second, next_round, tmp_path,
                                             capsys):
    workdir = shutil.copytree(next_round, tmp_path / "run")
    capsys.readouterr()
    train_job.train(second, workdir)
    printed = capsys.readouterr().out
    assert not (workdir / "rounds/2").exists()
    assert _trace(workdir) == _trace(next_round)
    assert "resumed" in printed and "what changed since rounds/1:" in printed
    assert f"classes added: {NEW_CLASS}" in printed


@pytest.mark.parametrize("saves", [0, 1])
def test_a_round_that_dies_goes_on_as_if_it_had_not(
        second, finished, next_round, tmp_path, monkeypatch, capsys, saves):
    """Dies before its first checkpoint, or behind it."""
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    real, count = train_job.write_cost, [0]

    def dies(*arguments):
        real(*arguments)
        count[0] += 1
        raise _Died

    real_run = train_job.evaluate.Evaluator.run

    def run(*arguments):
        if count[0] == 1:
            raise _Died
        count[0] += 1
        return real_run(*arguments)

    with monkeypatch.context() as patch:
        if saves:
            patch.setattr(train_job.evaluate.Evaluator, "run", run)
        else:
            patch.setattr(train_job, "write_cost", dies)
        with pytest.raises(_Died):
            train_job.train(second, workdir)
    assert any((workdir / "checkpoints").glob("[0-9]*")) == bool(saves)
    capsys.readouterr()
    train_job.train(second, workdir)
    printed = capsys.readouterr().out
    assert ("resumed" if saves else "starting from") in printed
    assert _trace(workdir) == _trace(next_round)
    assert sorted(path.name for path in (workdir / "rounds").iterdir()) == [
        "1"]
    for name in ("predictions.json", "again.json"):
        assert (workdir / name).read_text() == (next_round / name).read_text()


def test_another_work_directory_can_start_from_a_run(
        second, next_round, tmp_path):
    config = second.copy_and_resolve_references()
    config.train.start_from = str(next_round / "rounds/1")
    train_job.train(config, tmp_path / "run")
    assert _trace(tmp_path / "run") == _trace(next_round)
    assert not (tmp_path / "run/again.json").exists()


def test_other_data_is_refused_where_no_round_can_begin(
        first, second, finished, tmp_path, monkeypatch):
    old, _ = finished
    config = second.copy_and_resolve_references()
    config.train.start_from = str(old)
    config.head.checkpoint = "a head"
    with pytest.raises(InputError, match="start_from and config.head.checkpo"):
        rounds.open_run(config, tmp_path / "new", {}, None, None, None)

    unfinished = shutil.copytree(old, tmp_path / "unfinished")
    steps = sorted(int(path.name) for path in (
        unfinished / "checkpoints").glob("[0-9]*"))
    shutil.rmtree(unfinished / f"checkpoints/{steps[-1]}")
    other = first.copy_and_resolve_references()
    path = Path(first.data.annotations).with_name("all.json")
    other.data.annotations = str(path)
    with pytest.raises(InputError, match="(?s)another training set.*1 videos "
                       "are new.*accept_changes=True"):
        train_job.train(other, unfinished)
    assert not (unfinished / "rounds").exists()

    # Weights that do not fit are refused before anything is moved.
    whole = shutil.copytree(old, tmp_path / "whole")
    other.head.width = 32
    with pytest.raises(InputError, match="(?s)do not fit.*head.width"):
        train_job.train(other, whole)
    assert not (whole / "rounds").exists()
    other.head.width = first.head.width
    with monkeypatch.context() as patch, pytest.raises(
            InputError, match="(?s)gs://b/run holds a finished run.*"
            "--config.train.start_from=gs://b/run"):
        patch.setattr(rounds.remote_workdir, "remote_of",
                      lambda workdir: "gs://b/run")
        rounds._refuse_bucket(whole)
    assert remote_workdir.remote_of(whole) is None


def test_several_processes_begin_a_round_and_fill_a_cache_together(
        first, second, tmp_path):
    taps, workdir = tmp_path / "taps", tmp_path / "run"
    for config, videos in ((first, 5), (second, 6)):
        config = config.copy_and_resolve_references()
        config.window.align_to_clips = True
        config.train.batch_windows = 2
        config.train.epochs = config.train.schedule_epochs = 1
        config.data.cache = str(taps)
        started = subprocess.run(
            ["bash", str(ROOT / "launch/local_processes.sh"), "2",
             *flags_of(config), f"--workdir={workdir}"],
            cwd=ROOT, text=True, capture_output=True, timeout=400)
        assert started.returncode == 0, started.stdout + started.stderr
        shards = [json.loads(path.read_text())
                  for path in taps.glob("taps-*.json")]
        # No video is in two shards.
        assert sum(map(len, shards)) == len(
            {name for shard in shards for name in shard}) == videos
    assert (workdir / "rounds/1/config.json").exists()
    changes = json.loads((workdir / "again.json").read_text())
    assert changes["started_from"]["folder"] == "rounds/1"
    assert len(changes["scores"]) == 2
    assert restore.run_facts_of(workdir / "rounds/1")["class_names"] != (
        restore.run_facts_of(workdir)["class_names"])
