"""Every public layout gives the same database."""

import json

import pytest

from losa_jax.data.annotations import activitynet_facts, thumos_facts
from losa_jax.data.annotations.formats import read_ambiguous, read_database
from losa_jax.data.annotations.load import load_annotations
from losa_jax.errors import InputError

WANT = {"v1": {"subset": "validation", "duration": 20.0, "fps": 30.0,
               "annotations": [{"label": "run", "segment": [1.0, 2.5]}]}}


def test_bmns_pair_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"v_v1": {
        "duration_second": 20.0, "duration_frame": 600, "annotations": [
            {"label": "run", "segment": [1.0, 2.5]}]}}))
    (tmp_path / "a.csv").write_text(
        "video,numFrame,seconds,fps,rfps,subset,featureFrame\n"
        "v_v1,600,20.0,30.0,29.9,validation,592\n")
    assert read_database(f"{tmp_path}/a.json,{tmp_path}/a.csv") == WANT
    (tmp_path / "a.csv").write_text(
        "video,seconds,fps,subset\n" + 2 * "v_v1,20.0,30.0,validation\n")
    with pytest.raises(InputError, match="row 3: the video v1 is there twice"):
        read_database(f"{tmp_path}/a.json,{tmp_path}/a.csv")


def test_afsds_tables_are_read(tmp_path):
    (tmp_path / "val_Annotation.csv").write_text(
        "video,type,typeidx,start,end,startFrame,endFrame\n"
        "v1,run,3,1.0,2.5,30,75\n")
    (tmp_path / "info.csv").write_text(
        "video,fps,sample_fps,count,sample_count\nv1,30.0,10.0,600,200\n")
    source = f"{tmp_path}/val_Annotation.csv,{tmp_path}/info.csv"
    assert read_database(source) == WANT
    (tmp_path / "val_Annotation.csv").write_text(
        "video,type,start,end\nv9,run,1.0,2.5\n")
    with pytest.raises(InputError, match="row 2: v9 is not in"):
        read_database(source)
    (tmp_path / "val_Annotation.csv").write_text(
        "video,type,start,end\nv1,run,1.0,late\n")
    with pytest.raises(InputError, match="row 2: start='1.0', end='late'"):
        read_database(source)
    (tmp_path / "info.csv").write_text("video,fps,count\nv1,0,600\n")
    with pytest.raises(InputError, match="row 2: fps=0"):
        read_database(source)
    (tmp_path / "info.csv").write_text("video;fps;count\nv1;25;600\n")
    with pytest.raises(InputError, match="by commas, and has video, fps"):
        read_database(source)
    (tmp_path / "val_Annotation.csv").write_text(
        "video,type,typeIdx,start,end,startFrame,endFrame\n")
    with pytest.raises(InputError, match="table of videos too"):
        read_database(tmp_path / "val_Annotation.csv")


def test_the_folder_of_thumos_is_read(tmp_path):
    (tmp_path / "run_val.txt").write_text("v1  1.0 2.5\n\n")
    (tmp_path / "Ambiguous_val.txt").write_text("v1  7.0 9.0\nv2 1 2\n")
    (tmp_path / "readme.txt").write_text("no annotations here")
    got = read_database(tmp_path)
    assert got == {
        "v1": {"subset": "validation", "annotations": [
            {"label": "run", "segment": [1.0, 2.5]}]},
        "v2": {"subset": "validation", "annotations": []}}
    assert read_ambiguous(tmp_path / "Ambiguous_val.txt") == {
        "v1": [(7.0, 9.0)], "v2": [(1.0, 2.0)]}
    (tmp_path / "run_val.txt").write_text("v1 1.0\n")
    with pytest.raises(InputError, match=r"run_val.txt, line 1: 'v1 1.0'"):
        read_database(tmp_path)


def test_flat_json_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"v1": {
        "duration": 20.0, "frames": 600, "subset": "validation",
        "annotations": WANT["v1"]["annotations"]}}))
    got = read_database(tmp_path / "a.json")["v1"]
    assert got.pop("frames") == 600 and {"v1": got} == WANT


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(InputError, match="is a JSON list: annotations are"):
        read_database(tmp_path / "a.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no <Class>_val.txt.*losa_jax.anno"):
        read_database(tmp_path / "empty")
    with pytest.raises(InputError, match="no such annotation file"):
        read_database("a.json,nowhere.csv")


@pytest.mark.shared
def test_the_public_sets_have_their_published_counts(shared_dir):
    folder = shared_dir / "data"
    annotations = load_annotations(folder / "thumos14/thumos14.json")
    assert annotations.class_names == thumos_facts.CLASS_NAMES
    for subset, videos, actions in (("validation", 200, 3007),
                                    ("test", 212, 3358)):
        chosen = annotations.subset(subset)
        assert len(chosen) == videos
        assert sum(len(video.actions) for video in chosen) == actions
    left = [video for video in annotations.subset("test")
            if video.video_id not in thumos_facts.EXCLUDED["thumos_211"]]
    assert len(left) == 211
    assert sum(len(video.actions) for video in left) == 3329
    assert sum(video.video_id not in thumos_facts.EXCLUDED["thumos_210"]
               for video in annotations.subset("test")) == 210

    anet = folder / "activitynet"
    annotations = load_annotations(f"{anet / 'anet_anno_action.json'},"
                             f"{anet / 'video_info_new.csv'}")
    assert annotations.class_names == activitynet_facts.class_names()
    # What BMN's table still had: the others were taken off the net.
    assert {subset: len(annotations.subset(subset)) for subset in (
        "training", "validation", "testing")} == {
            "training": 9649, "validation": 4728, "testing": 4851}
