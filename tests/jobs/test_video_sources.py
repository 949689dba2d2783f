"""Which videos the sources of `predict` name."""

import shutil
from pathlib import Path

import pytest

from losa_jax.errors import InputError
from losa_jax.jobs.video_sources import find_videos


def test_every_video_gets_a_unique_id(tmp_path):
    for name in ("a/x.mp4", "b/x.mp4", "b/x.mkv", "b/y.mp4", "b/Y.avi",
                 "b/predictions.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    requests, failures, _ = find_videos([str(tmp_path / "b/y.mp4"),
                                         str(tmp_path)])
    assert {one.video_id: str(one.path.relative_to(tmp_path))
            for one in requests} == {
        "y.mp4": "b/y.mp4", "Y.avi": "b/Y.avi", "x.mkv": "b/x.mkv",
        "a_x.mp4": "a/x.mp4", "b_x.mp4": "b/x.mp4",
        "predictions.mp4": "b/predictions.mp4"}
    assert failures == {}


def test_any_video_of_a_folder_is_found_and_the_rest_listed(
        config, tmp_path, monkeypatch, caplog):
    video = next(Path(config.data.videos).iterdir())
    for name in ("a.MTS", "sub/b", "c.mp4.part", "d.txt", "._a.MTS"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(video, tmp_path / name)
    (tmp_path / "only").mkdir()
    (tmp_path / "only/notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    requests, failures, _ = find_videos([
        str(tmp_path), str(tmp_path / "only"), ""])
    assert [one.video_id for one in requests] == ["a", "b"]
    line, other = (record.message for record in caplog.records)
    assert "left out" in line and "partial downloads: 1 (c.mp4.part)" in line
    assert "text: 1 (notes.txt)" in other
    assert list(failures) == [str(tmp_path / "only"), ""]


def test_a_video_in_two_spellings_is_listed_once(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.mp4").touch()
    (tmp_path / "sub/b.mp4").symlink_to(tmp_path / "a.mp4")
    (tmp_path / "linked").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    requests, failures, _ = find_videos([
        "sub/../a.mp4", "a.mp4", "./a.mp4", str(tmp_path / "a.mp4"),
        "linked/a.mp4", ".", "sub/b.mp4"])
    # A link to a file may have a name of its own.
    assert [(one.video_id, one.source) for one in requests] == [
        ("a", "sub/../a.mp4"), ("b", "sub/b.mp4")]
    assert failures == {}


def test_a_broken_link_is_told(tmp_path):
    link = tmp_path / "a.mp4"
    link.symlink_to("/nowhere/a.mp4")
    with pytest.raises(InputError, match="is a link to /nowhere/a.mp4, which "
                       "is not"):
        find_videos([str(link)])


def test_a_list_names_videos_and_folders(tmp_path, monkeypatch):
    for name in ("a.mp4", "more/b.mp4", "more/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text(
        "\ufeffmore/b.mp4\r\n\r\n  a.mp4\nmore\n./a.mp4\nno/such.mp4\nno.mp4")
    requests, failures, _ = find_videos(["list.txt", "a.mp4"])
    # Each once, in the order of the list.
    assert [one.video_id for one in requests] == ["b", "a", "c"]
    assert failures == {
        "no/such.mp4": "list.txt, line 6: no/such.mp4: no such file: check "
                       "the path",
        "no.mp4": "list.txt, line 7: no.mp4: no such file: check the path"}


@pytest.mark.parametrize("content, message", [
    ("\n \n", "list.txt: the list is empty: write the path of a video"),
    (None, "list.txt: cannot be read"),
    (b"\xff\xfea\0", "list.txt: is not UTF-8 text, it seems to be UTF-16"),
    ("a.mp4\n", r"^list.txt, line 1: a.mp4: no such file: check the path$"),
    ("s3://a/b.mp4\n", "list.txt, line 1: s3://a/b.mp4: name a file or folder "
     "of this machine, or gs://BUCKET/PATH"),
])
def test_a_list_that_cannot_be_used_is_explained(tmp_path, monkeypatch,
                                                 content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "list.txt").write_bytes(
            content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        find_videos(["list.txt"])


def test_the_videos_of_a_bucket_are_listed(bucket_objects, caplog):
    import fsspec

    files = fsspec.filesystem("gs")
    for name in ("a/x.mp4", "b/x.mp4", "b/deep/y.MKV", "b/notes.txt"):
        files.pipe_file(f"gs://data/{name}", b"")
    requests, failures, _ = find_videos([
        "gs://data/b", "gs://data/a/x.mp4", "gs://data/b/x.mp4",
        "gs://data/none"])
    assert [(one.video_id, one.source) for one in requests] == [
        ("y", "gs://data/b/deep/y.MKV"), ("b_x.mp4", "gs://data/b/x.mp4"),
        ("a_x.mp4", "gs://data/a/x.mp4")]
    assert all(one.path is None for one in requests)
    assert failures == {"gs://data/none": "gs://data/none: the bucket holds "
                        "no video there: give a video or a folder of videos"}
    assert "other endings than those of videos: 1" in caplog.text
