"""The layout of Ego4D's Moment Queries, made up: it needs an agreement."""

import json

import pytest

from losa_jax.data.annotations.formats import read_database
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.annotations.tables import read_class_list
from losa_jax.errors import InputError


def _label(label, start, end, primary=True):
    return {"label": label, "video_start_time": start, "video_end_time": end,
            "video_start_frame": int(30 * start),
            "video_end_frame": int(30 * end), "primary": primary}


def _clip(name, start, end, *annotators, fps=30):
    return {"clip_uid": name, "video_start_sec": start, "video_end_sec": end,
            "video_start_frame": int(fps * start),
            "video_end_frame": int(fps * end),
            "annotations": [{"annotator_uid": str(number), "labels": labels}
                            for number, labels in enumerate(annotators)]}


def _video(name, split, *clips):
    return {"video_uid": name, "split": split, "clips": list(clips)}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "moments_train.json").write_text(json.dumps({"videos": [
        _video("v1", "train",
               _clip("c1", 100.0, 580.0,
                     [_label("wash", 110.0, 115.5), _label("cut", 120, 130,
                                                           primary=False)],
                     [_label("cook", 200.0, 210.0)]),
               _clip("no_labels", 0.0, 480.0, []),
               _clip("odd", 0.0, 480.0, [_label("cut", 1, 2)], fps=5))]}))
    (tmp_path / "moments_val.json").write_text(json.dumps({"videos": [
        _video("v2", "val", _clip("c2", 0.0, 300.0,
                                  [_label("cut", 4.0, 9.0)]))]}))
    (tmp_path / "map.txt").write_text(
        '000\t"wash"\n001\t"cut"\n002\t"cook"\n')
    return tmp_path


def test_clips_have_their_own_time_and_the_primary_labels(files, caplog):
    source = f"{files}/moments_train.json,{files}/moments_val.json"
    assert read_database(source) == {
        "c1": {"subset": "training", "duration": 480.0, "fps": 30.0,
               "annotations": [
                   {"label": "wash", "segment": [10.0, 15.5]},
                   {"label": "cook", "segment": [100.0, 110.0]}]},
        "c2": {"subset": "validation", "duration": 300.0, "fps": 30.0,
               "annotations": [{"label": "cut", "segment": [4.0, 9.0]}]}}
    assert "1 clips are left out" in caplog.text and "odd" in caplog.text
    assert load_annotations(source).class_names == ("cook", "cut", "wash")
    # The order of a list of classes is kept.
    assert load_annotations(f"{source},{files}/map.txt").class_names == (
        "wash", "cut", "cook")


def test_other_versions_are_named(files):
    source = f"{files}/moments_train.json,{files}/map.txt"
    (files / "map.txt").write_text("washing\ncut\ncook\n")
    with pytest.raises(InputError, match="the video v1: the label 'wash' is "
                                         "not in the list .* did you"):
        read_database(source)
    (files / "moments_val.json").write_text('{"videos": [{"split": "val"}]}')
    with pytest.raises(InputError, match="the video . is not of the layout"):
        read_database(files / "moments_val.json")
    (files / "moments_val.json").write_text(json.dumps({"videos": [_video(
        "v2", "val", _clip("c1", 0.0, 9.0, [_label("cut", 4.0, 9.0)]))]}))
    with pytest.raises(InputError, match="c1 is of the subset training too"):
        read_database(f"{files}/moments_train.json,{files}/moments_val.json")
    (files / "moments_val.json").write_text('{"results": {}}')
    with pytest.raises(InputError, match="has no list \"videos\""):
        read_database(f"{files}/moments_train.json,{files}/moments_val.json")


@pytest.mark.parametrize("key, value, message", [
    ("video_end_frame", float("inf"), "v2 is not of the layout .*infinity"),
    ("clip_uid", None, "v2 is not of the layout"),
    ("video_end_sec", 0.0, "no clip has a primary label and from 10 to 100"),
    ("annotations", [], "no clip has a primary label .*not the file of the "
                        "test set")])
def test_damaged_clips_are_named(files, key, value, message):
    clip = _clip("c2", 0.0, 300.0, [_label("cut", 4.0, 9.0)]) | {key: value}
    (files / "moments_val.json").write_text(json.dumps({"videos": [
        _video("v2", "val", clip)]}))
    with pytest.raises(InputError, match=message):
        read_database(files / "moments_val.json")


@pytest.mark.shared
def test_the_public_list_has_110_classes(shared_dir):
    names = read_class_list(shared_dir / "data/more_datasets/ego4d_mq"
                            / "ego4d_label_map.txt")
    assert len(names) == 110
