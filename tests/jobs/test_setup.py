"""Videos and annotations are loaded; the length of a file decides which
actions are outside."""

import json
import logging
from pathlib import Path
from unittest.mock import Mock

import pytest

from configs import common, thumos_features
from losa_jax.data import reviews
from losa_jax.data.annotations import load
from losa_jax.data.annotations.block_list import blocked_videos
from losa_jax.data.windows.skipped_videos import BrokenVideos
from losa_jax.errors import InputError
from losa_jax.jobs import setup
from losa_jax.jobs.check_data import check_data
from losa_jax.jobs.setup import (
    check_config,
    load_data,
    load_videos,
    window_reader,
)
from tests.custom_recipe import custom_config
from tests.data.tiny_set import make_tiny_set


@pytest.fixture
def config(tmp_path):
    """Returns the config of a tiny set; training.0 has 1.6 s, .1 has 1.64 s."""
    folder = make_tiny_set(tmp_path)
    path = folder / "annotations.json"
    database = json.loads(path.read_text())["database"]
    for entry in database.values():
        entry["annotations"] = [{"label": "hop", "segment": [0.2, 0.6]}]
    # Half of its length, as of a wrong frame rate; nothing is outside.
    database["training.0"]["duration"] = 0.8
    database["training.0"]["annotations"].append(
        {"label": "hop", "segment": [1.0, 1.5]})
    # No duration; one action is behind the end and one reaches over it.
    del database["training.1"]["duration"]
    database["training.1"]["annotations"] += [
        {"label": "hop", "segment": [9.0, 9.5]},
        {"label": "hop", "segment": [1.0, 1.9]}]
    # Within 1 % of the file: as annotated.
    database["training.2"]["duration"] = 1.69
    database["training.2"]["annotations"].append(
        {"label": "hop", "segment": [1.5, 1.69]})
    path.write_text(json.dumps({"database": database}))
    config = custom_config()
    config.data.annotations = str(path)
    config.data.videos = str(folder / "videos")
    return config


def _segments(video):
    return [(action.start_seconds, action.end_seconds)
            for action in video.actions]


def test_actions_outside_the_file_are_clipped(config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config.data.on_outside = "clip"
    data = load_data(config, tmp_path)
    assert [_segments(video) for video in data.train] == [
        [(0.2, 0.6), (1.0, 1.5)], [(0.2, 0.6), (1.0, 1.64)],
        [(0.2, 0.6), (1.5, 1.69)], [(0.2, 0.6)]]
    logged = [record.message for record in caplog.records]
    assert any("training.0: duration: the annotation says 0.8" in line
               for line in logged)
    assert sum("training.1" in line and "dropped" in line
               for line in logged) == 1
    assert "annotations: actions outside: 1 videos (training.1)" in logged


def test_reviews_are_merged_into_the_annotations(config, tmp_path, capsys):
    config.data.on_outside = "clip"
    config.data.reviews = f"{tmp_path / 'out'}, {tmp_path / 'none'}"
    before = load_data(config, tmp_path)
    assert f"no reviews in {tmp_path / 'out'} yet" in capsys.readouterr().out
    folder = tmp_path / "out" / reviews.REVIEWS_FOLDER
    folder.mkdir(parents=True)

    def judge(name, label, verdict, *, complete=False):
        reviews.write_review(folder / f"{name}.json", reviews.Review(
            name, 1.6, 25.0, 1, complete, (reviews.JudgedAction(
                "h0123456789ab", label, 0.5, 1.0, verdict, "ann",
                "2026-11-30T14:00:00+00:00"),)))

    judge("training.0", "skip", "accepted", complete=True)
    judge("training.3", "hop", "rejected")
    data = load_data(config, tmp_path)
    assert data.class_names == (*before.class_names, "skip")
    assert _segments(data.train[0]) == [(0.5, 1.0)]
    assert data.train[3].hard_negatives == ()  # it overlaps an action
    printed = capsys.readouterr().out
    assert (f"reviews in {tmp_path / 'out'}: 2 videos (1 complete, 1 in part) "
            "with 2 actions, 0 hard negatives and 1 new class: skip\n"
            f"no reviews in {tmp_path / 'none'} yet") in printed
    # A class-agnostic head has no classes to reject.
    judge("training.3", "skip", "rejected")
    assert load_data(config, tmp_path).train[3].hard_negatives == (
        (0.5, 1.0, "skip", None),)
    config.data.class_agnostic = True
    assert load_data(config, tmp_path).train[3].hard_negatives == (
        (0.5, 1.0, "action", None),)


def test_a_testing_video_known_in_part_is_refused(config, tmp_path):
    path = Path(config.data.annotations)
    content = json.loads(path.read_text())
    content["database"]["testing.0"]["reviewed"] = []
    path.write_text(json.dumps(content))
    config.data.on_outside = "clip"
    with pytest.raises(InputError, match="reviewed only in part(?s:.*)testi"):
        load_data(config, tmp_path)
    with pytest.raises(InputError, match="reviewed only in part"):
        check_data(config, tmp_path)
    assert len(load_data(config, tmp_path, ("train",)).train) == 4
    config.data.block_list = str(tmp_path / "block_list.txt")
    (tmp_path / "block_list.txt").write_text("testing.0\n")
    assert len(load_data(config, tmp_path).test) == 1
    check_data(config, tmp_path)


def test_the_annotations_are_parsed_once(config, tmp_path, monkeypatch):
    parsed = []
    real = load.read_database
    monkeypatch.setattr(load, "read_database", lambda path: (
        parsed.append(str(path)) or real(path)))
    config.data.on_outside = "clip"
    data = load_data(config, tmp_path)
    assert parsed == [config.data.annotations]
    subsets = [("cache_subsets", "training"), ("cache_subsets", "testing"),
               ("cache_subsets", "training")]
    assert load_videos(config, tmp_path, subsets) == [*data.train, *data.test]
    assert len(parsed) == 2
    with pytest.raises(InputError, match="'nobody'.*config.data.cache_sub"):
        load_videos(config, tmp_path, [("cache_subsets", "nobody")])


def test_actions_outside_the_file_stop_the_run(config, tmp_path):
    for config.data.on_broken_video in ("stop", "skip"):
        with pytest.raises(InputError, match=(
                r"2 wrong entries:\n"
                r"  training.1, annotation 1: segment \[9.0, 9.5\] reaches "
                r"outside the video, 0 to 1.64 seconds\n"
                r"  training.1, annotation 2: segment \[1.0, 1.9\] ")):
            load_data(config, tmp_path)
    config.data.on_outside = "ask"
    with pytest.raises(InputError, match="on_outside='ask'"):
        load_data(config, tmp_path)
    config.data.on_outside = "clip"
    config.data.on_broken_video = "ask"
    with pytest.raises(InputError, match="on_broken_video='ask'"):
        load_data(config, tmp_path)


def test_actions_outside_the_file_are_kept(config, tmp_path):
    config.data.on_outside = "keep"
    data = load_data(config, tmp_path)
    assert _segments(data.train[1]) == [(0.2, 0.6), (9.0, 9.5), (1.0, 1.9)]


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_short_actions_and_duplicates_are_not_trained_on(
        config, tmp_path, class_agnostic):
    _rewrite(config, lambda database, name, entry: entry.update(annotations=[
        {"label": label, "segment": segment} for label, segment in (
            ("hop", [0.2, 0.21]), ("hop", [0.2, 0.6]), ("hop", [0.2, 0.6]),
            ("jump", [0.2, 0.6]))]))
    config.data.class_agnostic = class_agnostic
    config.data.min_action_share = 0.01
    data = load_data(config, tmp_path)
    different = 1 if class_agnostic else 2
    assert {len(video.actions) for video in data.train} == {different}
    assert {len(video.actions) for video in data.test} == {4}


def test_a_whole_video_of_frames_is_refused_as_a_window(config):
    config.window.test_whole = True
    with pytest.raises(InputError, match="config.window.test_whole=True"):
        window_reader(config, None, {})
    assert window_reader(config, Mock(), {})


def test_a_recipe_of_features_asks_for_their_folder():
    with pytest.raises(InputError, match="or, in place of videos and "
                       "backbone, --config.features.folder=FOLDER"):
        setup.check_config(thumos_features.get_config())


def test_a_block_list_is_read_by_whole_lines(tmp_path):
    path = tmp_path / "block.txt"
    path.write_text("\ufeffkitchen 03 (missing)\r\n# a comment\r\n#1\r\n"
                    "e\u0301tude broken file\r\nnobody\r\nkitchen 9\r\n")
    known = ["kitchen", "kitchen 03 (missing)", "#1", "étude"]
    blocked, doubts = blocked_videos(str(path), known)
    assert blocked == {
        "kitchen 03 (missing)": "is listed in block.txt",
        "#1": "is listed in block.txt",
        "étude": "is listed in block.txt: broken file",
        "nobody": "is listed in block.txt",
        "kitchen": "is listed in block.txt: 9"}
    assert doubts == [f"{path}: 1 of 5 ids are not in the annotations, the "
                      "first 'nobody'"]
    path.write_bytes("étude".encode("utf-16"))
    with pytest.raises(InputError, match="block.txt: is not UTF-8.*UTF-16"):
        blocked_videos(str(path), known)
    assert blocked_videos("", known) == ({}, [])


def test_ids_of_a_block_list_that_are_unknown_are_logged(config, tmp_path,
                                                         caplog):
    config.data.on_outside = "clip"
    config.data.block_list = str(tmp_path / "block.txt")
    (tmp_path / "block.txt").write_text("training.1\ntraining.9\n")
    data = load_data(config, tmp_path)
    assert [video.video_id for video in data.train] == [
        "training.0", "training.2", "training.3"]
    assert "1 of 2 ids are not in the annotations, the first 'training.9'; " \
        "did you mean" in caplog.text
    (tmp_path / "block.txt").write_text("testing.0\ntesting.1\n")
    with pytest.raises(InputError, match="leaves out every video of subset "
                                         "'testing'"):
        load_data(config, tmp_path)


def _rewrite(config, change):
    with open(config.data.annotations) as file:
        database = json.load(file)["database"]
    for name, entry in [*database.items()]:
        change(database, name, entry)
    with open(config.data.annotations, "w") as file:
        json.dump({"database": database}, file)


def test_all_keys_that_are_not_set_are_named_at_once():
    with pytest.raises(InputError) as caught:
        check_config(common.get_config())
    assert [line.split("=")[0] for line in str(caught.value).splitlines()[1:]
            ] == ["  --config.data.annotations", "  --config.data.videos",
                  "  --config.backbone.checkpoint"]


def test_a_training_set_without_actions_is_refused_before_probing(
        config, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "probe", Mock(side_effect=AssertionError))
    _rewrite(config, lambda _, name, entry: entry.update(
        annotations=[] if name.startswith("train") else entry["annotations"]))
    with pytest.raises(InputError, match="none of the 4 videos of subset "
                                         "'training' has an action .*has 2"):
        load_data(config, tmp_path)


def test_a_training_set_without_an_action_inside_is_refused(config, tmp_path):
    config.data.on_outside = "clip"
    _rewrite(config, lambda _, name, entry: entry.update(annotations=[
        {"label": "hop", "segment": [700, 900]}]))
    with pytest.raises(InputError, match="none of the 4 videos"):
        load_data(config, tmp_path)


def test_ids_may_be_names_of_files_and_compare_in_nfc(config, tmp_path):
    config.data.on_outside = "clip"
    folder = Path(config.data.videos)
    (folder / "training.0.mp4").rename(folder / "e\u0301tude 1.mp4")

    def rename(database, name, entry):
        new = "étude 1" if name == "training.0" else f"{name}.mp4"
        database[new] = database.pop(name)

    _rewrite(config, rename)
    data = load_data(config, tmp_path)
    assert [video.video_id for video in data.train] == [
        "étude 1", "training.1.mp4", "training.2.mp4", "training.3.mp4"]


def test_the_probed_rate_tells_frames_from_milliseconds(config, tmp_path):
    def in_frames(database, name, entry):
        entry.pop("fps", None)
        entry["annotations"] = [{"label": "hop", "segment": [5, 38]}]

    _rewrite(config, in_frames)
    with pytest.raises(InputError, match="The times of 6 videos, .* look like "
                                         "frames at 25 frames a second"):
        load_data(config, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"videos": [3]}', "{}"])
def test_a_damaged_list_of_skipped_videos_is_named(tmp_path, text):
    (tmp_path / "broken_videos.json").write_text(text)
    with pytest.raises(InputError, match="broken_videos.json: .*delete it"):
        BrokenVideos(tmp_path / "broken_videos.json")
