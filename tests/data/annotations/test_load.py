"""Good files are read; each wrong entry is named, all in one report."""

import json

import pytest

from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.records import Action
from losa_jax.errors import InputError


def _write(tmp_path, database, name="annotations.json"):
    path = tmp_path / name
    path.write_text(json.dumps({"version": "x", "database": database}))
    return path


def _video(segments=((1.0, 2.0),), label="jump", **changes):
    return {"subset": "Training", "duration": 10.0, "fps": 25.0,
            "annotations": [{"label": label, "segment": list(segment)}
                            for segment in segments], **changes}


def test_a_good_file_is_read(tmp_path):
    path = _write(tmp_path, {
        "b": _video(label="run"), "a": _video([(0, 1), (9, 10.02)]),
        "empty": {"subset": "testing", "annotations": []},
        "bare": {"subset": "testing"}})
    annotations = load_annotations(path)
    assert annotations.class_names == ("jump", "run")
    assert [v.video_id for v in annotations.subset("training")] == ["b", "a"]
    # As the file has it: what is outside its video is for `clipped_to`.
    assert annotations.videos["a"].actions == (
        Action(0.0, 1.0, "jump"), Action(9.0, 10.02, "jump"))
    assert annotations.videos["bare"].duration_seconds is None
    assert annotations.videos["empty"].actions == ()


def test_label_ids_give_the_order(tmp_path):
    database = {"a": _video(label="zebra"), "b": _video(label="ant")}
    database["a"]["annotations"][0]["label_id"] = 0
    database["b"]["annotations"][0]["label_id"] = 1
    assert load_annotations(_write(tmp_path, database)).class_names == (
        "zebra", "ant")
    database["b"]["annotations"][0]["label_id"] = 0
    with pytest.raises(InputError, match="share one label_id"):
        load_annotations(_write(tmp_path, database))
    database["b"]["annotations"].append(
        {"label": "ant", "segment": [3, 4], "label_id": 2})
    with pytest.raises(InputError, match="'ant' has several label_id: 0, 2"):
        load_annotations(_write(tmp_path, database))


def test_all_wrong_entries_are_listed(tmp_path):
    path = _write(tmp_path, {
        "turned": _video([(1, 2), (3, 2)]),
        "good": _video(), "nameless": _video(label=""),
        "nan": _video([(float("nan"), 2)]), "homeless": {"duration": 3},
        "short": {**_video(), "annotations": [{"label": "x"}]},
        "timeless": _video(duration=-1)})
    with pytest.raises(InputError) as caught:
        load_annotations(path)
    report = str(caught.value)
    for text in (
            f"{path}: 6 wrong entries",
            "turned, annotation 1: segment [3.0, 2.0] ends before it starts",
            "nameless, annotation 0: label ''",
            "nan, annotation 0: segment [nan, 2.0] is not finite",
            "homeless: has no \"subset\"",
            "short, annotation 0: needs \"label\" and \"segment\"",
            "timeless: duration is -1", "\nCorrect the file"):
        assert text in report
    assert "good" not in report


def test_long_reports_are_cut(tmp_path):
    path = _write(tmp_path, {f"v{i}": _video([(2, 1)]) for i in range(50)})
    with pytest.raises(InputError, match="50 wrong entries") as caught:
        load_annotations(path)
    assert "and 30 more" in str(caught.value)


def test_an_unknown_label_is_refused_with_the_nearest(tmp_path):
    path = _write(tmp_path, {"a": _video(label="Jmup")})
    with pytest.raises(InputError, match="a, annotation 0: label 'Jmup' .* "
                                         "did you mean 'Jump'"):
        load_annotations(path, ("Run", "Jump"))


@pytest.mark.parametrize("text, message", [
    ("{\n\"database\": }", "line 2, column 13"),
    ("[1]", "no object \"database\""), ("{}", "no object \"database\""),
    ("{\"database\": {}}", "no videos"),
])
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_annotations(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such annotation file"):
        load_annotations(tmp_path / "none.json")


def test_class_names_are_read(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("b\na\n\n")
    assert load_class_names(path) == ("b", "a")
    path.write_text("b\nb\n")
    with pytest.raises(InputError, match="2 lines, 1 different"):
        load_class_names(path)


@pytest.mark.shared
def test_public_files_are_read(shared_dir, caplog):
    path = shared_dir / "data/gestures/gestures.json"
    gestures = clipped_to(load_annotations(path), {}, "error")
    names = load_class_names(path.with_name("categories.txt"))
    assert gestures.class_names == names
    assert len(gestures.subset("training")) == 24
    assert len(gestures.subset("testing")) == 12
    as_read = load_annotations(shared_dir / "data/thumos14/thumos14.json")
    with pytest.raises(InputError, match="reaches outside the video"):
        clipped_to(as_read, {}, "error")
    thumos = clipped_to(as_read, {}, "clip")
    assert len(thumos.class_names) == 20
    # Some actions lie wholly behind the end of the circulating file.
    dropped = [record.message for record in caplog.records
               if record.message.endswith("dropped")]
    for subset, videos, actions in (("validation", 200, 3007),
                                    ("test", 212, 3358)):
        chosen = thumos.subset(subset)
        assert len(chosen) == videos
        assert (sum(len(video.actions) for video in chosen)
                + sum(f"video_{subset}" in line for line in dropped)
                ) == actions


def test_untrusted_text_is_refused_without_being_printed(tmp_path):
    path = _write(tmp_path, {
        "a\x1b[2J": _video(), "b": _video(label="jump\nrun"),
        "": _video(), "café 日本": _video(label="saut à la perche")})
    with pytest.raises(InputError, match="3 wrong entries") as caught:
        load_annotations(path)
    assert "\x1b" not in str(caught.value)
    assert "'a\\x1b[2J'" in str(caught.value)
    assert "'jump\\nrun'" in str(caught.value)


def test_unusual_numbers_are_refused_or_read(tmp_path):
    huge = 10 ** 400
    path = _write(tmp_path, {
        "huge": _video([(1, huge)]), "long": _video(duration=huge),
        "true": _video(fps=True), "text": _video([("1.5", "2")])})
    with pytest.raises(InputError, match="3 wrong entries"):
        load_annotations(path)
    path = _write(tmp_path, {"text": _video([("1.5", "2")])})
    assert load_annotations(path).videos["text"].actions == (
        Action(1.5, 2.0, "jump"),)


def test_label_ids_must_be_whole_numbers_on_all_or_do_not_count(tmp_path):
    database = {"a": _video([(1, 2), (3, 4)], label="zebra"),
                "b": _video(label="ant")}
    database["a"]["annotations"][0]["label_id"] = 0
    # Not every action has one: names in order.
    assert load_annotations(_write(tmp_path, database)).class_names == (
        "ant", "zebra")
    database["b"]["annotations"][0]["label_id"] = [1]
    with pytest.raises(InputError, match=r"b, annotation 0: label_id \[1\]"):
        load_annotations(_write(tmp_path, database))


def test_byte_order_marks_are_ignored(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("b\na\n", encoding="utf-8-sig")
    assert load_class_names(path) == ("b", "a")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="that it is UTF-8 text"):
        load_class_names(path)


@pytest.mark.shared
def test_numbers_as_text_in_a_public_file_are_read(shared_dir):
    path = shared_dir / "data/thumos14/thumos14_210_test_videos.json"
    videos = clipped_to(load_annotations(path), {}, "error").subset("test")
    assert len(videos) == 210
    assert videos[0].actions[0][:3] == (18.6, 24.8, "HighJump")
