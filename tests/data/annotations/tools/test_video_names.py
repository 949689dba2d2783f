"""Names of videos in the paths and addresses of many tools."""

import pytest

from losa_jax.data.annotations.tools.video_names import (
    is_same_video,
    parts_of,
    shown_names,
    video_ids,
)


@pytest.mark.parametrize("address, parts", [
    ("file:///C:/My%20Videos/a.mp4", ("My Videos", "a.mp4")),
    ("C:\\fakepath\\Tag 1\\a.mp4", ("Tag 1", "a.mp4")),
    ("\\\\server\\share\\a.mp4", ("server", "share", "a.mp4")),
    ("s3://bucket/x/a.mp4", ("bucket", "x", "a.mp4")),
    ("azure-blob://c/a.mp4?sv", ("c", "a.mp4")),
    ("https://h.example/x/a.mp4?X=1#t=3", ("h.example", "x", "a.mp4")),
    ("http://h.example/a%23b.mp4#t=3", ("h.example", "a#b.mp4")),
    ("file:///x/a#1.mp4", ("x", "a#1.mp4")),
    ("/data/local-files/?d=day%201%5Ca.mp4", ("day 1", "a.mp4")),
    ("/data/local-files/?d=a%2520b.mp4", ("a%20b.mp4",)),
    ("/data/upload/4/3d3ad63e-a_b.mp4", ("data", "upload", "a_b.mp4")),
    ("take 12:30.mp4", ("take 12:30.mp4",)), ("what?.mp4", ("what?.mp4",)),
    ("../v/./a.mp4", ("v", "a.mp4")), ("100%.mp4", ("100%.mp4",))])
def test_an_address_gives_folders_and_name(address, parts):
    assert parts_of(address) == parts


def test_videos_of_one_name_keep_the_folders_that_distinguish_them():
    assert shown_names([
        ("a", "1", "c.mp4"), ("b", "1", "c.mp4"), ("a", "2", "c.mp4"),
        ("c.mp4",), ("x", "d.mp4"), ("d.mp4",)]) == {
        ("a", "1", "c.mp4"): "a/1/c.mp4", ("b", "1", "c.mp4"): "b/1/c.mp4",
        ("a", "2", "c.mp4"): "2/c.mp4", ("c.mp4",): "c.mp4",
        ("x", "d.mp4"): "d.mp4", ("d.mp4",): "d.mp4"}


def test_ids_are_names_without_the_ending_of_a_video():
    assert video_ids(["a.MTS.mp4", "b.mp4", "b.mkv", "c", "c.mp4", "d.1",
                      "x/e.mov"]) == {
        "a.MTS.mp4": "a.MTS", "b.mp4": "b.mp4", "b.mkv": "b.mkv", "c": "c",
        "c.mp4": "c", "d.1": "d.1", "x/e.mov": "x/e"}


def test_a_video_is_chosen_with_or_without_folder_and_ending():
    parts = ("day 1", "side A.mp4")
    for name in ("side A", "side A.mp4", "day 1/side A.mp4"):
        assert is_same_video(parts, name)
    assert not is_same_video(parts, "day 2/side A.mp4")
