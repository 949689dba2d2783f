"""A folder's videos are what FFmpeg opens, whatever their ending."""

import os
import shutil
import unicodedata

import av
import numpy as np
import pytest

from losa_jax.data.video import folder as video_folder
from losa_jax.data.video.container import VideoDecodeError, open_video
from losa_jax.data.video.folder import (
    VideoFolder,
    videos_below,
    warn_left_out,
)
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError

# Ending, format, codec.
ENDINGS = [
    (".MTS", "mpegts", "libx264"), (".ts", "mpegts", "mpeg2video"),
    (".mpg", "mpeg", "mpeg2video"), (".wmv", "asf", "wmv2"),
    (".flv", "flv", "flv1"), (".3gp", "3gp", "mpeg4"),
    (".ogv", "ogg", "libvpx"), (".ogg", "ogg", "libvpx"),
    (".m2ts", "mpegts", "mpeg2video"), (".VOB", "vob", "mpeg2video"),
    ("", "mp4", "libx264"), (".2024", "matroska", "libx264"),
    (".gif", "gif", "gif"), (".mjpg", "mjpeg", "mjpeg"),
    (".h264", "h264", "libx264"), (".y4m", "yuv4mpegpipe", "wrapped_avframe"),
    (".mxf", "mxf", "mpeg2video"), (".dat", "vcd", "mpeg1video")]
NO_VIDEOS = {
    "notes.txt": b"jump 1 2\n", "list.csv": b"a,b\n", "a.json": b"{}",
    "page.html": b"<html>", "features.npy": b"\x93NUMPY", "x.mp4.part": b"\0",
    "y.mp4.crdownload": b"\0", "z.mp4.part-Frag3": b"\0", "s.srt": b"1\n",
    "sound.wav": b"RIFF", "still.jpg": b"\xff\xd8\xff", ".hidden.mp4": b"",
    "._clip.MTS": b"\0\5\x16\7", "README": b"Read me first.\n",
    "code.ts": b"export const x = 1;\n", "random": bytes(range(256)) * 20,
    "art.nfo": b"text " * 99, "noise.art": b"text " * 99}


def _write(path, form="mp4", codec="libx264", frames=10):
    pixels = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = pixels
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(
                np.full((64, 64, 3), 9 * number, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _write_sound(path, form="matroska"):
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("one") / "clip.mp4")


def test_a_link_to_itself_hides_no_other_file(tmp_path, mp4):
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "clip.mp4").symlink_to(mp4)
    videos, left_out = VideoFolder(tmp_path).videos()
    assert videos == [tmp_path / "clip.mp4"]
    assert left_out == {"broken links or devices": ["loop.mp4"]}


@pytest.mark.parametrize("ending, form, codec", ENDINGS)
def test_any_ending_is_taken(tmp_path, ending, form, codec):
    path = _write(tmp_path / f"clip{ending}", form, codec)
    files = VideoFolder(tmp_path)
    assert files.find("clip") == path
    assert files.videos() == ([path], {})
    assert files.left_out() == {}
    assert videos_below(tmp_path) == ([path], {})
    assert probe_video(path).frame_count > 7


def test_what_is_left_out_has_a_reason(tmp_path, mp4, caplog):
    for name, content in NO_VIDEOS.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.mp4").symlink_to("nowhere")
    _write(tmp_path / "still", "gif", "gif", frames=1)
    _write_sound(tmp_path / "voice")
    shutil.copy(mp4, tmp_path / "clip.mp4")
    for name in ("more", ".trash", "__MACOSX"):
        (tmp_path / name).mkdir()
        shutil.copy(mp4, tmp_path / name / "other.mp4")
    videos, left_out = videos_below(tmp_path)
    assert [path.name for path in videos] == ["clip.mp4", "other.mp4"]
    listed = {name for names in left_out.values() for name in names}
    assert listed == {*NO_VIDEOS, "link.mp4", "still", "voice", ".trash",
                      "__MACOSX"}
    assert left_out["without a video stream"] == ["voice"]
    assert left_out["partial downloads"] == [
        "x.mp4.part", "y.mp4.crdownload", "z.mp4.part-Frag3"]
    warn_left_out(tmp_path, left_out)
    line, = [record.message for record in caplog.records]
    assert "partial downloads: 3 (x.mp4.part, y.mp4.crdownload, z." in line
    here, left_out = VideoFolder(tmp_path).videos()
    assert [path.name for path in here] == ["clip.mp4"]
    assert left_out["subfolders"] == [".trash", "__MACOSX", "more"]


def test_ten_thousand_others_cost_one_line_and_are_not_opened(
        tmp_path, caplog, monkeypatch):
    for number in range(10_000):
        (tmp_path / f"{number:05}.json").touch()
    shutil.copy(_write(tmp_path / "a"), tmp_path / "b.MTS")
    opened = []
    monkeypatch.setattr(video_folder, "recognize", lambda path: (
        opened.append(path.name)))
    files = VideoFolder(tmp_path)
    assert files.find("b") == tmp_path / "b.MTS"
    warn_left_out(tmp_path, files.left_out())
    assert len(caplog.records) == 1 and len(caplog.text) < 300
    assert opened == []
    assert [path.name for path in files.videos()[0]] == ["a", "b.MTS"]
    assert opened == ["a", "b.MTS"]


def test_an_id_finds_its_video_among_other_files_of_the_name(tmp_path, mp4):
    for name in ("a.mp4", "b", "b.xyz"):
        shutil.copy(mp4, tmp_path / name)
    for name in ("a.json", "a.jpg", "a.en.vtt", "a.mp4.part", "a.info"):
        (tmp_path / name).write_text("text")
    _write_sound(tmp_path / "a.webm")
    (tmp_path / "a").mkdir()
    files = VideoFolder(tmp_path)
    assert files.find("a").name == files.find("a.mp4").name == "a.mp4"
    with pytest.raises(InputError, match="several files: b, b.xyz in .*keep"):
        files.find("b")
    shutil.copy(mp4, tmp_path / "v_c.mkv")
    (tmp_path / "c.json").touch()
    assert VideoFolder(tmp_path).find("c").name == "v_c.mkv"
    # A damaged video is not replaced by another of its name.
    (tmp_path / "a.mkv").write_bytes(b"damaged")
    with pytest.raises(InputError, match="several files: a.mkv, a.mp4"):
        files = VideoFolder(tmp_path).find("a")


@pytest.mark.parametrize("name, video_id", [
    ("a.mp4", "a"), ("a.b.MTS", "a.b"), ("a", "a"), ("video.1", "video.1"),
    ("2024.06.01", "2024.06.01"), ("a.264", "a"), ("a.", "a.")])
def test_the_id_is_the_name_without_its_ending(tmp_path, mp4, name, video_id):
    path = tmp_path / name
    shutil.copy(mp4, path)
    assert video_folder.video_id_of(path) == video_id
    assert VideoFolder(tmp_path).find(video_id) == path


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_macos_are_those_of_the_ids(tmp_path, mp4, form):
    name = unicodedata.normalize(form, "étude_1")
    shutil.copy(mp4, tmp_path / f"{name}.mp4")
    files = VideoFolder(tmp_path)
    for other in ("NFC", "NFD"):
        assert files.find(unicodedata.normalize(other, "étude_1")).is_file()
    assert video_folder.video_id_of(
        tmp_path / f"{name}.mp4") == "\u00e9tude_1"


@pytest.mark.parametrize("names, wanted, message", [
    (["Jump_1.mp4"], "jump_1", "nearest there: Jump_1.mp4"),
    (["jump-1.mp4"], "jump 1", "nearest there: jump-1.mp4"),
    (["sub/Jump.MTS"], "jump", "nearest there: sub/Jump.MTS"),
    (["a/x/jump.mp4"], "b/jump", "nearest there: a/x/jump.mp4"),
    (["jump.npy", "run.mp4"], "jump", r"jump.npy is left out \(features\)"),
    (["jump.mp4"], "../jump", "in the annotations to 'jump'"),
    (["jump.mp4"], "a//jump", "is no path inside a folder"),
    (["sub/jump.json"], "jump", r"sub/jump.json is left out \(text\)"),
    (["jump.json"], "jump", r"jump.json is left out \(text\)"),
    (["jump.mp4.part"], "jump", "nearest there: jump.mp4.part"),
    (["jump/0001.jpg"], "jump", "jump is a folder"),
    (["jump_0001.mp4"], "jump_1", "nearest there: jump_0001.mp4"),
    (["video_jump.mp4"], "jump", "nearest there: video_jump.mp4"),
    (["x.mp4"], "jump", "no file jump with the ending of a video in [^;]*$"),
])
def test_a_missing_video_names_the_nearest_file(
        tmp_path, names, wanted, message):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    with pytest.raises(InputError, match=message):
        VideoFolder(tmp_path).find(wanted)


def test_videos_in_subfolders_are_taken_by_name_or_with_their_folder(
        tmp_path, mp4):
    for name in ("a/x/cam.mp4", "b/x/cam.mp4", "b/one.mp4", "one.mp4",
                 "a/two.mp4", "a/two.txt", "a/xx/cam.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mp4, tmp_path / name)
    files = VideoFolder(tmp_path)
    for video_id, name in (("two", "a/two.mp4"), ("one", "one.mp4"),
                           ("b/one", "b/one.mp4"), ("a/x/cam", "a/x/cam.mp4"),
                           ("xx/cam.mp4", "a/xx/cam.mp4")):
        assert files.find(video_id) == tmp_path / name
    with pytest.raises(InputError, match="a/x/cam.mp4, b/x/cam.mp4 in .*; keep "
                                         "one, or name its folder in the id"):
        files.find("x/cam")


@pytest.mark.parametrize("names", [["a.npy"], ["b.npz", "features.json"]])
def test_a_folder_of_features_in_place_of_videos_is_named(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=(
            rf"--config.data.videos={tmp_path}: holds features \({names[0]}\) "
            f".* recipe of features with --config.features.folder={tmp_path}")):
        VideoFolder(tmp_path).left_out()
    (tmp_path / "a.mp4").touch()
    assert VideoFolder(tmp_path).left_out()["features"] == names[:1]


def test_many_missing_videos_cost_a_few_searches(tmp_path):
    (tmp_path / "video_1.mp4").touch()
    files, messages = VideoFolder(tmp_path), []
    for number in range(10, 100):
        with pytest.raises(InputError) as caught:
            files.find(f"video_{number}")
        messages.append(str(caught.value))
    assert sum("nearest" in message for message in messages) == 20


def test_names_in_no_encoding_are_left_out(tmp_path, caplog):
    try:
        open(os.fsencode(tmp_path) + b"/a\xff.mp4", "wb").close()
    except OSError:
        pytest.skip("this file system allows no such name")
    videos, left_out = videos_below(tmp_path)
    warn_left_out(tmp_path, left_out)
    assert videos == [] and "a\\udcff.mp4" in caplog.text


@pytest.mark.parametrize("write, message", [
    (lambda path: path.write_text("hello " * 99), "clip.txt: .* but text"),
    (lambda path: _write(path, "gif", "gif", 1), "but an image"),
    (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"
                                  "\noid sha256:4d7a\nsize 9\n"),
     "clip.*Git LFS pointer: run `git lfs pull`"),
    (lambda path: path.write_text("<!DOCTYPE html><title>Log in</title>"),
     r'an HTML page \("Log in"\): a server sent a page'),
    (lambda path: path.write_text('{"error": 404}'), "but a JSON document"),
    (lambda path: path.write_bytes(bytes(9999)), "but a file of zeros"),
    (lambda path: path.symlink_to("nowhere"), "is a link to nowhere"),
])
def test_what_is_no_video_is_named(tmp_path, write, message):
    name = "clip.txt" if "but text" in message else "clip"
    write(tmp_path / name)
    with pytest.raises(VideoDecodeError, match=message), (
            open_video(tmp_path / name)):
        pass


def test_a_playlist_that_never_ends_is_refused(tmp_path):
    path = tmp_path / "live.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.ts\n")
    with pytest.raises(InputError, match="playlist without an end"):
        probe_video(path)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["w.pth", "hf/model.safetensors"])
def test_a_public_pointer_in_place_of_a_video_is_named(
        shared_dir, tmp_path, name):
    shutil.copy(shared_dir / "data/public_cases/lfs" / name,
                tmp_path / "clip.mp4")
    with pytest.raises(InputError, match="clip.mp4.*run `git lfs pull`"):
        probe_video(VideoFolder(tmp_path).find("clip"))


@pytest.mark.shared
def test_a_camcorders_file_is_a_video(shared_dir):
    folder = shared_dir / "data/public_cases/video"
    path = VideoFolder(folder).find("camcorder")
    assert path.name == "camcorder.MTS"
    assert path in videos_below(folder)[0]
    assert probe_video(path).frame_count > 0
