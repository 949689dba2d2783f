"""The scoring command: the known figures, other layouts, every refusal."""

import json
import re
from pathlib import Path

import pytest

from losa_jax import score
from losa_jax.data.annotations.block_list import blocked_videos
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.errors import InputError
from losa_jax.jobs.score import tiou_list
from losa_jax.report.dashboard import MEANINGS


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
                  "prediction", "1 videos with 1 predictions are not in "
                  "subset test (c): they count as false", "1 predictions of "
                  "other labels", "recall@1x  0.5: 50.00"):
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


def test_tables_and_page_name_and_explain_the_same_categories(files, capsys):
    folder = files / "diagnosis"
    _run(files, f"--diagnose={folder}")
    printed = capsys.readouterr().out
    assert f"its page: {folder / 'diagnosis.html'}" in printed
    page = (folder / "diagnosis.html").read_text()
    for name, meaning in MEANINGS.items():
        assert f"{name} " in printed and meaning in printed
        assert name.replace("_", " ") in page and meaning in page
    assert "below 0: " in printed and "below 0: " in page


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


def test_moments_are_scored_beside_segments(files, capsys):
    truth = json.loads((files / "truth.json").read_text())
    for entry, seconds in zip(truth["database"].values(), (40.0, 10.0),
                              strict=True):
        entry["duration"] = seconds
    (files / "truth.json").write_text(json.dumps(truth))
    report = _run(files, "--per_frame=charades")[1]["per_frame"]
    # Of 25 moments, 1.6 s apart, 7 + 6 are in the actions, both ends counted;
    # the 6 in [0, 9] come first, the others rank in order of time.
    assert report["num_moments"] == 50
    assert report["positives_per_class"] == [13]
    ranks = [*range(1, 7), 7, *range(14, 20)]
    assert report["frame_map"] == pytest.approx(sum(
        number / rank for number, rank in enumerate(ranks, 1)) / 13)
    assert "per-frame mAP (charades): " in capsys.readouterr().out
    features = ("--per_frame=multithumos", "--moments_per_second=2")
    assert _run(files, *features)[1]["per_frame"]["num_moments"] == 100


@pytest.mark.parametrize("flags, message", [
    (["--per_frame=charades"], "2 videos have no duration, the first a"),
    *((["--per_frame=multithumos", *flags], "give how many they are a second")
      for flags in ([], ["--moments_per_second=inf"])),
    (["--subset=val"], "no video of subset 'val'; the file has test"),
    (["--tiou=0.5:0.9"], "write first:last:step"),
    (["--tiou=0.3:inf:0.1"], "write first:last:step"),
    (["--tiou=0:1:1e-9"], "at most 1000 thresholds"),
    (["--tiou=1.5"], "above 0 and up to 1"),
    (["--videos=thumos_300"], "thumos_212, thumos_211, thumos_210"),
    (["--class_names=/nowhere"], "/nowhere: cannot be read"),
    (["--protocol=thumos", "--ambiguous=/nowhere"], "cannot be read")])
def test_refusals(files, capsys, flags, message):
    assert _run(files, *flags)[0] == 1
    assert message in capsys.readouterr().err


def test_a_block_list_of_all_videos_is_refused(files, capsys):
    (files / "block.txt").write_text("a\nb\n")
    assert _run(files, f"--videos={files / 'block.txt'}")[0] == 1
    assert "block.txt: leaves out all videos of subset 'test'" in (
        capsys.readouterr().err)


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


def _score(tmp_path, capsys, truth, predictions, *flags):
    """Returns the status and the output for two JSON objects."""
    for name, content in (("truth", {"database": truth}),
                          ("predictions", {"results": predictions})):
        (tmp_path / f"{name}.json").write_text(
            content if isinstance(content, str) else json.dumps(content))
    status = score.main([
        str(tmp_path / "predictions.json"), "--subset=test",
        f"--annotations={tmp_path / 'truth.json'}", *flags])
    return status, "".join(capsys.readouterr())


TRUTH = {"v 1": {"subset": "test", "duration": 60.0, "annotations": [
             {"label": "HighJump", "label_id": 0, "segment": [1, 5]}]},
         "v 2": {"subset": "train", "duration": 60.0, "annotations": [
             {"label": "LongJump", "label_id": 1, "segment": [1, 5]}]}}


def _row(label="HighJump", segment=(1, 5)):
    return {"label": label, "segment": [*segment], "score": 0.9}


@pytest.mark.parametrize("label, hint", [
    ("highjump", "'highjump'; did you mean 'HighJump'?"),
    ("HighJump ", "'HighJump '; did you mean 'HighJump'?"),
    ("High Jump", "did you mean 'HighJump'?"),
    ("0", "'0'; number 0 is 'HighJump', labels are names"),
    ("17", "'17'; known are HighJump"),
    ("LongJump", "'LongJump', which has no action in this subset"),
    ("swim", "'swim'; known are HighJump")])
def test_unknown_labels_are_named_with_the_nearest(tmp_path, capsys, label,
                                                   hint):
    status, output = _score(tmp_path, capsys, TRUTH,
                            {"v 1": [_row(label), _row(label)]})
    assert status == 0
    assert "unknown labels: 1, of 2 predictions; the first is " in output
    assert hint in output and "unknown videos" not in output
    assert "no prediction matches: none of 2 has a label" in output


def test_unknown_videos_are_counted_apart_from_labels(tmp_path, capsys):
    status, output = _score(tmp_path, capsys, TRUTH, {
        "v 1": [_row(), _row("swim")], "V_1": [_row(), _row()], "v 2": [_row()],
        "\ud800": []})
    assert status == 0
    assert ("unknown videos: 2, with 2 predictions; the first is 'V_1'; did "
            "you mean 'v 1'?") in output
    assert "unknown labels: 1, of 1 predictions; the first is 'swim'" in output
    assert "no prediction matches" not in output


def test_that_there_are_no_predictions_is_said(tmp_path, capsys):
    assert "there is no prediction, so the mAP is 0" in _score(
        tmp_path, capsys, TRUTH, {"v 1": []})[1]


@pytest.mark.parametrize("factor", [1000, 1e6, 30, 0.01])
def test_predictions_in_another_unit_are_doubted(tmp_path, capsys, factor):
    rows = [_row(segment=(1 * factor, 40 * factor))]
    output = _score(tmp_path, capsys, TRUTH, {"v 1": rows})[1]
    assert "give both in seconds" in output
    output = _score(tmp_path, capsys, TRUTH, {"v 1": [_row()]})[1]
    assert "give both in seconds" not in output


@pytest.mark.parametrize("annotated, predicted", [
    ("bird_1.mp4", "bird_1"), ("bird_1", "bird_1.MP4"), ("v_x", "x"),
    ("\u00e9tude", "e\u0301tude"), ("e\u0301tude.mkv", "\u00e9tude")])
def test_ids_fit_without_ending_prefix_and_form(tmp_path, capsys, annotated,
                                                predicted):
    _, output = _score(tmp_path, capsys, {annotated: TRUTH["v 1"]},
                       {predicted: [_row()]})
    assert "mean      100.00" in output and "unknown" not in output.replace(
        "classes from: unknown", "")


def test_predictions_of_another_subset_are_known_videos(tmp_path, capsys):
    truth = {f"bird_{number}.mp4": {**TRUTH["v 1"], "subset": subset}
             for number, subset in enumerate(("test", "test", "train"))}
    _, output = _score(tmp_path, capsys, truth, {
        f"bird_{number}": [_row()] for number in range(3)})
    assert "unknown videos" not in output
    assert ("1 videos with 1 predictions are not in subset test (bird_2.mp4): "
            "they count as false, which lowers the mAP; --unknown=drop leaves "
            "them out") in output


def test_a_block_list_fits_ids_without_an_ending(tmp_path, capsys):
    truth = {f"bird_{number}.mp4": TRUTH["v 1"] for number in range(2)}
    (tmp_path / "block.txt").write_text("bird_1.mp4\n")
    _, output = _score(tmp_path, capsys, truth, {
        f"bird_{number}": [_row()] for number in range(2)},
        f"--videos={tmp_path / 'block.txt'}")
    assert "1 videos, 1 actions, 1 predictions" in output


def test_ids_with_other_endings_are_other_videos(tmp_path, capsys):
    truth = dict.fromkeys(("clip.1", "clip.2", "a.mp4", "a.avi"), TRUTH["v 1"])
    _, output = _score(tmp_path, capsys, truth, {
        "clip.3": [_row()], "a": [_row()], "clip": [_row()]})
    assert "unknown videos: 3, with 3 predictions" in output


@pytest.mark.parametrize("name, text, message", [
    ("truth", '{"database": {"v": {}, "v": {}}}', 'the key "v" twice'),
    ("predictions", '{"results": {"v": [], "v": []}}', 'the key "v" twice'),
    ("predictions", '{"database": {}}', "but annotations"),
    ("predictions", '{"shown_from": {}}', "predictions.json beside it"),
    ("truth", '{"results": {}}', "a file of predictions"),
    ("predictions", '{"results": {"v": [{"label": "a", "score": 1, "segment": '
     '[1, ' + 400 * "9" + "]}]}}", "is not [start, end]")])
def test_wrong_files_are_refused_with_what_they_are(files, capsys, name, text,
                                                    message):
    (files / f"{name}.json").write_text(text)
    assert _run(files)[0] == 1
    error = capsys.readouterr().err
    assert message in error and f"{name}.json" in error


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le",
                                      "cp1252", "shift_jis"])
def test_every_file_of_score_is_read_alike(files, capsys, encoding):
    text = {"truth.json": (files / "truth.json").read_text(),
            "predictions.json": (files / "predictions.json").read_text(),
            "block.txt": "b\n", "classes.txt": "run\nwalk\n",
            "ambiguous.txt": "a 55 58\n"}
    letter = "走る" if encoding == "shift_jis" else "é"
    flags = (f"--videos={files / 'block.txt'}", "--protocol=thumos",
             f"--class_names={files / 'classes.txt'}",
             f"--ambiguous={files / 'ambiguous.txt'}")
    for changed in text:
        for name, content in text.items():
            (files / name).write_text(content)
        content = text[changed]
        more = (content.replace("{", f'{{"{letter}": 0, ', 1)
                if content.startswith("{") else f"{content}{letter} 1 2\n")
        (files / changed).write_bytes(more.encode(encoding))
        status, _ = _run(files, *flags)
        error = capsys.readouterr().err
        assert status == (encoding != "utf-8-sig")
        if status:
            assert f"{changed}: is not UTF-8 text, it seems to be " in error


def test_the_example_of_readme_is_scored_by_its_command(tmp_path, capsys,
                                                        monkeypatch):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    example = readme[readme.index('    {"database"'):]
    example = example[:example.index("\n\n")]
    command = re.search(r"losa_jax.score (predictions.json .*?)`", readme)[1]
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text(example)
    Path("predictions.json").write_text(json.dumps({"results": {
        "video_2": [_row("jump", json.loads(example)["database"]["video_2"][
            "annotations"][0]["segment"])]}}))
    assert score.main(command.split()) == 0
    assert "mean   100.00" in capsys.readouterr().out
    page = (Path(__file__).parents[1] / "docs/scoring.md").read_text()
    Path("predictions.json").write_text(page[
        page.index('    {"results"'):].partition("\n\n")[0])
    assert score.main(command.split()) == 0
    assert "mean   100.00" in capsys.readouterr().out


@pytest.mark.shared
@pytest.mark.parametrize("name, words", [
    ("good", "mean      100.00"), ("case", "did you mean 'HighJump'?"),
    ("space", "did you mean 'HighJump'?"), ("id_text", "0 is 'HighJump'")])
def test_public_predictions_are_scored_in_words(shared_dir, capsys, name,
                                                words):
    folder = shared_dir / "data/public_cases/score"
    assert score.main([str(folder / f"{name}.json"), "--subset=test",
                       f"--annotations={folder / 'gt.json'}"]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.shared
def test_public_texts_are_read(shared_dir, capsys):
    folder = shared_dir / "data/public_cases"
    text, spaces = folder / "text", folder / "spaces"
    for truth, flags in ((text / "gt_plain.json", ()),
                         (text / "thumos_bom", ()),
                         (text / "gt_plain.json",
                          (f"--videos={text / 'block_bom.txt'}",))):
        assert score.main([str(text / "pred_bom.json"), "--subset=test",
                           f"--annotations={truth}", *flags]) == 0
        assert "mean   100.00" in capsys.readouterr().out
    assert score.main([str(spaces / "pred.json"), "--subset=testing",
                       f"--annotations={spaces / 'ann.json'}"]) == 0
    assert score.main([
        str(folder / "score/duplicate_video.json"), "--subset=test",
        f"--annotations={folder / 'score/duplicate_video_gt.json'}"]) == 1
    assert 'has the key "v1" twice' in capsys.readouterr().err


@pytest.mark.shared
def test_public_times_in_microseconds_are_recognized(shared_dir):
    folder = shared_dir / "data/public_cases/annotations"
    lengths = dict.fromkeys(("v1", "v2", "v3"), 12.0)
    annotations = load_annotations(folder / "microseconds.json")
    with pytest.raises(InputError, match="The times of 1 videos, the first v1,"
                                         " look like microseconds"):
        clipped_to(annotations, lengths, "error")
    annotations = load_annotations(folder / "good.json")
    assert clipped_to(annotations, lengths, "error") == annotations


@pytest.mark.shared
def test_a_public_block_list_of_names_with_blanks_is_read(shared_dir, tmp_path):
    annotations = load_annotations(
        shared_dir / "data/public_cases/spaces/ann.json")
    path = tmp_path / "block_list.txt"
    names = ["kitchen 03 (missing)", "kitchen 04 (missing)"]
    path.write_text("\n".join([*names, "kitchen 99"]))
    blocked, doubts = blocked_videos(str(path), annotations.videos)
    assert [*blocked] == [*names, "kitchen 99"]
    assert "1 of 3 ids are not in the annotations" in doubts[0]


@pytest.mark.shared
@pytest.mark.parametrize("name, message", [
    ("dup", 'the key "v1" twice'), ("digits", 'v1, annotation 0: segment "37"'),
    ("label_space", "v1, annotation 0: label 'jump ' has blanks"),
    ("instances", "v1: no .* unknown key 'actions'"),
    ("one_wrong_key", "a: no .* unknown key 'Annotations'")])
def test_public_annotations_are_refused_in_words(shared_dir, name, message):
    with pytest.raises(InputError, match=message):
        load_annotations(
            shared_dir / f"data/public_cases/annotations/{name}.json")
