"""Missing, broken and contradicting videos are reported before training."""

import json
import os
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from losa_jax.data.annotations.load import load_annotations
from losa_jax.data.records import Action, AnnotatedVideo
from losa_jax.data.video import check
from losa_jax.data.video.check import check_videos, report_broken
from losa_jax.errors import InputError


def _annotated(video_id, duration=2.0, fps=25.0, starts=(0.5,)):
    actions = tuple(Action(start, start + 0.4, "jump") for start in starts)
    return AnnotatedVideo(video_id, "training", duration, fps, actions)


@pytest.fixture(scope="module")
def video_file(tmp_path_factory):
    """2 seconds at 25 frames a second, 32 x 32 pixels."""
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for level in range(50):
            pixels = np.full((32, 32, 3), level * 5, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def folder(tmp_path, video_file):
    """Two good videos and a broken one."""
    folder = tmp_path / "videos"
    folder.mkdir()
    shutil.copy(video_file, folder / "a.mp4")
    shutil.copy(video_file, folder / "b.v2.MP4")
    (folder / "broken.mkv").write_text("no video")
    return folder


def test_good_videos(folder):
    infos, broken = check_videos(
        [_annotated("a"), _annotated("b.v2", None, None)], folder)
    assert broken == {}
    assert list(infos) == ["a", "b.v2"]
    assert infos["b.v2"].path == folder / "b.v2.MP4"
    assert {(info.frame_count, info.fps) for info in infos.values()} == {
        (50, 25.0)}


def test_stop_lists_everything_and_the_remedy(folder):
    _, broken = check_videos([_annotated("gone"), _annotated("a"),
                              _annotated("broken")], folder)
    with pytest.raises(InputError) as caught:
        report_broken(broken, 3, "stop")
    report = str(caught.value)
    assert "2 of 3 videos are missing or broken" in report
    assert "gone: no file gone with the ending of a video in " in report
    assert "broken.mkv: not a readable video" in report
    assert "--config.data.on_broken_video=skip" in report


def test_skip_leaves_out_and_warns(folder, caplog):
    infos, broken = check_videos(
        [_annotated("gone"), _annotated("a"), _annotated("broken")], folder)
    assert list(infos) == ["a"]
    assert list(broken) == ["gone", "broken"]
    assert "no file gone" in broken["gone"]
    report_broken(broken, 3, "skip")
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "skipped gone", "skipped broken"]


def test_skip_needs_something_left():
    with pytest.raises(InputError, match="1 of 1 videos are missing(?s:.*)"
                       "Repair them, or correct the folder$"):
        report_broken({"gone": "no file gone"}, 1, "skip")


def test_two_files_of_one_video(folder, video_file):
    shutil.copy(video_file, folder / "a.avi")
    _, broken = check_videos([_annotated("a")], folder)
    assert "several files: a.avi, a.mp4" in broken["a"]


def test_names_differ_in_case_as_ids_do(folder, video_file):
    """YouTube's ids do: dQw and DqW are two videos."""
    shutil.copy(video_file, folder / "A.mp4")
    infos, _ = check_videos([_annotated("a"), _annotated("A")], folder)
    assert {name: info.path.name for name, info in infos.items()} == {
        "a": "a.mp4", "A": "A.mp4"}


def test_ids_stay_inside_the_folder(folder, video_file):
    shutil.copy(video_file, folder.parent / "outside.mp4")
    _, broken = check_videos([_annotated("../outside")], folder)
    assert "is no path inside" in broken["../outside"]


def test_contradictions_are_named(folder):
    # Beyond one hundredth: 2.03 against 2.0; within: 25.2 against 25.
    videos = [_annotated("a", 2.03, 25.2), _annotated("b.v2", 2.01, 30)]
    infos, _ = check_videos(videos, folder)
    assert [check.disagreements(video, infos[video.video_id])
            for video in videos] == [
        {"duration": "the annotation says 2.03, the file has 2"},
        {"frame rate": "the annotation says 30, the file has 25"}]
    assert [check.end_seconds(video, infos[video.video_id])
            for video in videos] == [2.0, 2.01]


def test_a_second_start_reads_the_cache(folder, tmp_path, monkeypatch):
    cache = tmp_path / "probed.json"
    videos = [_annotated("a"), _annotated("b.v2")]
    probed = []
    real = check.probe_video

    def counted(path, check):
        probed.append((path.name, check))
        return real(path, check=check)

    monkeypatch.setattr(check, "probe_video", counted)
    first = check_videos(videos, folder, cache_path=cache)
    assert sorted(probed) == [("a.mp4", "ends"), ("b.v2.MP4", "ends")]
    assert check_videos(videos, folder, cache_path=cache
                        ) == first
    assert len(probed) == 2
    # Another file under the same name, or a stricter look, is no hit.
    os.utime(folder / "a.mp4", ns=(1, 1))
    check_videos(videos, folder, cache_path=cache)
    assert probed[2:] == [("a.mp4", "ends")]
    check_videos(videos[:1], folder, check="full", cache_path=cache)
    assert probed[3:] == [("a.mp4", "full")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "probed.json", "videos"]


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_cache_is_replaced(folder, tmp_path, text):
    cache = tmp_path / "probed.json"
    cache.write_text(text)
    infos, _ = check_videos([_annotated("a")], folder, cache_path=cache)
    assert infos["a"].frame_count == 50
    assert len(json.loads(cache.read_text())) == 1


def test_probed_videos_are_cached_after_an_interruption(folder, tmp_path,
                                               monkeypatch):
    cache = tmp_path / "probed.json"
    check_videos([_annotated("a"), _annotated("gone")], folder,
                 cache_path=cache)
    assert len(json.loads(cache.read_text())) == 1
    real = check.probe_video

    def interrupted(path, check):
        if path.name.startswith("b"):
            raise KeyboardInterrupt
        return real(path, check=check)

    monkeypatch.setattr(check, "probe_video", interrupted)
    cache.unlink()
    with pytest.raises(KeyboardInterrupt):
        check_videos([_annotated("a"), _annotated("b.v2")], folder,
                     cache_path=cache)
    assert len(json.loads(cache.read_text())) == 1


def test_an_unknown_check_is_refused(folder):
    with pytest.raises(InputError, match="check='all'"):
        check_videos([_annotated("a")], folder, check="all")


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder of videos"):
        check_videos([_annotated("a")], tmp_path / "none")


@pytest.mark.shared
def test_gestures_agree_with_their_annotations(shared_dir, caplog):
    folder = shared_dir / "data/gestures"
    videos = load_annotations(folder / "gestures.json").subset("testing")
    infos, broken = check_videos(videos, folder / "videos")
    assert (len(infos), broken, caplog.records) == (12, {}, [])
    for video in videos:
        assert not check.disagreements(video, infos[video.video_id])
        assert infos[video.video_id].duration_seconds == pytest.approx(
            video.duration_seconds, abs=1e-6)
