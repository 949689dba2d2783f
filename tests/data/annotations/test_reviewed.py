"""Reviews are merged into annotations, and files say what is unknown."""

import dataclasses
import json
from pathlib import Path

import pytest

from losa_jax.data import reviews
from losa_jax.data.annotations import data_set_index
from losa_jax.data.annotations.load import clipped_to, load_annotations
from losa_jax.data.annotations.reviewed import check_scorable, with_reviews
from losa_jax.data.annotations.tools.content import Options
from losa_jax.data.annotations.tools.read import read_annotations
from losa_jax.data.records import (
    Action,
    AnnotatedVideo,
    Annotations,
    VideoInfo,
)
from losa_jax.data.reviews import JudgedAction, Review
from losa_jax.errors import InputError


def _judged(start, end, label, verdict="accepted", detected=None):
    return JudgedAction("h0123456789ab", label, start, end, verdict, "ann",
                        "2026-11-30T14:00:00+00:00", detected=detected)


def _rejected(start, end, label):
    return _judged(start, end, label, "rejected")


def _review(name, *actions, complete=False):
    return Review(name, 20.0, 25.0, 1, complete, actions)


def _annotations(**videos):
    """Returns {name: (subset, actions)} with classes run, jump."""
    return Annotations(Path("a.json"), {
        name.replace("__", "/"): AnnotatedVideo(
            name.replace("__", "/"), subset, 20.0, 25.0, tuple(
                Action(*one, ["run", "jump"].index(one[2])) for one in actions))
        for name, (subset, actions) in videos.items()}, ("run", "jump"))


def _rows(actions):
    return [action[:3] for action in actions]


OLD = _annotations(
    a=("training", [(1.0, 3.0, "jump"), (5.0, 6.0, "run")]),
    t=("testing", [(1.0, 2.0, "run")]))


def _merge(*some, annotations=OLD, subset="Training"):
    return with_reviews(annotations, some, subset)


def test_a_new_video_is_known_as_far_as_it_was_reviewed():
    merged = _merge(
        _review("part", _judged(1, 2, "run"), _rejected(4, 5, "jump")),
        _review("whole", complete=True), _review("nothing"))
    videos = merged.annotations.videos
    assert list(videos) == ["a", "t", "part", "whole"]
    part, whole = videos["part"], videos["whole"]
    assert part.subset == whole.subset == "training"
    assert part.reviewed_seconds == () and whole.reviewed_seconds is None
    assert _rows(part.actions) == [(1, 2, "run")]
    assert _rows(part.hard_negatives) == [(4, 5, "jump")]
    assert part.duration_seconds == 20 and part.fps == 25
    assert str(merged) == ("2 videos (1 complete, 1 in part) with 1 action, "
                           "1 hard negative and 0 new classes")
    assert videos["a"] is OLD.videos["a"]


def test_a_complete_review_replaces_the_annotated_actions():
    merged = _merge(
        _review("a", _judged(1.5, 3, "jump"), complete=True),
        _review("t", _judged(7, 8, "run"), complete=True)).annotations
    assert _rows(merged.videos["a"].actions) == [(1.5, 3, "jump")]
    assert _rows(merged.videos["t"].actions) == [(7, 8, "run")]
    assert merged.videos["t"].subset == "testing"
    check_scorable("a.json", merged.subset("testing"))


def test_a_review_in_part_adds_to_the_annotated_actions():
    merged = _merge(_review(
        "a", _judged(1.5, 3, "jump"), _judged(5.9, 8, "run"),
        _rejected(5, 6, "run"), _rejected(5, 6, "jump"))).annotations
    video = merged.videos["a"]
    # The jump is the same one; of the runs, two overlap a little.
    assert _rows(video.actions) == [(1.5, 3, "jump"), (5.0, 6.0, "run"),
                                    (5.9, 8, "run")]
    assert _rows(video.hard_negatives) == [(5, 6, "jump")]
    # A fully annotated video stays one.
    assert video.reviewed_seconds is None
    assert merged == _merge(_review(
        "a", _judged(1.5, 3, "jump"), _judged(5.9, 8, "run"),
        _rejected(5, 6, "run"), _rejected(5, 6, "jump")),
        annotations=merged).annotations


def test_the_truth_of_a_testing_video_is_not_changed_by_some_verdicts():
    merged = _merge(_review("t", _judged(7, 8, "run")))
    assert merged.annotations == OLD
    assert str(merged).endswith(
        "; 1 video left as annotated, because reviewed only in part and not "
        "of the training subset: t")


def test_new_classes_follow_the_known_ones():
    merged = _merge(
        _review("n", _judged(1, 2, "wave"), _judged(3, 4, "crawl"),
                _judged(5, 6, "run", detected=(5, 6, "fly"))))
    annotations = merged.annotations
    assert annotations.class_names == ("run", "jump", "crawl", "wave")
    assert str(merged).endswith("and 2 new classes: crawl, wave")
    # "fly" is a class of nobody.
    assert annotations.videos["n"].hard_negatives == ()
    # The order is still that of label_id, and classes without actions go.
    clipped = clipped_to(annotations, {"n": 4.5}, "clip")
    assert clipped.class_names == ("run", "jump", "crawl", "wave")
    clipped = clipped_to(annotations, {"n": 2.5}, "clip")
    assert clipped.class_names == ("run", "jump", "wave")
    again = _merge(_review("m", _judged(1, 2, "bow")),
                   annotations=annotations).annotations
    assert again.class_names == ("run", "jump", "crawl", "wave", "bow")
    assert clipped_to(again, {}, "error").class_names == again.class_names


@pytest.mark.parametrize("annotated, reviewed", [
    ("day 1/cam", "cam"), ("cam", "day 1/cam"), ("cam.mp4", "cam"),
    ("v_cam", "cam"), ("cam", "v_cam"), ("caf\u00e9", "cafe\u0301")])
def test_a_video_is_known_under_its_other_names(annotated, reviewed):
    old = _annotations(**{annotated.replace("/", "__"): ("testing", [])})
    merged = _merge(_review(reviewed, _judged(1, 2, "run"), complete=True),
                    annotations=old).annotations
    assert list(merged.videos) == [annotated]
    assert merged.videos[annotated].subset == "testing"


def test_names_that_fit_several_videos_are_refused():
    old = _annotations(one__cam=("training", []), two__cam=("testing", []))
    with pytest.raises(InputError, match="'cam' may be of 2 annotated videos"
                       "(?s:.*)one/cam\n  two/cam"):
        _merge(_review("cam", _judged(1, 2, "run")), annotations=old)
    assert len(_merge(_review("three/cam", complete=True), annotations=old
                      ).annotations.videos) == 3
    # Their lengths tell them apart.
    old.videos["one/cam"] = dataclasses.replace(
        old.videos["one/cam"], duration_seconds=21.0)
    merged = _merge(_review("cam", _judged(1, 2, "run"), complete=True),
                    annotations=old).annotations
    assert len(merged.videos) == 2 and merged.videos["two/cam"].actions


def test_a_file_of_annotations_is_read_back(tmp_path):
    path = tmp_path / "reviewed.json"
    reviews.write_annotations(path, [
        _review("part", _judged(1, 2, "run"), _rejected(4, 5, "run")),
        _review("day 1/whole", _judged(1, 2, "run"), complete=True),
        _review("nothing")])
    videos = load_annotations(path).videos
    assert list(videos) == ["part", "day 1/whole"]
    assert videos["part"].reviewed_seconds == ()
    assert videos["part"].hard_negatives == (Action(4, 5, "run"),)
    assert videos["day 1/whole"].reviewed_seconds is None
    assert videos["day 1/whole"].hard_negatives == ()


def _write(tmp_path, **keys):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"database": {"a": {
        "subset": "training", "duration": 10, "annotations": [
            {"label": "run", "segment": [1, 2]}], **keys}}}))
    return path


@pytest.mark.parametrize("keys, message", [
    ({"reviewed": {"a": 1}}, 'a: "reviewed" is no list'),
    ({"rejected": "x"}, 'a: "rejected" is no list'),
    ({"reviewed": [[0, 1], [3, 2]]}, r"a, reviewed 1: \[3, 2\] is not \[st"),
    ({"reviewed": [[-1, 2]]}, "a, reviewed 0: .* with 0 <= start < end"),
    ({"reviewed": [["x", 2]]}, "a, reviewed 0"),
    ({"reviewed": [1]}, "a, reviewed 0: 1 is not"),
    ({"rejected": [{"label": "run"}]}, 'a, rejected 0: needs "label" and'),
    ({"rejected": [{"label": "run", "segment": [2, 1]}]},
     "a, rejected 0: segment .* ends before"),
    ({"rejected": [{"label": "Run", "segment": [1, 2]}]},
     "a, rejected 0: label 'Run' is in no class list; did you mean 'run'")])
def test_wrong_entries_of_a_review_are_named(tmp_path, keys, message):
    with pytest.raises(InputError, match=message):
        load_annotations(_write(tmp_path, **keys), ["run"])


@pytest.mark.parametrize("keys, what", [
    ({"reviewed": [[0, 11]]}, "reviewed 0"),
    ({"rejected": [{"label": "run", "segment": [9, 11]}]}, "rejected 0")])
def test_what_is_outside_of_a_video_follows_the_same_rule(
        tmp_path, keys, what):
    read = load_annotations(_write(tmp_path, **keys))
    with pytest.raises(InputError, match=f"a, {what}: segment .* outside"):
        clipped_to(read, {}, "error")
    video = clipped_to(read, {}, "clip").videos["a"]
    assert (video.reviewed_seconds or video.hard_negatives)[0][1] == 10


def test_rejected_segments_of_a_class_without_actions_are_left_out(
        tmp_path, caplog):
    read = load_annotations(_write(tmp_path, annotations=[], rejected=[
        {"label": "fly", "segment": [1, 2]}]))
    assert read.class_names == () and not read.videos["a"].hard_negatives
    assert ("left out because no action has their class: 1 rejected segment: "
            "fly (1)") in caplog.text


def test_videos_known_in_part_cannot_be_scored(tmp_path):
    read = load_annotations(_write(tmp_path, reviewed=[[0, 5]]))
    assert read.videos["a"].reviewed_seconds == ((0.0, 5.0),)
    with pytest.raises(InputError, match=r"a.json: 1 video of the 1 to sco"
                       r"re reviewed only in part .* complete (?s:.*)\n  a"):
        check_scorable(read.path, read.subset("training"))


def test_the_converter_leaves_out_what_it_cannot_write(tmp_path):
    reviews.write_annotations(tmp_path / "reviewed.json", [
        _review("part", _judged(1, 2, "run")),
        _review("whole", _judged(1, 2, "run"), _rejected(4, 5, "run"),
                complete=True)])
    reading = read_annotations([tmp_path / "reviewed.json"], Options())
    (action,) = reading.actions
    assert action.video == "whole" and action.label == "run"
    assert sum("left out (training reads them with --config.data.reviews"
               in line for line in reading.summary().splitlines()) == 2


def test_a_data_set_keeps_what_is_known(tmp_path):
    path = _write(tmp_path, reviewed=[[0, 5]], rejected=[
        {"label": "run", "segment": [3, 4]}])
    read = load_annotations(path)
    info = VideoInfo(path, 25.0, 250, 10.0, 32, 32)
    index = data_set_index.make_index(
        {"training": read.subset("training")}, {"a": info}, {},
        read.class_names, embedded=True)
    path.write_text(json.dumps({"database": data_set_index.database(index)}))
    (video,) = load_annotations(path).videos.values()
    assert video.reviewed_seconds == ((0.0, 5.0),)
    assert video.hard_negatives == (Action(3.0, 4.0, "run"),)
