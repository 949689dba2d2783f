"""Layouts of video-level scores, and files that are refused."""

import json

import numpy as np
import pytest

from losa_jax.data.annotations import activitynet_facts, thumos_facts
from losa_jax.data.annotations.video_scores import load_video_scores
from losa_jax.errors import InputError


def test_both_json_layouts_are_read(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"results": {"v1": [0.2, 0.8]},
                                "class": ["jump", "run"]}))
    want = {"v1": {"jump": 0.2, "run": 0.8}}
    assert load_video_scores(path, ("run", "jump"), ["v1"]) == want
    path.write_text(json.dumps({"v_v1": {"class": "run", "score": 0.8}}))
    assert load_video_scores(path, ("run",), ["v1"]) == {"v1": {"run": 0.8}}


def test_classes_may_have_another_key_and_scores_be_logits(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"results": {"v1": [0.2, 0.8]},
                                "classes": ["jump", "run"]}))
    assert load_video_scores(path, ("run", "jump"), ["v1"]) == {
        "v1": {"jump": 0.2, "run": 0.8}}
    # TCANet's.
    logits = np.array([3.0, -1.0, 400.0])
    path.write_text(json.dumps({"results": {"v1": [logits.tolist()]},
                                "class": ["jump", "run", "sit"]}))
    got = load_video_scores(path, ("run", "jump", "sit"), ["v1"])["v1"]
    powers = np.exp(logits - 400)
    assert list(got.values()) == pytest.approx(powers / powers.sum())
    path.write_text(json.dumps({"results": {"v1": [["x"]]}, "class": ["a"]}))
    with pytest.raises(InputError, match="'x' is no number"):
        load_video_scores(path, ("a",), ["v1"])


def test_untrimmednets_rows_are_video_numbers(tmp_path):
    scores = np.zeros((5, 101))
    scores[3, 92] = 0.7  # ThrowDiscus is UCF101's 93rd class
    np.save(tmp_path / "scores.npy", scores)
    loaded = load_video_scores(
        tmp_path / "scores.npy", thumos_facts.CLASS_NAMES,
        ["video_test_0000004"])
    scores = loaded["video_test_0000004"]
    assert scores["ThrowDiscus"] == pytest.approx(0.7)
    assert sum(scores.values()) == pytest.approx(0.7)


@pytest.mark.parametrize("content, message", [
    ({"results": {"v1": [0.2]}, "class": ["swim"]}, "not among.*swim"),
    ({"results": {"v2": [0.2]}, "class": ["run"]}, "no scores of 1 of 1"),
    ({"results": {"v1": [0.2, 0.3]}, "class": ["run"]}, "in neither CUHK"),
    ({"v1": {"class": "run"}}, "in neither CUHK"),
    ({"v1": {"class": "run", "score": -2.3}}, "'v1'.*'run'.*-2.3"),
    ({"v1": {"class": "run", "score": float("nan")}}, "nan is not"),
    ({"v1": {"class": "run", "score": float("inf")}}, "inf is not"),
    ({"results": {"v1": "7"}, "class": ["run"]}, "'v1' are no list"),
    ({"results": {"v1": [0.7]}, "class": "r"}, "no list of different"),
    ({"results": {"v1": [0.7, 0]}, "class": ["run", "run"]},
     "no list of different"),
    ({"results": {"v1": ["0.7"]}, "class": ["run"]}, "'0.7' is no number"),
    ({"v1": {"class": "run", "score": True}}, "True is no number"),
    ({"v1": {"class": ["run"], "score": 0.7}}, "in neither CUHK"),
    ({one: {"class": "run", "score": 0.7} for one in ("\xe9", "e\u0301")},
     "there twice"),
    ([], "in neither CUHK")])
def test_unusable_scores_are_refused(tmp_path, content, message):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load_video_scores(path, ("run",), ["v1"])
    path.write_text('{"v1": {"class": "run", "score": 1}, "v1": {}}')
    with pytest.raises(InputError, match='the key "v1" twice'):
        load_video_scores(path, ("run",), ["v1"])
    np.save(tmp_path / "scores.npy", np.zeros((3, 7)))
    with pytest.raises(InputError, match=r"shape \(3, 7\)"):
        load_video_scores(tmp_path / "scores.npy", ("run",), ["v1"])


@pytest.mark.parametrize("content, message", [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:9\nsize 9\n",
     "git lfs pull"), (b"<html>", "HTML page"), (b"\xff" * 9, "cannot be read"),
    (b"PK\3\4 and no more", "damaged zip"), (b"\x80\3]q\0.", "pickle")])
def test_misplaced_score_arrays_are_named(tmp_path, content, message):
    path = tmp_path / "scores.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"scores.npy.*{message}"):
        load_video_scores(path, ("run",), ["v1"])


@pytest.mark.shared
def test_public_files_are_read(shared_dir):
    folder = shared_dir / "data"
    loaded = load_video_scores(
        folder / "activitynet/video_level_top1_scores.json",
        activitynet_facts.class_names(), ["wONwHYy59Tc"])
    assert list(loaded["wONwHYy59Tc"]) == ["Blow-drying hair"]
    loaded = load_video_scores(
        folder / "thumos14/untrimmednet_test_scores.npy",
        thumos_facts.CLASS_NAMES, ["video_test_0000004"])
    # Its annotations are of cricket.
    best = max(loaded["video_test_0000004"],
               key=loaded["video_test_0000004"].get)
    assert best.startswith("Cricket")
