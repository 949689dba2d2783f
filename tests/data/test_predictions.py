"""The submission format: written, read, and refused where it is wrong."""

import json

import numpy as np
import pytest

from losa_jax.data.predictions import read_predictions, write_predictions
from losa_jax.detection.segments import Detection
from losa_jax.errors import InputError

PREDICTIONS = {
    "video_b": [Detection(1.5, 3.25, "HighJump", 0.5),
                Detection(0.0, 0.1, "Høydehopp", 1e-9)],
    "video_a": [],
}


def test_written_predictions_are_read_back(tmp_path):
    path = tmp_path / "predictions.json"
    write_predictions(path, PREDICTIONS)
    assert read_predictions(path) == PREDICTIONS
    assert list(read_predictions(path)) == ["video_b", "video_a"]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_file_is_as_the_format_says(tmp_path):
    path = tmp_path / "predictions.json"
    write_predictions(path, {"v": PREDICTIONS["video_b"][:1]},
                      external_data={"used": True, "details": "ViT-g"})
    assert json.loads(path.read_text()) == {
        "version": "losa_jax",
        "results": {"v": [{"segment": [1.5, 3.25], "label": "HighJump",
                           "score": 0.5}]},
        "external_data": {"used": True, "details": "ViT-g"}}
    write_predictions(path, {})
    assert json.loads(path.read_text()) == {
        "version": "losa_jax", "results": {}, "external_data": {}}


def test_numpy_numbers_are_written(tmp_path):
    path = tmp_path / "predictions.json"
    write_predictions(path, {"v": [Detection(
        np.float32(1.5), np.float64(2), "a", np.float32(0.5))]})
    assert read_predictions(path) == {"v": [Detection(1.5, 2.0, "a", 0.5)]}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "predictions.json"
    write_predictions(path, PREDICTIONS)
    for start, end, score in ((0, 1, float("nan")), (0, float("inf"), 1),
                              (2, 1, 1)):
        with pytest.raises(InputError, match="'v', entry 0"):
            write_predictions(path, {"v": [Detection(start, end, "a",
                                                     score)]})
    with pytest.raises(TypeError):  # json cannot write it, half-way through
        write_predictions(path, PREDICTIONS, external_data={"x": object()})
    assert read_predictions(path) == PREDICTIONS
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_files_of_other_tools_are_read(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({
        "results": {"v": [
            {"segment": [1, 2], "label": "a", "score": 1, "label_id": 3},
            {"score": 0.5, "label": "b", "segment": [3.0, 3.0]}]},
        "params": [1, 2]}))
    assert read_predictions(path) == {
        "v": [Detection(1, 2, "a", 1), Detection(3.0, 3.0, "b", 0.5)]}


GOOD = {"segment": [0, 1], "label": "a", "score": 0.5}


@pytest.mark.parametrize("entry, message", [
    (5, "not an object"),
    ({"label": "a"}, "no segment and no score"),
    (GOOD | {"segment": [1]}, r"segment \[1\] is not"),
    (GOOD | {"segment": ["0", "1"]}, "is not .start, end. in seconds"),
    (GOOD | {"segment": 3}, "segment 3 is not"),
    (GOOD | {"segment": [0, float("nan")]}, "nan.* is not"),
    (GOOD | {"segment": [2, 1]}, "ends before it starts"),
    (GOOD | {"label": 3}, "label 3 is not a class name"),
    (GOOD | {"score": None}, "score None is not a number"),
    (GOOD | {"score": True}, "score True is not a number"),
    (GOOD | {"score": float("inf")}, "score inf is not a number"),
])
def test_bad_entries_are_named(tmp_path, entry, message):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({"results": {"fine": [GOOD],
                                            "video_7": [GOOD, entry]}}))
    with pytest.raises(InputError, match=message) as error:
        read_predictions(path)
    assert "'video_7', entry 1" in str(error.value)
    assert str(path) in str(error.value)
    assert "fine" not in str(error.value)


def test_all_bad_entries_are_reported_together(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps({"results": {
        "v": [GOOD | {"score": None}] * 12, "w": {"segment": [0, 1]}}}))
    with pytest.raises(InputError) as error:
        read_predictions(path)
    message = str(error.value)
    assert "13 wrong entries" in message and "and 3 more" in message
    assert message.count("score None") == 10


@pytest.mark.parametrize("content, message", [
    (b"{", "not JSON: line 1, column 2"),
    (b"\xff\xfe\x00", "seems to be UTF-16: save it as UTF-8"),
    (b"[]", 'no "results" object'),
    (b'{"results": []}', 'no "results" object'),
])
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "predictions.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_predictions(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_predictions(tmp_path / "missing.json")


@pytest.mark.shared
def test_public_files_are_read(shared_dir):
    turn = read_predictions(
        shared_dir / "data/detections/turn_flow_scnn_thumos14.json")
    assert len(turn) == 213 and sum(map(len, turn.values())) == 16565
    assert turn["video_test_0000896"][0] == Detection(
        62.3, 64.7333333333, "BasketballDunk", 0.0865174)
    sample = read_predictions(
        shared_dir / "data/activitynet/sample_detection_prediction.json")
    assert len(sample) == 4926 and sum(map(len, sample.values())) == 7654
