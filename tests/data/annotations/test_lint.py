"""The faults of annotation files are reported, those of public files too."""

import logging
from collections import Counter, defaultdict

import pytest

from losa_jax.data.annotations import lint as faults
from losa_jax.data.annotations import thumos_facts
from losa_jax.data.annotations.lint import find_faults, summarize
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.records import Action, AnnotatedVideo


def _video(*actions, duration=10.0, fps=20.0):
    return AnnotatedVideo("v", "test", duration, fps,
                          tuple(Action(*action) for action in actions))


def _details(*actions, **changes):
    return find_faults(_video(*actions, **changes))


def test_each_category_is_reported():
    assert _details((1, 2, "hop"), (2, 3, "hop"), (1, 3, "run")) == {}
    assert _details((9, 10.04, "hop")) == {}
    assert _details((9, 11, "hop"), (-1, 2, "run")) == {
        faults.OUTSIDE: "hop [9, 11] of 10.00 s, and 1 more"}
    assert _details((9, 11, "hop"), duration=None) == {}
    assert _details((3, 3, "hop")) == {faults.EMPTY: "hop [3, 3]"}
    assert _details((3, 3.04, "hop")) == {faults.SHORT: "hop [3, 3.04]"}
    assert _details((3, 3.04, "hop"), fps=30.0) == {}
    assert _details((1, 2, "hop"), (1.0005, 2, "hop"), (5, 6, "hop")) == {
        faults.TWICE: "hop [1, 2]"}
    assert _details((1, 3, "hop"), (1.1, 3.05, "hop")) == {
        faults.NEARLY_TWICE: "hop [1, 3] and hop [1.1, 3.05]"}
    assert _details((1, 3, "hop"), (1, 3, "run"), (4, 5, "run"),
                  (4, 5, "hop")) == {faults.TWO_LABELS: "2 x hop and run"}


def test_the_length_of_the_file_replaces_the_annotated_one():
    video = _video((9, 11, "hop"))
    assert find_faults(video, 12.0) == {}
    assert list(find_faults(video, 8.0)) == [faults.OUTSIDE]


def test_a_summary_names_the_first_videos():
    all_faults = {f"v{i}": {faults.EMPTY: ""} for i in range(3)}
    assert summarize(all_faults, most=2) == [
        "empty actions: 3 videos (v0, v1, ...)"]
    assert summarize({"v0": all_faults["v0"]}) == [
        "empty actions: 1 videos (v0)"]


PAST_THE_END = {"video_test_0000270": 22, "video_test_0000814": 3,
                "video_test_0001081": 1, "video_validation_0000364": 2,
                "video_validation_0000856": 2}


def _by_category(annotations, subsets):
    categories = defaultdict(dict)
    for subset in subsets:
        for video in annotations.subset(subset):
            for category, detail in find_faults(video).items():
                categories[category][video.video_id] = detail
    return categories


@pytest.mark.shared
def test_faults_of_thumos(shared_dir, caplog):
    path = shared_dir / "data/thumos14/thumos14.json"
    kept = load_annotations(path)
    categories = _by_category(kept, ("validation", "test"))
    assert set(categories) == {faults.OUTSIDE, faults.TWO_LABELS}
    assert set(categories[faults.OUTSIDE]) == set(PAST_THE_END)
    assert categories[faults.OUTSIDE]["video_test_0001081"].endswith(
        "of 117.24 s")
    # Every CliffDiving is Diving too.
    doubled = Counter()
    for detail in categories[faults.TWO_LABELS].values():
        for part in detail.split(", "):
            count, pair = part.split(" x ")
            doubled[pair] += int(count)
    cliff = sum(action.label == "CliffDiving" for video in
                kept.videos.values() for action in video.actions)
    assert doubled == {"CliffDiving and Diving": cliff,
                       "Shotput and ThrowDiscus": 1}
    assert cliff == 360
    # "clip" names each, and drops those that begin behind the end.
    clipped = clipped_to(kept, {}, "clip")
    named = Counter(record.message.split(",")[0]
                    for record in caplog.records)
    assert named == PAST_THE_END
    for name, number in PAST_THE_END.items():
        assert (len(kept.videos[name].actions)
                - len(clipped.videos[name].actions)) == number


@pytest.mark.shared
def test_wrong_durations_of_thumos_are_corrected(shared_dir, caplog):
    folder = shared_dir / "data/thumos14"
    right = load_annotations(folder / "thumos14.json")
    wrong = load_annotations(folder / "thumos14_wrong_durations.json")
    categories = _by_category(wrong, ("validation", "test"))
    assert set(categories[faults.WRONG_DURATION]) == set(
        thumos_facts.SLOW_VIDEOS)
    # Corrected, no action of these videos is lost.
    assert set(categories[faults.OUTSIDE]) == set(PAST_THE_END)
    for name, video in wrong.videos.items():
        assert video.duration_seconds == pytest.approx(
            right.videos[name].duration_seconds, rel=0.015)
    assert {name: (right.videos[name].fps, right.videos[name]
                   .duration_seconds) for name in thumos_facts.SLOW_VIDEOS
            } == thumos_facts.SLOW_VIDEOS
    caplog.set_level(logging.WARNING)
    caplog.clear()
    clipped_to(wrong, {}, "clip")
    assert {record.message.split(",")[0] for record in caplog.records
            } == set(PAST_THE_END)


@pytest.mark.shared
def test_faults_of_activitynet(shared_dir):
    folder = shared_dir / "data/activitynet"
    source = (f"{folder / 'anet_anno_action.json'},"
              f"{folder / 'video_info_new.csv'}")
    subsets = ("training", "validation", "testing")
    kept = load_annotations(source)
    categories = _by_category(kept, subsets)
    assert {name: len(videos) for name, videos in categories.items()} == {
        faults.OUTSIDE: 3, faults.EMPTY: 12, faults.SHORT: 59,
        faults.TWICE: 26, faults.NEARLY_TWICE: 6}
    assert set(categories[faults.OUTSIDE]) == {"m--b-Ltjm_Y", "TmA7xnrULME",
                                          "0QDPpdms08g"}
    assert "8JKK6JayDeA" in categories[faults.TWICE]
    # With empty ones dropped it can be trained on.
    clipped = clipped_to(kept, {}, "clip")
    assert clipped.class_names == kept.class_names
    assert all(action.end_seconds > action.start_seconds
               for video in clipped.videos.values()
               for action in video.actions)
