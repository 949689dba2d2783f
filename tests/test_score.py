"""The scoring command: the known figures, other layouts, every refusal."""

import json

import pytest

import losa_jax
from losa_jax import score, sweep
from losa_jax.errors import InputError
from losa_jax.jobs.score import tiou_list


@pytest.fixture
def files(tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps({"database": {
        "a": {"subset": "test", "annotations": [
            {"label": "run", "segment": [0, 10]},
            {"label": "run", "segment": [20, 30]}]},
        "b": {"subset": "test", "annotations": []}}}))
    (tmp_path / "predictions.json").write_text(json.dumps({"results": {
        "a": [{"label": "run", "segment": [0, 9], "score": 0.9},
              {"label": "run", "segment": [50, 60], "score": 0.8},
              {"label": "walk", "segment": [50, 60], "score": 0.8}],
        "c": [{"label": "run", "segment": [0, 9], "score": 0.95}]}}))
    return tmp_path


@pytest.mark.parametrize("command", [score, sweep])
def test_the_version_is_printed(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        command.main(["--version"])
    assert capsys.readouterr().out == f"{losa_jax.__version__}\n"


def _run(folder, *more):
    out = folder / "out.json"
    status = score.main([str(folder / "predictions.json"),
                         f"--annotations={folder / 'truth.json'}",
                         "--subset=test", "--tiou=0.5", f"--json={out}",
                         *more])
    return status, json.loads(out.read_text()) if out.exists() else None


def test_map_by_hand(files, capsys):
    status, report = _run(files)
    # The stranger is false and first: one hit of two at rank 2.
    assert status == 0 and report["average_map"] == pytest.approx(0.25)
    output = capsys.readouterr().out
    for words in ("2 videos, 2 actions, 3 predictions", "1 videos without a "
                  "prediction", "1 videos with 1 predictions are not in the "
                  "ground truth: they are false (c)", "1 predictions of other"
                  " labels", "recall@1x  0.5: 50.00"):
        assert words in output
    assert _run(files, "--unknown=drop")[1]["average_map"] == pytest.approx(
        0.5)


def test_the_challenges_protocol_by_hand(files):
    (files / "ambiguous.txt").write_text("a 55.0 58.0\n")
    thumos = ("--protocol=thumos", f"--ambiguous={files / 'ambiguous.txt'}")
    assert _run(files, *thumos)[1]["average_map"] == pytest.approx(0.5)
    # A threshold is to be passed: 0.9 is not more than 0.9.
    assert _run(files, *thumos, "--tiou=0.9")[1]["average_map"] == 0.0
    assert _run(files, "--unknown=drop", "--tiou=0.9")[1][
        "average_map"] == pytest.approx(0.5)


def test_ambiguous_predictions_are_not_false(files):
    content = json.loads((files / "predictions.json").read_text())
    content["results"]["a"][1]["score"] = 0.99
    (files / "predictions.json").write_text(json.dumps(content))
    (files / "ambiguous.txt").write_text("a 55.0 58.0\n")
    plain = _run(files, "--protocol=thumos")[1]["average_map"]
    spared = _run(files, "--protocol=thumos",
                  f"--ambiguous={files / 'ambiguous.txt'}")[1]["average_map"]
    assert (plain, spared) == (pytest.approx(0.25), pytest.approx(0.5))


def test_the_classifier_is_printed(files, capsys):
    assert "classes from: unknown" in _output_of(files, capsys)
    assert "classes from: CUHK" in _output_of(files, capsys,
                                              "--classifier=CUHK")
    content = json.loads((files / "predictions.json").read_text())
    content["external_data"] = {"used": True,
                                "details": "classes from: \x1b[2JX"}
    (files / "predictions.json").write_text(json.dumps(content))
    assert "\nclasses from: [2JX\n" in _output_of(files, capsys)
    assert _run(files)[1]["classifier"] == "classes from: [2JX"


def _output_of(files, capsys, *flags):
    assert _run(files, *flags)[0] == 0
    return capsys.readouterr().out


def test_excluded_videos_are_not_scored(files, capsys):
    (files / "block.txt").write_text("b broken\nc\n")
    _, report = _run(files, f"--videos={files / 'block.txt'}")
    assert report["num_videos"] == 1
    assert report["average_map"] == pytest.approx(0.5)
    assert "left out: c is listed in block.txt" in capsys.readouterr().out
    (files / "block.txt").write_text(
        "".join(f"x{number}\n" for number in range(25)))
    output = _output_of(files, capsys, f"--videos={files / 'block.txt'}")
    assert output.count("left out: x") == 20 and "left out: 5 more" in output


@pytest.mark.parametrize("flags, message", [
    (["--subset=val"], "no video of subset 'val'; the file has test"),
    (["--tiou=0.5:0.9"], "write first:last:step"),
    (["--tiou=1.5"], "above 0 and up to 1"),
    (["--videos=thumos_300"], "thumos_212, thumos_211, thumos_210"),
    (["--class_names=/nowhere"], "/nowhere: cannot be read"),
    (["--protocol=thumos", "--ambiguous=/nowhere"], "cannot be read")])
def test_refusals(files, capsys, flags, message):
    assert _run(files, *flags)[0] == 1
    assert message in capsys.readouterr().err


def test_thresholds():
    assert tiou_list("0.1:0.7:0.1") == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert tiou_list("0.5,0.75") == [0.5, 0.75]
    with pytest.raises(InputError):
        tiou_list("0.5:0.7:0")


@pytest.mark.shared
@pytest.mark.parametrize("protocol, tiou, want", [
    ("activitynet", "0.1:0.7:0.1",
     [54.598, 51.151, 45.130, 36.200, 26.034, 14.475, 6.315]),
    ("thumos", "0.5", [25.556])])
def test_turn_on_thumos(shared_dir, tmp_path, protocol, tiou, want):
    """Of equal scores the order is numpy's, which is the processor's: the
    figures are those of processors with AVX-512 (see metrics.py)."""
    folder = shared_dir / "data"
    out = tmp_path / "out.json"
    assert score.main([
        str(folder / "detections/turn_flow_scnn_thumos14.json"),
        f"--annotations={folder / 'thumos14/thumos14.json'}",
        "--subset=test", f"--protocol={protocol}", f"--tiou={tiou}",
        f"--ambiguous={folder / 'thumos14/ambiguous_test.txt'}",
        f"--json={out}"]) == 0
    report = json.loads(out.read_text())
    # Tied scores: half a point on other processors.
    tolerance = 0.001 if protocol == "thumos" or _has_avx512() else 0.6
    assert [100 * value for value in report["map_per_threshold"]] == (
        pytest.approx(want, abs=tolerance))
    assert (report["num_videos"], report["num_actions"]) == (212, 3358)
    if protocol == "activitynet" and _has_avx512():
        assert 100 * report["recall"]["1x"][4] == pytest.approx(41.91,
                                                                abs=0.005)
        assert 100 * report["recall"]["5x"][4] == pytest.approx(58.26,
                                                                abs=0.005)


def _has_avx512():
    try:
        with open("/proc/cpuinfo") as file:
            return "avx512f" in file.read()
    except OSError:
        return False


@pytest.mark.shared
@pytest.mark.parametrize("unknown, want", [("false", 97.0738),
                                           ("drop", 99.8881)])
def test_activitynets_sample(shared_dir, tmp_path, unknown, want):
    folder = shared_dir / "data/activitynet"
    out = tmp_path / "out.json"
    assert score.main([
        str(folder / "sample_detection_prediction.json"),
        f"--annotations={folder / 'anet_anno_action.json'},"
        f"{folder / 'video_info_new.csv'}", "--subset=validation",
        "--tiou=0.5:0.95:0.05", f"--unknown={unknown}", f"--json={out}"]) == 0
    report = json.loads(out.read_text())
    assert 100 * report["average_map"] == pytest.approx(want, abs=0.001)
    assert report["num_videos"] == 4728
