"""Good files are read; each wrong entry is named, all in one report.

Actions outside their video are reported, cut or kept.
"""

import json
from pathlib import Path

import pytest

from losa_jax.data.annotations.load import load_annotations, load_class_names
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
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
        "good": _video(), "nameless": _video(label=""),
        "nan": _video([(float("nan"), 2)]), "homeless": {"duration": 3},
        "short": {**_video(), "annotations": [{"label": "x"}]},
        "timeless": _video(duration=-1)})
    with pytest.raises(InputError) as caught:
        load_annotations(path)
    report = str(caught.value)
    for text in (
            f"{path}: 5 wrong entries",
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
        clipped_to(load_annotations(path), {}, "error")
    assert "and 30 more" in str(caught.value)


def test_an_unknown_label_is_refused_with_the_nearest(tmp_path):
    path = _write(tmp_path, {"a": _video(label="Jmup")})
    with pytest.raises(InputError, match="a, annotation 0: label 'Jmup' .* "
                                         "did you mean 'Jump'"):
        load_annotations(path, ("Run", "Jump"))


@pytest.mark.parametrize("text, message", [
    ("{\n\"database\": }", "line 2, column 13"),
    ("[1]", "is a JSON list: annotations"), ("{}", "an empty JSON object: an"),
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
    with pytest.raises(InputError, match="2 lines, 1 distinct"):
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


def test_a_duration_may_be_text_as_in_hacs(tmp_path):
    path = _write(tmp_path, {"a": _video(duration="60.5")})
    assert load_annotations(path).videos["a"].duration_seconds == 60.5
    path = _write(tmp_path, {"a": _video(duration="long")})
    with pytest.raises(InputError, match="a: duration is 'long', must be"):
        load_annotations(path)


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
    with pytest.raises(InputError, match="seems to be UTF-16: save it as "):
        load_class_names(path)


@pytest.mark.shared
def test_numbers_as_text_in_a_public_file_are_read(shared_dir):
    path = shared_dir / "data/thumos14/thumos14_210_test_videos.json"
    videos = clipped_to(load_annotations(path), {}, "error").subset("test")
    assert len(videos) == 210
    assert videos[0].actions[0][:3] == (18.6, 24.8, "HighJump")


def test_actions_that_end_before_they_start_are_read_and_then_refused(
        tmp_path, caplog):
    read = load_annotations(_write(tmp_path, {
        "a": _video([(1, 2), (3, 2.5)])}))
    assert len(read.videos["a"].actions) == 2
    with pytest.raises(InputError, match=r"a, annotation 1: segment \[3.0, "
                                         "2.5\\] ends before it starts"):
        clipped_to(read, {}, "error")
    for rule in ("clip", "keep"):
        caplog.clear()
        kept = clipped_to(read, {}, rule).videos["a"].actions
        assert [action[:2] for action in kept] == [(1.0, 2.0)]
        assert "ends before it starts: dropped" in caplog.text


def _annotations(label_ids=None, **segments):
    """Videos of 10 s, by name; a segment is (start, end) or with a label.

    Without label_ids, the list of classes was given.
    """
    videos = {
        name: AnnotatedVideo(name, "training", 10.0, 25.0, tuple(
            Action(*one[:2], *(one[2:] or ("jump",)), label_id)
            for one, label_id in zip(
                ones, (label_ids or {}).get(name, (None,) * len(ones)),
                strict=True)))
        for name, ones in segments.items()}
    names = {action.label for video in videos.values()
             for action in video.actions}
    return Annotations(Path("a.json"), videos, tuple(sorted(names)),
                       label_ids is None)


def test_rounding_errors_are_cut_without_a_warning(caplog):
    clipped = clipped_to(_annotations(a=[(-0.04, 1.0), (9.0, 10.04)]), {},
                         "error")
    assert clipped.videos["a"].actions == (Action(0.0, 1.0, "jump"),
                                           Action(9.0, 10.0, "jump"))
    assert not caplog.records


def test_all_actions_outside_are_listed():
    with pytest.raises(InputError) as caught:
        clipped_to(_annotations(late=[(1.0, 2.0), (5.0, 11.0)],
                                empty=[(3.0, 3.0)], good=[(1.0, 2.0)]),
                   {}, "error")
    assert str(caught.value) == (
        "a.json: 2 wrong entries:\n"
        "  late, annotation 1: segment [5.0, 11.0] reaches outside the "
        "video, 0 to 10.0 seconds\n"
        "  empty, annotation 0: segment [3.0, 3.0] is empty\n"
        "Correct the file (or cut segments to their video, and drop empty "
        "ones, with --config.data.on_outside=clip)")


def test_actions_outside_their_video_can_be_cut(caplog):
    video = clipped_to(
        _annotations(a=[(5.0, 11.0), (12.0, 13.0), (-2.0, 1.0), (4.0, 4.0)]),
        {}, "clip").videos["a"]
    assert video.actions == (Action(5.0, 10.0, "jump"),
                             Action(0.0, 1.0, "jump"))
    assert [record.message for record in caplog.records] == [
        "a, annotation 0: segment [5.0, 11.0] reaches outside the video, "
        "0 to 10.0 seconds: cut",
        "a, annotation 1: segment [12.0, 13.0] reaches outside the video, "
        "0 to 10.0 seconds: dropped",
        "a, annotation 2: segment [-2.0, 1.0] reaches outside the video, "
        "0 to 10.0 seconds: cut",
        "a, annotation 3: segment [4.0, 4.0] is empty: dropped"]


def test_actions_outside_their_video_can_be_kept():
    annotations = _annotations(a=[(5.0, 11.0), (4.0, 4.0)])
    assert clipped_to(annotations, {"a": 6.0}, "keep") is annotations
    with pytest.raises(InputError, match="on_outside='ask': choose one of"):
        clipped_to(annotations, {}, "ask")


def test_the_length_of_the_file_replaces_the_annotated_one():
    annotations = _annotations(a=[(5.0, 11.0)], b=[(5.0, 9.0)])
    clipped = clipped_to(annotations, {"a": 12.0}, "error")
    assert clipped.videos["a"].actions == (Action(5.0, 11.0, "jump"),)
    assert clipped.videos["a"].duration_seconds == 10.0
    with pytest.raises(InputError, match="b, annotation 0.*0 to 8.0 seconds"):
        clipped_to(annotations, {"a": 12.0, "b": 8.0}, "error")


def test_a_class_without_actions_stays_only_in_a_given_list():
    segments = {"a": [(1.0, 2.0, "run"), (20.0, 21.0, "jump")]}
    listed = clipped_to(_annotations(**segments), {}, "clip")
    assert listed.class_names == ("jump", "run")
    own = clipped_to(_annotations({"a": (None, None)}, **segments), {},
                     "clip")
    assert own.class_names == ("run",)


def test_the_class_order_is_that_of_the_actions_that_are_left():
    """The one action without a label_id is outside."""
    segments = {"a": [(1.0, 2.0, "run"), (3.0, 4.0, "jump"),
                      (20.0, 21.0, "run")]}
    clipped = clipped_to(_annotations({"a": (0, 1, None)}, **segments), {},
                         "clip")
    assert clipped.class_names == ("run", "jump")
    assert [one.label_id for one in clipped.videos["a"].actions] == [0, 1]
    assert clipped_to(clipped, {}, "error") == clipped
