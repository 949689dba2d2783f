"""Annotation files as users have them: wrong types, keys, units, tools."""

import json
import logging
import unicodedata

import pytest

from losa_jax.data.annotations.lint import class_counts, similar_names
from losa_jax.data.annotations.load import (
    check_training,
    load_annotations,
    load_class_names,
    select_subsets,
)
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.errors import InputError

JUMP = {"label": "jump", "segment": [1.0, 2.0]}


def _write(tmp_path, database, name="a.json"):
    path = tmp_path / name
    path.write_text(json.dumps({"database": database}))
    return path


def _video(*actions, **more):
    return {"subset": "training", "annotations": [*actions], **more}


@pytest.mark.parametrize("segment", ["37", "12", {"1": 2, "3": 4}, [1], [],
                                     [1, 2, 3], None, 3, [True, 2], [[1], [2]],
                                     ["1_0", "20"], ["a", "b"], [None, 1],
                                     "1.0 2.0", ["0:01", "0:02"]])
def test_a_segment_is_a_list_of_two_numbers(tmp_path, segment):
    path = _write(tmp_path, {"v": _video(JUMP, JUMP | {"segment": segment})})
    with pytest.raises(InputError, match=r"v, annotation 1: segment .* is not "
                                         r"\[start, end\], a list of two"):
        load_annotations(path)


@pytest.mark.parametrize("change, problem", [
    ({"label": 3}, "label 3 is not a text"),
    ({"label": None}, "label null is not a text"),
    ({"label": ["jump"]}, "is not a text"),
    ({"label": "jump "}, "label 'jump ' has blanks"),
    ({"label": "\u00a0jump"}, "has blanks"), ({"label": " "}, "is empty"),
    ({"label_id": "0"}, "label_id '0' is no whole number"),
    ({"label_id": True}, "label_id True is no whole number"),
    ({"segment": [2, float("inf")]}, "is not finite")])
def test_other_types_are_refused_by_entry(tmp_path, change, problem):
    path = _write(tmp_path, {"v": _video(JUMP | change)})
    with pytest.raises(InputError, match=f"v, annotation 0: .*{problem}"):
        load_annotations(path)


@pytest.mark.parametrize("change, problem", [
    ({"duration": "12 s"}, "duration is '12 s'"),
    ({"fps": [25]}, r"fps is \[25\]"), ({"duration": True}, "duration is True"),
    ({"subset": 1}, "no \"subset\""), ({"subset": "training "}, "has blanks"),
    ({"annotations": {}}, "is no list"), ({"annotations": "x"}, "is no list"),
    ({"annotations": [5]}, "annotation 0: needs \"label\"")])
def test_wrong_values_of_a_video_are_refused(tmp_path, change, problem):
    path = _write(tmp_path, {"v": _video(JUMP) | change, "w": _video(JUMP)})
    with pytest.raises(InputError, match=f"v[:,] .*{problem}"):
        load_annotations(path)


@pytest.mark.parametrize("key", ["actions", "Annotations", "instances",
                                 "annotation", "segments", "events",
                                 "annotations ", "my_list"])
def test_an_unknown_key_in_place_of_annotations_is_named(tmp_path, key):
    wrong = {"subset": "training", key: [JUMP]}
    for entry in (wrong, wrong | {"annotations": []}):
        path = _write(tmp_path, {"v": entry, "w": _video(JUMP)})
        with pytest.raises(InputError, match=f"v: .*unknown key '{key}'"):
            load_annotations(path)
    flat = tmp_path / "flat.json"
    flat.write_text(json.dumps({"v": wrong, "w": _video(JUMP)}))
    with pytest.raises(InputError, match=f"v: .*unknown key '{key}'"):
        load_annotations(flat)


def test_further_keys_of_a_video_are_no_problem(tmp_path):
    more = {"url": "x", "resolution": [340, 256], "tags": ["a"], "frames": 3}
    path = _write(tmp_path, {
        "v": _video(JUMP, **more, segments=[[1, 2]]),
        "w": {"subset": "testing", **more}, "x": _video(**more),
        "y": {"subset": "testing", "annotations": None}})
    assert len(load_annotations(path).videos) == 4


def test_a_video_in_two_unicode_forms_is_there_twice(tmp_path):
    name = "étude"
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    path = _write(tmp_path, dict.fromkeys(forms, _video(JUMP)))
    with pytest.raises(InputError, match="étude: is there twice"):
        load_annotations(path)
    path = _write(tmp_path, {forms[1]: _video(
        JUMP | {"label": unicodedata.normalize("NFD", "Köpfer")})})
    annotations = load_annotations(path, ("Köpfer",))
    assert [*annotations.videos] == [forms[0]]


def test_names_that_are_nearly_equal_are_reported(tmp_path):
    path = _write(tmp_path, {
        "a": _video(JUMP, JUMP | {"label": "Jump"}), "A": _video(),
        "b": _video(JUMP | {"label": "high jump"},
                    JUMP | {"label": "HighJump"}, subset="testing")})
    annotations = load_annotations(path)
    assert similar_names(annotations) == [
        "labels that are nearly equal: 'HighJump', 'high jump'",
        "labels that are nearly equal: 'Jump', 'jump'",
        "video ids that are nearly equal: 'a', 'A'"]
    assert class_counts(annotations)["Jump"] == {"training": 1, "testing": 0}


@pytest.mark.parametrize("segments, unit", [
    ([[0, 2866667]], "microseconds"), ([[1000, 9500]], "milliseconds"),
    ([[25, 75], [200, 290]], "frames at 25 frames a second"),
    ([[0, 11.5e9]], "nanoseconds")])
@pytest.mark.parametrize("rule", ["error", "clip", "keep"])
def test_times_in_another_unit_are_recognized(tmp_path, caplog, segments, unit,
                                              rule):
    path = _write(tmp_path, {"good": _video(JUMP), "far": _video(*(
        JUMP | {"segment": one} for one in segments))})
    annotations = load_annotations(path)
    lengths, rates = dict.fromkeys(("good", "far"), 12.0), {"far": 25.0}
    words = f"The times of 1 videos, the first far, look like {unit}"
    if rule == "error":
        with pytest.raises(InputError, match=words):
            clipped_to(annotations, lengths, rule, rates)
    else:
        clipped_to(annotations, lengths, rule, rates)
        assert words in caplog.text


def test_sound_times_are_taken_for_no_other_unit(tmp_path, caplog):
    path = _write(tmp_path, {"a": _video(JUMP, JUMP | {"segment": [10, 30]})})
    caplog.set_level(logging.WARNING)
    clipped_to(load_annotations(path), {"a": 12.0}, "clip", {"a": 25.0})
    assert "look like" not in caplog.text


def test_shares_of_the_video_are_recognized(tmp_path, caplog):
    path = _write(tmp_path, {"a": _video(*(
        JUMP | {"segment": [0.1 * k, 0.1 * k + 0.1]} for k in range(4)))})
    clipped_to(load_annotations(path), {"a": 60.0}, "error")
    assert "All 4 actions end within the first second" in caplog.text


def test_missing_subsets_are_reported_with_those_of_the_file(tmp_path):
    annotations = load_annotations(_write(tmp_path, {
        "a": _video(JUMP, subset="train"), "b": _video(subset="Test")}))
    wanted = [("--train", "training"), ("--test", "testing")]
    with pytest.raises(InputError, match=(
            r"subset 'training' and 'testing'; the file has test \(1 videos\),"
            r" train \(1 videos\): set --train=train --test=test")):
        select_subsets(annotations, wanted)
    (train,) = select_subsets(annotations, [("--train", "TRAIN")])
    check_training(annotations, "train", train)
    with pytest.raises(InputError, match="'test' has an action .the whole file"
                                         " has 1"):
        check_training(annotations, "test", annotations.subset("test"))


@pytest.mark.parametrize("name, subset", [
    ("anet_anno_train.json", "training"), ("anet_anno_val.json", "validation"),
    ("anet_anno_test.json", "testing"), ("anet_anno_full.json", "all")])
def test_mmactions_file_is_read_alone(tmp_path, caplog, name, subset):
    (tmp_path / name).write_text(json.dumps({
        "v_abc": {"duration_second": 20.0, "duration_frame": 600, "fps": 30.0,
                  "annotations": [JUMP], "feature_frame": 592, "rfps": 29.9},
        "v_def": {"duration_second": 9.0, "annotations": []}}))
    annotations = load_annotations(tmp_path / name)
    assert [*annotations.videos] == ["abc", "def"]
    video = annotations.videos["abc"]
    assert (video.subset, video.duration_seconds, video.fps) == (
        subset, 20.0, 30.0)
    assert video.actions[0][:3] == (1.0, 2.0, "jump")
    assert ("BMN's table has subsets" in caplog.text) == (subset == "all")


@pytest.mark.parametrize("name, text, what", [
    ("a.eaf", '<?xml version="1.0"?>\n<ANNOTATION_DOCUMENT AUTHOR=""/>',
     "the layout of ELAN: convert it: python -m losa_jax.annotations"),
    ("a.eaf", '<?xml version="1.0"?>\n<ANNOTATION_DOCUMENT AUTHOR="">',
     "not a complete XML document"),
    ("a.csv", "video,label,start,end\na,jump,1,2\n", "layout of a table"),
    ("a.csv", "video,type,start,end\na,jump,1,2\n", "layout of a table"),
    ("a.csv", "video;label;start\na;jump;1\n", '"video", "label", "start"'),
    ("a.tsv", "Observation id\tBehavior\tTime\tStatus\n", "BORIS"),
    ("a.srt", "1\n00:00:01,000 --> 00:00:02,480\njump\n", "subtitles"),
    ("a.vtt", "WEBVTT\n", "subtitles"),
    ("a.TextGrid", 'File type = "ooTextFile"\n"TextGrid"\n', "Praat"),
    ("a.json", '{"results": {"v": []}}', "is a file of predictions"),
    ("a.json", '{"shown_from": {}}', "is a file of predictions"),
    ("a.json", '[{"video": "a", "label": "b"}]', "a JSON list of objects"),
    ("a.json", '{"images": [], "categories": []}', '"images", "categories"'),
    ("a.json", '{"version": "1", "clips": []}', 'but "version", "clips"'),
    ("a.json", '{"Database": {"v": {}}}', "'Database': rename"),
    ("a.json", "{}", "an empty JSON object"), ("a.json", "", "is empty"),
    ("a.txt", "v1 1.0 2.0\n", "is in no known layout")])
def test_files_of_other_tools_are_recognized(tmp_path, name, text, what):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        load_annotations(tmp_path / name)
    assert what in str(error.value) and name in str(error.value)
    # The list of layouts is for files that may be of one of them.
    is_listed = text == "{}" or name in ("a.json", "a.txt") and not any(
        word in what for word in ("predictions", "empty", "rename"))
    assert ("AFSD" in str(error.value)) == is_listed


@pytest.mark.parametrize("text, what", [
    ("<html><body>404", "an HTML page"),
    ("version https://git-lfs.github.com/spec/v1", "git lfs pull")])
def test_what_stands_for_annotations_is_named(tmp_path, text, what):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=f"a.json: not a text.*{what}"):
        load_annotations(tmp_path / "a.json")


def test_class_lists_are_read_by_line(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufefflong jump\r\n#1\r\n\r\nsaut à la perche\r\n")
    assert load_class_names(path) == ("long jump", "#1", "saut à la perche")
    path.write_text("a\nb\na\n")
    with pytest.raises(InputError, match="3 lines, 2 distinct\n  a"):
        load_class_names(path)


def test_thumos_folders_are_read_with_marks_and_blanks(tmp_path, caplog):
    (tmp_path / "Jump_test.txt").write_bytes(
        "\ufeffv 1  1.0 5.0\r\nv2  10.0 15.0\r\n".encode())
    (tmp_path / "notes.txt").write_text("x")
    annotations = load_annotations(tmp_path)
    assert [*annotations.videos] == ["v 1", "v2"]
    assert "notes.txt" in caplog.text
    (tmp_path / "Run_val.txt").write_text("v2 1 2\n")
    with pytest.raises(InputError, match="v2 is in files of _val and of _test"):
        load_annotations(tmp_path)
