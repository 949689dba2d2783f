"""Actions outside their video are reported, cut or kept."""

from pathlib import Path

import pytest

from losa_jax.data.annotations.outside import clipped_to
from losa_jax.data.records import Action, AnnotatedVideo, Annotations
from losa_jax.errors import InputError


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


def test_all_wrong_entries_are_listed():
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
