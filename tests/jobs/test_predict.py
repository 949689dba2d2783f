"""Prediction of videos: detections, files, failures, restarts, live video."""

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import sys
import threading
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from losa_jax import predict as command_line
from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.read import read_annotations
from losa_jax.data.predictions import read_predictions, read_submission
from losa_jax.errors import InputError
from losa_jax.inference import load as load_module
from losa_jax.inference.load import load, read_thresholds
from losa_jax.jobs.evaluate import evaluate
from losa_jax.jobs.live import live
from losa_jax.jobs.predict import predict
from losa_jax.jobs.prediction_files import Settings
from losa_jax.jobs.review.folder import find_file
from losa_jax.jobs.review.store import Store
from losa_jax.jobs.setup import load_data, write_json
from losa_jax.jobs.video_sources import find_videos
from losa_jax.training import build
from losa_jax.training.checkpoint import Checkpoints
from losa_jax.training.restore import fresh_state, run_facts
from losa_jax.utils.interrupt import Interrupted


@pytest.fixture(scope="module", autouse=True)
def _built_once():
    """Builds each model only once, because that takes seconds."""
    built, real = {}, build.build_model

    def build_model(config, num_classes, mesh, **options):
        key = json.dumps([config.to_dict(), num_classes, options])
        if key not in built:
            built[key] = real(config, num_classes, mesh, **options)
        return built[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_model", build_model)
        yield


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """Returns the folder of a run with random parameters."""
    workdir = tmp_path_factory.mktemp("run")
    data = load_data(config, workdir, subsets=("test",))
    mesh = build.build_mesh(config)
    model = build.build_model(config, len(data.class_names), mesh)
    state, _ = fresh_state(config, model, mesh, steps_per_epoch=1)
    rng = np.random.default_rng(0)
    state = state.replace(ema=jax.tree.map(
        lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(
            np.float32), state.ema))
    checkpoints = Checkpoints(workdir)
    checkpoints.save(1, state, run_facts(config, data.class_names, model))
    checkpoints.set_evaluated(1, 0.5)
    checkpoints.close()
    write_json(workdir / "config.json", config.to_dict())
    return workdir


@pytest.fixture(scope="module")
def expected(config, workdir):
    """Returns the detections of --mode=eval."""
    evaluate(config, workdir)
    return read_predictions(workdir / "predictions.json")


@pytest.fixture(scope="module")
def model(workdir):
    return load(workdir)


@pytest.fixture(scope="module")
def live_model(workdir):
    return load(workdir, batch_windows=1)


@pytest.fixture(scope="module")
def videos(config, expected):
    return [Path(config.data.videos) / f"{name}.mp4" for name in expected]


@pytest.fixture(scope="module")
def threshold(expected):
    """Returns a score that a third of the detections reach."""
    return float(np.quantile([one.score for rows in expected.values()
                              for one in rows], 0.7))


def _same(ours, expected):
    assert [one.label for one in ours] == [one.label for one in expected]
    np.testing.assert_allclose(
        [(*one[:2], one.score) for one in ours],
        [(*one[:2], one.score) for one in expected], atol=1e-5)


@pytest.fixture(scope="module")
def output(model, videos, threshold, tmp_path_factory):
    output = tmp_path_factory.mktemp("predicted") / "out"
    assert predict(find_videos([str(videos[0].parent)]), model,
                   Settings(output, threshold)) == {}
    return output


def test_what_was_predicted_can_be_reviewed(output, videos, tmp_path):
    shutil.copytree(output, tmp_path / "out")
    store = Store(tmp_path / "out", "ann")
    expected = read_predictions(output / "predictions.json")
    assert len(store) == len(expected)
    for number in range(len(store)):
        predicted = store.predicted(number)
        assert len(store.open_detections(number)) == len(
            expected[predicted.video_id])
        assert find_file(predicted, output, None).stem == predicted.video_id
        assert set(predicted.shown_from) == set(store.class_names)
    assert any(store.to_check(number) for number in range(len(store)))


def test_detections_equal_those_of_the_evaluation(output, expected):
    ours = read_predictions(output / "predictions.json")
    assert len(ours) == 6  # the folder's training videos too
    for video, rows in expected.items():
        assert len(rows) > 20
        _same(ours[video], rows)


def test_score_reads_where_the_classes_come_from(output):
    _, source = read_submission(output / "predictions.json")
    assert source == "classes from: the head itself, no external classifier"


def test_the_files_of_a_video_hold_the_shown_detections(
        output, expected, threshold):
    name = next(iter(expected))
    shown = [one for one in expected[name] if one.score >= threshold]
    content = json.loads((output / f"{name}.json").read_text())
    assert len(content["detections"]) == len(shown) > 5
    assert len(content["below_threshold"]) == len(expected[name]) - len(shown)
    starts = [row["start_seconds"] for row in content["detections"]]
    assert starts == sorted(starts)
    for row in content["detections"]:
        assert row["score"] >= threshold
        assert 0 <= row["start_frame"] < row["end_frame"] <= content[
            "frame_count"]
        assert row["start_frame"] == pytest.approx(
            row["start_seconds"] * content["fps"], abs=1)
    table = list(csv.DictReader(io.StringIO(
        (output / f"{name}.csv").read_text())))
    assert len(table) == len(shown)
    for suffix in ("srt", "vtt"):
        text = (output / f"{name}.{suffix}").read_text()
        assert text.count(" --> ") == len(shown)
    assert (output / f"{name}.eaf").read_text().count(
        "<ALIGNABLE_ANNOTATION") == len(shown)
    assert (output / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(output.glob("*tmp*")) + list(output.glob(".*"))


def test_every_format_is_written_without_predicting_again(
        output, model, videos, threshold, tmp_path):
    again = tmp_path / "out"
    shutil.copytree(output, again)
    for path in again.glob("*.csv"):
        path.unlink()
    idle = dataclasses.replace(model, predict_windows=_never)
    predict(find_videos([str(videos[0].parent)]), idle, Settings(
        again, threshold, formats=("via", "fiftyone", "audacity")))
    assert not list(again.glob("*.csv"))
    assert (again / "via/README.txt").read_text().startswith("VIA 3")
    shown = {(path.stem, row["label"], round(row["start_seconds"], 3))
             for path in again.glob("untrimmed*.json")
             for row in json.loads(path.read_text())["detections"]}
    for name in ("via", "fiftyone", "audacity"):
        actions = read_annotations([again / name], Options(
            layout=name)).actions
        assert {(one.video.removesuffix(".mp4"), one.label,
                 round(one.start_seconds, 3)) for one in actions} == shown
        assert len(actions) > 5


def _never(*_):
    raise AssertionError("this video was done")


def test_finished_videos_are_not_predicted_again(
        output, model, videos, threshold, tmp_path, monkeypatch):
    again = tmp_path / "out"
    shutil.copytree(output, again)
    idle = dataclasses.replace(model, predict_windows=_never)
    before = (again / "predictions.json").read_text()
    folder = find_videos([str(videos[0].parent)])
    predict(folder, idle, Settings(again, threshold))
    assert (again / "predictions.json").read_text() == before
    # Another threshold only writes the files again.
    predict(folder, idle, Settings(again, 0.0))
    content = json.loads((again / f"{videos[0].stem}.json").read_text())
    assert content["below_threshold"] == [] != content["detections"]
    assert (again / "predictions.json").read_text() == before
    # A damaged file, another model or another video is predicted again.
    (again / f"{videos[0].stem}.json").write_text("{")
    with pytest.raises(AssertionError, match="was done"):
        predict(folder, idle, Settings(again, threshold))
    other = dataclasses.replace(idle, identity="other")
    with pytest.raises(AssertionError, match="was done"):
        predict(find_videos([str(videos[1])]), other,
                Settings(again, threshold))


def test_a_signal_stops_after_finished_videos_are_written(
        model, videos, expected, tmp_path):
    calls = []

    def and_then_a_signal(*arguments):
        calls.append(arguments)
        if len(calls) == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        return model.predict_windows(*arguments)

    stopped = dataclasses.replace(model,
                                  predict_windows=and_then_a_signal)
    folder = find_videos([str(videos[0].parent)])
    with pytest.raises(Interrupted, match="SIGTERM.*start the same command"):
        predict(folder, stopped, Settings(tmp_path))
    first = {path.stem for path in tmp_path.glob("*.json")}
    assert 0 < len(first) < 6
    assert {path.stem for path in tmp_path.glob("*.csv")} == first
    assert not list(tmp_path.glob(".claims/*"))  # no claim stays
    whole = len(calls)
    predict(folder, stopped, Settings(tmp_path))
    ours = read_predictions(tmp_path / "predictions.json")
    assert len(ours) == 6 and len(calls) > whole
    for name, rows in expected.items():
        _same(ours[name], rows)


def test_the_model_can_be_called_from_python(
        model, videos, expected, threshold):
    rows = expected[videos[0].stem]
    _same(model(videos[0], threshold=0), rows)
    _same(model(videos[0], threshold=threshold),
          [one for one in rows if one.score >= threshold])
    _same(model(videos[0], threshold=0, top_k=7), rows[:7])
    assert model(videos[0]) == []  # no thresholds.json: 0.5
    with pytest.raises(InputError, match="cannot be opened"):
        model("nowhere.mp4")


def test_the_thresholds_of_the_run_are_read(workdir, tmp_path, expected):
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    label = expected[next(iter(expected))][0].label
    write_json(copy / "thresholds.json", {label: {"score": 0.25}})
    assert read_thresholds(copy) == {label: 0.25}
    write_json(copy / "thresholds.json", [1])
    with pytest.raises(InputError, match="delete it to use 0.5"):
        read_thresholds(copy)


def test_broken_videos_are_listed_and_the_others_predicted(
        workdir, model, videos, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(load_module, "load", lambda **settings: (
        asked.append(settings["folder"]), model)[1])
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(videos[0], folder / "good.mp4")
    shutil.copy(videos[1], folder / "deep/good.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("no video")
    (folder / "text.mp4").write_text("no video")
    output = tmp_path / "out"
    command = [str(folder), str(tmp_path / "none.mp4"),
               f"--checkpoint={workdir}", f"--output={output}",
               "--threshold=0", "--top_k=5"]
    assert command_line.main(command) == 1
    shown = capsys.readouterr()
    for name, reason in (("empty.mp4", "the file is empty"),
                         ("text.mp4", "not a readable video"),
                         ("none.mp4", "no such file")):
        assert f"{name}: {reason}" in shown.err
    assert "3 could not be read" in shown.err and "notes" not in shown.err
    assert "2 of 4 videos done" in shown.out
    assert shown.out.count("as many as are kept: --top_k=N keeps more") == 2
    assert len(json.loads((output / "failures.json").read_text())) == 3
    assert set(read_predictions(output / "predictions.json")) == {
        "videos_good.mp4", "deep_good.mp4"}
    # Without them the status is 0, and failures.json is deleted.
    (folder / "empty.mp4").unlink()
    (folder / "text.mp4").unlink()
    assert command_line.main([str(folder), *command[2:]]) == 0
    assert not (output / "failures.json").exists()
    assert asked == 2 * [str(workdir)]


@pytest.mark.shared
def test_real_broken_videos_are_listed(shared_dir, model, videos, tmp_path):
    broken = ("audio_only", "text_not_video", "truncated_faststart",
              "truncated_no_faststart", "zero_bytes")
    folder, output = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    shutil.copy(videos[0], folder)
    for name in broken:
        shutil.copy(shared_dir / f"data/odd_videos/{name}.mp4", folder)
    failures = predict(find_videos([str(folder)]), model, Settings(output))
    assert list(failures) == [str(folder / f"{name}.mp4")
                              for name in broken]
    for path, reason in failures.items():
        assert reason.startswith(path) and len(reason) > len(path) + 20
    assert json.loads((output / "failures.json").read_text()) == failures
    assert list(read_predictions(output / "predictions.json")) == [
        videos[0].stem]


def test_a_video_is_read_from_standard_input(
        model, videos, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(
        buffer=io.BytesIO(videos[0].read_bytes())))
    assert predict(find_videos(["-"]), model, Settings(tmp_path)) == {}
    _same(read_predictions(tmp_path / "predictions.json")["stdin"],
          expected[videos[0].stem])
    assert "MEDIA_DESCRIPTOR" not in (tmp_path / "stdin.eaf").read_text()
    assert not list(tmp_path.glob(".stdin*"))
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(
        buffer=io.BytesIO(b"no video")))
    failures = predict(find_videos(["-"]), model, Settings(tmp_path))
    assert list(failures) == ["-"] and failures["-"].startswith("-: ")


def test_live_prints_the_detections_of_a_file_as_lines(
        model, live_model, videos, expected, threshold, tmp_path, capsys):
    with pytest.raises(InputError, match="needs batch_windows=1"):
        live(str(videos[0]), model)
    count = live(str(videos[0]), live_model, output=tmp_path,
                 threshold=threshold, idle_seconds=0)
    lines = [json.loads(line) for line
             in capsys.readouterr().out.splitlines()]
    assert len(lines) == count > 5
    assert lines == [json.loads(line) for line in (
        tmp_path / "live.jsonl").read_text().splitlines()]
    # All but what reaches back over windows is the same.
    rows = {(one.label, round(one.start_seconds, 2),
             round(one.end_seconds, 2)) for one in expected[videos[0].stem]}
    hits = sum((row["label"], round(row["start_seconds"], 2),
                round(row["end_seconds"], 2)) in rows for row in lines)
    assert hits > 0.8 * count


def test_a_folder_that_cannot_be_written_is_named(model, videos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="/file: cannot be writ"):
        predict(find_videos([str(videos[0])]), model,
                Settings(tmp_path / "file"))


@pytest.mark.parametrize("arguments, status, message", [
    (["{folder}/a.mp4"], 1, "holds no finished run"),
    (["a", "b", "--live"], 2, "takes one source"),
    ([], 2, "VIDEO_OR_FOLDER"),
    (["{folder}/no"], 1, "error: {folder}/no: no such file: check the path\n"),
    (["{folder}/no", "--live"], 1, "/no: no such file: check the path\n"),
    (["{folder}", "--live"], 1, "is a folder: name one video"),
    (["{folder}/empty"], 1, "error: {folder}/empty: the folder holds no video"),
    (["", "{folder}/no"], 1, "nothing to predict on:\n  an empty name: name a "
     "video or a folder\n  {folder}/no: no such file: check the path\n"),
    *((["a.mp4", f"--threshold={value}"], 2, f"--threshold: {rule}")
      for value, rule in {
          "nan": "must be from 0 to 1", "-0.1": "must be from 0 to 1",
          "inf": "must be from 0 to 1", "50": "must be from 0 to 1",
          "high": "invalid fraction value: 'high'"}.items()),
    *((["a.mp4", "--live", f"--idle_seconds={value}"], 2, "--idle_seconds: "
       "must be 0 or more, and finite") for value in ("nan", "-1", "inf")),
    *((["a.mp4", f"--{name}=0"], 2, f"--{name}: must be 1 or more")
      for name in ("top_k", "batch_windows", "num_threads")),
])
def test_wrong_use_is_explained_before_anything_is_written(
        arguments, status, message, tmp_path, capsys):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "empty").mkdir()
    output = tmp_path / "out"
    arguments = [part.format(folder=tmp_path) for part in arguments]
    try:
        assert command_line.main([*arguments, f"--checkpoint={tmp_path}/empty",
                                  f"--output={output}"]) == status
    except SystemExit as error:
        assert error.code == status
    assert message.format(folder=tmp_path) in capsys.readouterr().err
    assert not output.exists()


def test_a_missing_backbone_is_named(workdir):
    with pytest.raises(InputError, match="nowhere.*--backbone=FOLDER"):
        load(workdir, backbone="nowhere")


def test_prediction_does_not_need_the_devices_of_training(workdir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    settings = json.loads((copy / "config.json").read_text())
    settings["mesh"].update(data=3, clip=5, fsdp=7)
    write_json(copy / "config.json", settings)
    assert load(copy).class_names


def test_a_run_on_files_of_features_is_refused(workdir, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    settings = json.loads((copy / "config.json").read_text())
    settings["features"]["folder"] = "features"
    write_json(copy / "config.json", settings)
    with pytest.raises(InputError, match="reads files of features"):
        load(copy)


def test_a_signal_ends_a_live_video_with_its_last_window(
        live_model, videos, tmp_path, capsys):
    calls = []

    def and_then_a_signal(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return live_model.predict_windows(*arguments)

    stopped = dataclasses.replace(live_model,
                                  predict_windows=and_then_a_signal)
    before = threading.active_count()
    assert live(str(videos[0]), stopped, threshold=0, idle_seconds=0) > 0
    assert calls and threading.active_count() == before
