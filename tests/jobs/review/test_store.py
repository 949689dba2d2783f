"""Verdicts: what is kept, what is refused, and that nothing is overwritten."""

import json
import math
from pathlib import Path

import pytest

from losa_jax.data import reviews
from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.video.folder import VideoFolder
from losa_jax.errors import InputError
from losa_jax.jobs.review.folder import (
    find_file,
    ids_below,
    only_reviewer,
)
from losa_jax.jobs.review.store import Conflict, Store
from tests.jobs.review.conftest import write_video

ROWS = [(1.0, 2.0, "jump", 0.9), (3.0, 4.0, "jump", 0.52),
        (2.0, 2.5, "wave", 0.8), (4.5, 5.0, "wave", 0.1)]


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / "out", "a", ROWS)
    write_video(tmp_path / "out", "b", [(0.5, 1.5, "wave", 0.31)])
    return tmp_path / "out"


@pytest.fixture
def store(folder):
    return Store(folder, "ann")


def _ids(store, number=0):
    return {(one.start_seconds, one.label): name for name, one
            in store.open_detections(number).items()}


def _values(start, end, label="jump", verdict="accepted"):
    return {"label": label, "start_seconds": start, "end_seconds": end,
            "verdict": verdict}


def test_a_verdict_keeps_where_it_comes_from(store, folder):
    name = _ids(store)[1.0, "jump"]
    store.change(0, 0, {name: _values(1.1, 2.2, "wave"),
                        "h0123456789ab": _values(5.0, 5.5)})
    saved = reviews.read_review(folder / "reviews" / "a.json")
    corrected, added = saved.actions
    assert (corrected.label, corrected.start_seconds, corrected.end_seconds
            ) == ("wave", 1.1, 2.2)
    assert corrected.detected == (1.0, 2.0, "jump")
    assert (corrected.score, corrected.model) == (0.9, "a model")
    assert (added.score, added.model, added.detected) == (None, None, None)
    assert corrected.reviewer == added.reviewer == "ann"
    assert corrected.when.startswith("20") and corrected.when.endswith("00:00")
    assert saved.revision == 1 and not saved.is_complete


def test_a_change_of_an_old_revision_is_refused(store, folder):
    names = _ids(store)
    store.change(0, 0, {names[1.0, "jump"]: _values(1, 2)})
    with pytest.raises(Conflict, match="another window"):
        store.change(0, 0, {names[3.0, "jump"]: _values(3, 4)})
    assert len(reviews.read_review(folder / "reviews/a.json").actions) == 1


@pytest.mark.parametrize("values, message", [
    (_values(2, 1), "from 2 to 1 s"), (_values(-1, 1), "within 0 to 6"),
    (_values(1, 7), "within 0 to 6"), (_values(math.nan, 1), "not numbers"),
    (_values("1", 2), "not numbers"), (_values(1, 2, ""), "is empty"),
    (_values(1, 2, "a\nb"), "not printable"), (_values(1, 2, 3), "is no text"),
    (_values(1, 2, verdict="fine"), "neither accepted nor rejected"),
    ({"label": "jump"}, "is no action"), ("x", "is no action")])
def test_what_is_no_action_is_refused(store, folder, values, message):
    with pytest.raises(InputError, match=message):
        store.change(0, 0, {_ids(store)[1.0, "jump"]: values})
    assert not (folder / "reviews" / "a.json").exists()
    with pytest.raises(InputError, match="no such detection"):
        store.change(0, 0, {"d0123456789ab": _values(1, 2)})
    with pytest.raises(InputError, match="none of this program"):
        store.change(0, 0, {"../../etc": _values(1, 2)})


def test_a_verdict_can_be_taken_back(store):
    name = _ids(store)[1.0, "jump"]
    before = store.open_detections(0)
    store.change(0, 0, {name: _values(1, 2)})
    assert name not in store.open_detections(0)
    store.change(0, 1, {name: None})
    assert store.open_detections(0) == before


def test_videos_come_by_doubt_and_complete_ones_last(store):
    # "b" is 0.01 above its threshold, "a" 0.02.
    assert store.by_doubt() == [1, 0]
    assert store.doubt(0) == pytest.approx(0.02)
    assert len(store.to_check(0)) == 3  # one is below its threshold
    store.change(1, 0, {}, True)
    assert store.by_doubt() == [0, 1]


def test_annotations_say_what_is_known_of_a_video(store, folder):
    names = _ids(store)
    path = folder / reviews.REVIEWED_FILE
    store.change(0, 0, {names[1.0, "jump"]: _values(1, 2),
                        names[3.0, "jump"]: _values(3, 4, verdict="rejected")})
    (video,) = load_annotations(path).videos.values()
    assert video.reviewed_seconds == ()
    assert video.hard_negatives == ((3.0, 4.0, "jump", None),)
    store.change(0, 1, {}, True)
    store.change(0, 2, {names[2.0, "wave"]: _values(2, 2.5, "wave")})
    video = load_annotations(path).videos["a"]
    assert [one[:3] for one in video.actions] == [
        (1.0, 2.0, "jump"), (2.0, 2.5, "wave")]
    assert video.duration_seconds == 6 and video.subset == "training"
    assert video.reviewed_seconds is None and len(video.hard_negatives) == 1
    store.change(0, 3, dict.fromkeys(names.values()), False)
    assert json.loads(path.read_text())["database"] == {}


def test_a_folder_is_not_changed_by_a_look_at_it(folder):
    before = sorted(folder.iterdir())
    Store(folder, "ann")
    assert sorted(folder.iterdir()) == before


def test_a_file_of_another_origin_is_not_replaced(folder):
    path = folder / reviews.REVIEWED_FILE
    path.write_text('{"database": {}}')
    with pytest.raises(InputError, match="reviewed.json: was not written by"):
        Store(folder, "ann")
    assert path.read_text() == '{"database": {}}'


def test_a_second_detection_of_an_action_is_no_hard_negative(store):
    names = _ids(store)
    review = store.change(0, 0, {
        names[1.0, "jump"]: _values(1, 2),
        names[3.0, "jump"]: _values(1.5, 2.5, verdict="rejected"),
        names[2.0, "wave"]: _values(1.5, 2.5, "wave", "rejected")})
    assert [one.label for one in review.hard_negatives] == ["wave"]


def test_a_detection_of_another_class_is_a_hard_negative_of_its_own(store):
    names = _ids(store)
    review = store.change(0, 0, {
        names[1.0, "jump"]: _values(1.1, 2, "wave"),
        names[3.0, "jump"]: _values(3, 4, "wave"),
        "h0123456789ab": _values(3.5, 5)})
    # The second one overlaps a jump.
    assert [(one.label, one.start_seconds) for one in review.hard_negatives
            ] == [("jump", 1.1)]


def test_verdicts_outlive_a_new_model(store, folder):
    store.change(0, 0, {_ids(store)[1.0, "jump"]: _values(1, 2)})
    write_video(folder, "a", [(1.1, 2.0, "jump", 0.95),
                              (1.1, 2.0, "wave", 0.9)], model="a newer one")
    again = Store(folder, "bob")
    # The same action needs no second verdict; another class does.
    assert list(_ids(again)) == [(1.1, "wave")]
    assert again.review(0).actions == store.review(0).actions
    review = again.change(0, 1, {
        again.review(0).actions[0].action_id: _values(1.2, 2)})
    assert (review.actions[0].score, review.actions[0].model) == (
        0.9, "a model")


def test_many_are_accepted_with_a_count_before(store):
    assert store.accept_all("jump", 0.6, only_counts=True) == {0: 1}
    assert store.review(0).revision == 0
    assert store.accept_all(None, 0.6, only_counts=False) == {0: 2}
    assert store.review(0).revision == 1
    assert store.accept_all(None, 0.6, only_counts=False) == {}
    assert len(store.review(0).accepted) == 2


def test_accepting_many_is_undone_and_redone(store, folder):
    first, second = _ids(store)[1.0, "jump"], _ids(store)[3.0, "jump"]
    store.accept_all("jump", 0, only_counts=False)
    before = store.review(0).actions
    store.accept_all("wave", 0, only_counts=False)
    assert store.accept_all_steps == (2, 0)
    assert store.undo_accept_all() == {0: 1, 1: 1}
    assert store.review(0).actions == before and len(store.to_check(1)) == 1
    assert store.undo_accept_all() == {0: 2}
    assert store.undo_accept_all() == {} and store.accept_all_steps == (0, 2)
    assert store.redo_accept_all() == {0: 2}
    assert reviews.read_review(folder / "reviews/a.json").actions == before
    # What a person has changed since then stays.
    store.change(0, store.review(0).revision, {
        first: _values(1, 2, verdict="rejected")})
    assert store.undo_accept_all() == {0: 1}
    action, = store.review(0).actions
    assert (action.action_id, action.verdict) == (first, "rejected")
    assert store.redo_accept_all() == {0: 1}
    assert {one.action_id for one in store.review(0).accepted} == {second}
    # A new step cannot be followed by one that was undone.
    store.undo_accept_all()
    store.accept_all("wave", 0.5, only_counts=False)
    assert store.accept_all_steps == (1, 0) and store.redo_accept_all() == {}


def test_a_complete_video_is_not_changed_in_bulk(store):
    store.accept_all("wave", 0, only_counts=False)
    store.change(0, 1, {}, True)
    assert store.accept_all(None, 0, only_counts=False) == {}
    assert store.undo_accept_all() == {1: 1}
    assert len(store.review(0).accepted) == 1
    assert store.to_check(0) == {}


def test_many_are_accepted_only_if_all_can_be(folder):
    write_video(folder, "c", [(5.0, 7.0, "jump", 0.9)])  # past the end
    store = Store(folder, "ann")
    with pytest.raises(InputError, match="^c, action d.*within 0 to 6.0 s"):
        store.accept_all(None, 0, only_counts=False)
    assert not (folder / "reviews").exists()
    assert store.accept_all_steps == (0, 0)


def test_a_folder_has_one_reviewer_at_a_time(folder, tmp_path):
    with only_reviewer(folder), pytest.raises(
            InputError, match="by another process"), only_reviewer(folder):
        pass
    with only_reviewer(folder):
        pass
    with pytest.raises(InputError, match="cannot be opened"), (
            only_reviewer(tmp_path / "none")):
        pass


def test_a_folder_of_videos_can_be_marked_from_the_start(video):
    store = Store(video.parent, "ann")
    assert len(store) == 1 and store.open_detections(0) == {}
    review = store.change(0, 0, {"h0123456789ab": _values(0, 0.5, "new")})
    assert store.class_names == ["new"] and len(review.accepted) == 1


def test_videos_of_one_name_keep_their_folders(video, tmp_path):
    for place in ("a.webm", "p1/a.webm", "p1/b.webm", "p2/a.webm"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(video.read_bytes())
    store = Store(tmp_path, "ann")
    names = [store.predicted(number).video_id for number in range(len(store))]
    assert names == ["a", "p1/a", "b", "p2/a"]
    for number, name in enumerate(names):
        path = find_file(store.predicted(number), tmp_path, None)
        assert path == VideoFolder(tmp_path).find(name)
        store.change(number, 0, {"h0123456789ab": _values(0, 1)}, True)
    assert (tmp_path / "reviews" / "p1" / "a.json").is_file()
    assert sorted(one.video_id for one in reviews.read_reviews(
        tmp_path / "reviews")) == sorted(names)
    assert {*load_annotations(tmp_path / reviews.REVIEWED_FILE).videos} == {
        *names}
    assert Store(tmp_path, "bob").review(1).revision == 1


@pytest.mark.parametrize("names, ids", [
    (["a.mp4", "a.avi", "p/a.mp4"], ["a.mp4", "a.avi", "p/a"]),
    (["p/x/a.mp4", "q/x/a.mp4", "x/a.mp4"], ["p/x/a", "q/x/a", "x/a"]),
    (["a", "a.mp4", "b.1.mp4"], ["a", "a.mp4", "b.1"])])
def test_ids_in_a_folder(names, ids):
    paths = [Path("/videos", name) for name in names]
    assert ids_below(Path("/videos"), paths) == dict(
        zip(ids, paths, strict=True))


def test_reviews_of_other_videos_are_named(store, folder, caplog):
    store.change(0, 0, {}, True)
    (folder / "reviews" / "a.json").rename(folder / "reviews" / "old.json")
    Store(folder, "ann")
    assert "1 reviews are of videos that are not here" in caplog.text
    assert "old" in caplog.text
    (folder / "reviews" / "old.json").rename(folder / "reviews" / "a.json")
    write_video(folder, "a", ROWS, seconds=9)
    Store(folder, "ann")
    assert "of a video of 6.0 s, but a has 9.0 s" in caplog.text


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "b", "\0", ""])
def test_no_review_is_written_outside_of_the_folder(folder, name):
    content = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(json.dumps({**content, "video": name}))
    with pytest.raises(InputError, match="which is no name of this file"):
        Store(folder, "ann")


@pytest.mark.parametrize("change, message", [
    (lambda one: one.pop("actions"), "is no review"),
    (lambda one: one.update(video="b"), "is the review of the video 'b'"),
    (lambda one: one.update(revision=1e400), "is no review"),
    (lambda one: one.update(duration_seconds=math.inf), "is infinite"),
    (lambda one: one["actions"][0].update(reviewer=3), "no text"),
    (lambda one: one["actions"][0].update(id=None), "1 wrong actions"),
    (lambda one: one["actions"][0].update(verdict="x"), "1 wrong actions")])
def test_a_damaged_review_is_named(store, folder, change, message):
    store.change(0, 0, {_ids(store)[1.0, "jump"]: _values(1, 2)})
    path = folder / "reviews" / "a.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"a.json: .*{message}"):
        Store(folder, "ann")


def test_files_of_others_are_named(tmp_path):
    with pytest.raises(InputError, match="neither predictions.json nor vid"):
        Store(tmp_path, "ann")
    (tmp_path / "predictions.json").write_text(
        '{"results": {"x": [], "y": []}}')
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="1 videos of predictions.json have "
                       "no file of their own, as in the work directory"):
        Store(tmp_path, "ann")
    (tmp_path / "y.json").write_text("{}")
    with pytest.raises(InputError, match="x.json: is not the file of a video"):
        Store(tmp_path, "ann")
    assert not (tmp_path / "reviews").exists()


@pytest.mark.parametrize("key", ["duration_seconds", "fps", "frame_count",
                                 "shown_from"])
def test_predictions_with_a_damaged_number_are_named(folder, key):
    content = json.loads((folder / "a.json").read_text())
    value = {"jump": math.inf} if key == "shown_from" else math.inf
    (folder / "a.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(InputError, match="a.json: is not the file of a video"):
        Store(folder, "ann")


@pytest.mark.parametrize("where", ["absolute", "beside", "videos"])
def test_a_video_is_where_it_was_or_where_the_user_says(
        tmp_path, where):
    path = tmp_path / "videos" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(b"x")
    source = {"absolute": path, "beside": "videos/a.mp4",
              "videos": "/gone/a.mp4"}[where]
    write_video(tmp_path / "out", "a", ROWS, source)
    store = Store(tmp_path / "out", "ann")
    predicted = store.predicted(0)
    assert find_file(predicted, store.folder, VideoFolder(path.parent)) == path
    if where != "videos":  # it is looked for in both places
        assert find_file(predicted, store.folder, VideoFolder(
            tmp_path / "out")) == path
    assert find_file(predicted, store.folder, None) == (
        None if where == "videos" else path)


@pytest.mark.parametrize("when", ["", "yesterday", "2026-11-30T14:00:00"])
def test_a_time_that_cannot_be_compared_is_named(store, folder, when):
    store.change(0, 0, {"h0123456789ab": _values(5.0, 5.5)})
    path = folder / "reviews/a.json"
    content = json.loads(path.read_text())
    content["actions"][0]["when"] = when
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="a.json: is no review that this"):
        reviews.read_review(path)


def test_folders_of_reviews_may_have_commas(tmp_path):
    (tmp_path / "a, b").mkdir()
    assert reviews.review_folders(f"{tmp_path}/a, b") == [tmp_path / "a, b"]
    assert reviews.review_folders(f"{tmp_path}/a, b/predictions") == [
        tmp_path / "a, b/predictions"]
    assert reviews.review_folders("one, two,") == [Path("one"), Path("two")]
    assert reviews.review_folders("") == []
