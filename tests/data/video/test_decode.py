"""Every frame is the one asked for, and every damaged file is detected.

Frames carry their number: see tests/data/painted.py.
"""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np
import pytest

from losa_jax.data.video import decode
from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError
from tests.data.painted import FRAMES
from tests.data.painted import frame_of as _frame
from tests.data.painted import numbers as _numbers
from tests.data.painted import render as _render
from tests.data.reading import read_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module", params=[
    ("gop_250.mp4", {"x264": "keyint=250:scenecut=0"}),
    ("gop_30.mp4", {"x264": "keyint=30:scenecut=0"}),
    # Key frames whose first frames refer to the group before.
    ("open.mp4", {"x264": "open-gop=1:bframes=3:keyint=20:scenecut=0"}),
    # "Key frames" after which the image is refreshed column by column.
    ("refresh.mp4", {"x264": "intra-refresh=1:keyint=30:bframes=0"}),
    # Time stamps rounded to milliseconds.
    ("ntsc.mkv", {"fps": "30000/1001"}),
    ("packed.avi", {"codec": "mpeg4"}),
    # Stamps that go back, so that frames must be counted.
    ("h264.avi", {}),
], ids=lambda param: param[0])
def rendered(request, folder):
    name, options = request.param
    path = _render(folder / name, **options)
    return path, probe_video(path)


def test_probe_counts_the_frames(rendered):
    path, info = rendered
    fps = 30000 / 1001 if path.suffix == ".mkv" else 25.0
    assert info.path == path
    assert (info.fps, info.frame_count) == (fps, FRAMES)
    assert info.duration_seconds == pytest.approx(FRAMES / fps, abs=1e-12)
    assert (info.height, info.width) == (64, 160)
    assert info.is_timed == (path.name != "h264.avi")
    assert probe_video(path, "full") == info


def test_every_frame_in_one_pass(rendered):
    path, info = rendered
    frames = read_frames(path, range(FRAMES), info=info)
    assert frames.shape == (FRAMES, 64, 160, 3) and frames.dtype == np.uint8
    assert _numbers(frames) == list(range(FRAMES))


def test_random_windows_are_the_same_pixels(rendered):
    path, info = rendered
    whole = read_frames(path, range(FRAMES), info=info)
    rng = np.random.default_rng(0)
    for _ in range(12):
        first, step = rng.integers(0, FRAMES), rng.integers(1, 5)
        wanted = np.minimum(first + step * np.arange(8), FRAMES - 1)
        np.testing.assert_array_equal(
            read_frames(path, wanted, info=info), whole[wanted])


def test_any_order_and_repeats(rendered):
    path, info = rendered
    wanted = [200, 3, 3, 239, 0, 200]
    assert _numbers(read_frames(path, wanted, info=info)) == wanted


def test_threads_do_not_disturb_each_other(rendered):
    path, info = rendered
    starts = [0, 55, 110, 165, 220] * 2
    with ThreadPoolExecutor(4) as pool:
        windows = pool.map(
            lambda start: read_frames(path, range(start, start + 8),
                                      info=info), starts)
        for start, frames in zip(starts, windows, strict=True):
            assert _numbers(frames) == list(range(start, start + 8))


def test_frames_outside_the_video_raise_a_value_error(rendered):
    path, info = rendered
    for wanted in ([-1], [0, FRAMES]):
        with pytest.raises(ValueError, match="the video has 0 to 239"):
            read_frames(path, wanted, info=info)
    assert read_frames(path, [], info=info).shape == (0, 64, 160, 3)


def test_a_variable_rate_that_contradicts_the_header(folder):
    """Matroska's header says 25 fps of 100 frames at 25, then 5 fps."""
    seconds = np.concatenate([np.arange(50) / 25, 2 + np.arange(50) / 5])
    path = _render(folder / "variable.mkv", frames=100, seconds=seconds)
    info = probe_video(path)
    assert info.frame_count == 100
    # The last frame is shown for one frame of the header's rate, and
    # begins at 2 + 49 / 5 = 11.8 s.
    assert info.fps == pytest.approx(100 / 11.84, rel=1e-3)
    # Frame 0 shows what is on screen 0.0592 s after the start: number 1
    # (0.04 to 0.08) and so on; frame 17, at 2.072 s, number 50 (2.0 to 2.2).
    middles = (np.arange(100) + 0.5) / info.fps
    expected = [max(n for n in range(100) if seconds[n] <= middle)
                for middle in middles]
    assert (expected[0], expected[17]) == (1, 50)
    assert _numbers(read_frames(path, range(100), info=info)) == expected
    assert _numbers(read_frames(path, [99, 30], info=info)) == [
        expected[99], expected[30]]


def test_colors_and_scaling(folder):
    red = np.zeros((64, 160, 3), np.uint8)
    red[:, :80] = (230, 30, 60)
    path = _render(folder / "red.mp4", frames=3, paint=lambda _: red)
    info = dataclasses.replace(probe_video(path), height=32, width=40)
    frame, = read_frames(path, [1], info=info)
    assert frame.shape == (32, 40, 3)
    # Within the rounding of 8-bit YUV; the edge in the middle is soft.
    np.testing.assert_allclose(
        frame[:, :16].astype(int), np.broadcast_to((230, 30, 60),
                                                   (32, 16, 3)), atol=5)
    np.testing.assert_allclose(frame[:, 24:].astype(int), 0, atol=5)


def test_unknown_check(folder):
    with pytest.raises(ValueError, match="check='all'"):
        probe_video(folder / "gop_30.mp4", "all")


@pytest.mark.parametrize("name, codec", [
    ("cut.mp4", "libx264"), ("cut.mkv", "libx264"), ("cut.avi", "mpeg4")])
def test_a_truncated_file_is_detected(folder, name, codec):
    path = _render(folder / name, codec=codec)
    info = probe_video(path)
    content = path.read_bytes()
    if name == "cut.mp4":  # the index to the front, as on the web
        with av.open(str(path)) as source, av.open(
                str(folder / "front.mp4"), "w",
                options={"movflags": "faststart"}) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        content = (folder / "front.mp4").read_bytes()
    path.write_bytes(content[:len(content) * 6 // 10])
    for check in ("ends", "full"):
        with pytest.raises(InputError) as caught:
            probe_video(path, check)
        assert f"{path}: the file is cut off" in str(caught.value)
    # The file was whole when it was probed: its start can still be read.
    assert _numbers(read_frames(path, [5, 40], info=info)) == [5, 40]
    with pytest.raises(VideoDecodeError,
                       match=r"frame 230 of 240 \(at 9\.22 s\)"):
        read_frames(path, [5, 230], info=info)


def test_damage_in_the_middle(folder):
    path = _render(folder / "damaged.mp4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle:middle + 800] = bytes(800)
    path.write_bytes(content)
    info = probe_video(path)
    with pytest.raises(InputError, match="cannot be decoded after "):
        probe_video(path, "full")
    with pytest.raises(VideoDecodeError, match=r"damaged\.mp4: frame \d+ of"):
        read_frames(path, range(FRAMES), info=info)
    # Its group of frames is lost, the rest is not.
    for number in (3, 235):
        assert _numbers(read_frames(path, [number], info=info)) == [number]


def test_frames_before_the_start_are_left_out(folder):
    """An edit list that hides the first ten frames, as of a cut clip."""
    source_path = _render(folder / "whole.mp4")
    path = folder / "trimmed.mp4"
    with av.open(str(source_path)) as source, av.open(
            str(path), "w",
            options={"avoid_negative_ts": "disabled"}) as target:
        origin = source.streams.video[0]
        stream = target.add_stream_from_template(origin)
        shift = round(10 / 25 / origin.time_base)
        for packet in source.demux(origin):
            if packet.dts is not None:
                packet.pts -= shift
                packet.dts -= shift
                packet.stream = stream
                target.mux(packet)
    info = probe_video(path)
    assert (info.fps, info.frame_count) == (25.0, 230)
    assert _numbers(read_frames(path, [0, 100, 229], info=info)) == [
        10, 110, 239]


def test_a_cover_image_is_no_video(tmp_path):
    path = tmp_path / "album.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.height, stream.width = 64, 160
        stream.pix_fmt = "yuvj420p"
        stream.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(_frame(0), "rgb24")
        container.mux(stream.encode(frame.reformat(format="yuvj420p")))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="no video stream"):
        probe_video(path)


def test_a_relative_name_like_an_address(folder, monkeypatch):
    _render(folder / "target.mp4", frames=5).rename(folder / "12:30.mp4")
    monkeypatch.chdir(folder)
    assert probe_video("12:30.mp4").frame_count == 5


@pytest.mark.parametrize("make, message", [
    (lambda path: None, "cannot be opened"),
    (lambda path: path.mkdir(), "not a file"),
    (lambda path: path.touch(), "the file is empty"),
    (lambda path: path.write_text("hello"), "not a readable video"),
])
def test_files_that_are_no_videos_are_refused(tmp_path, make, message):
    path = tmp_path / "video.mp4"
    make(path)
    for call in (probe_video, lambda path: read_frames(path, [0])):
        with pytest.raises(InputError, match=message) as caught:
            call(path)
        assert str(path) in str(caught.value)


def _warnings(path, caplog):
    caplog.clear()
    info = probe_video(path)
    return info, [record.getMessage() for record in caplog.records]


def test_an_intact_file_causes_no_warning(rendered, caplog):
    assert _warnings(rendered[0], caplog)[1] == []


def test_lost_packets_cause_a_warning(folder, caplog):
    """Matroska says nothing of how many frames there should be."""
    whole = _render(folder / "unbroken.mkv", frames=60)
    path = folder / "gaps.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size and number not in (57, 58):
                packet.stream = stream
                target.mux(packet)
    info, warnings = _warnings(path, caplog)
    assert info.frame_count == 58
    assert len(warnings) == 1 and "58 frames can be read, but" in warnings[0]
    assert str(path) in warnings[0]


def test_ten_bit_rotated_frames_from_a_late_start(folder):
    """HEVC Main 10, first frame at 1.5 s, every second one shown longer,
    a quarter turn in the header."""
    path = folder / "odd.mov"
    # Frame n comes at 1.5 s and n // 2 x 0.12 s, and 0.04 s if n is odd.
    seconds = 1.5 + np.array([n // 2 * 0.12 + n % 2 * 0.04
                              for n in range(40)])
    with av.open(str(path), "w",
                 options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx265", rate=25)
        stream.width, stream.height = 160, 64
        stream.pix_fmt = "yuv420p10le"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.options = {
            "x265-params": "log-level=none:keyint=10", "crf": "18"}
        for number, second in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(
                _frame(number), "rgb24").reformat(format="yuv420p10le")
            frame.time_base = Fraction(1, 1000)
            frame.pts = round(1000 * second)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content = path.read_bytes()
    # The display matrix in the track's header: upright to a quarter turn.
    one, zero = (65536).to_bytes(4, "big"), bytes(4)
    last = (1 << 30).to_bytes(4, "big")
    upright = one + zero * 3 + one + zero * 3 + last
    turned = (zero + one + zero + (-65536).to_bytes(4, "big", signed=True)
              + zero * 4 + last)
    track = content.index(b"tkhd")
    place = content.index(upright, track)
    path.write_bytes(content[:place] + turned
                     + content[place + len(turned):])
    info = probe_video(path)
    assert (info.frame_count, info.height, info.width) == (40, 160, 64)
    assert info.first_seconds == pytest.approx(1.5)
    middles = 1.5 + (np.arange(40) + 0.5) / info.fps
    expected = [int(np.flatnonzero(seconds <= middle + 1e-9)[-1])
                for middle in middles]
    assert len(set(expected)) < 40  # some are too short to be seen

    def numbers(indices):
        # Set back by the turn that the header asks for.
        return _numbers(np.rot90(frame, 1) for frame in
                        read_frames(path, indices, info=info))

    assert numbers(range(40)) == expected
    for wanted in ([31], [7, 39], [22, 3, 3]):
        assert numbers(wanted) == [expected[index] for index in wanted]


def test_sound_without_frames(tmp_path):
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="no video stream, only sound"):
        probe_video(path)


def test_sparse_frames_leave_out_frames_that_are_not_needed(
        folder, monkeypatch):
    path = _render(folder / "sparse.mp4",
                   x264="keyint=60:bframes=3:scenecut=0")
    info = probe_video(path)
    decoded = []
    real = decode._shown_at

    def counted(frames, *rest):
        return real((decoded.append(0) or one for one in frames), *rest)

    monkeypatch.setattr(decode, "_shown_at", counted)
    wanted = list(range(70, 200, 4))
    assert _numbers(read_frames(path, wanted, info=info)) == wanted
    assert len(decoded) < 110  # of 140 from the key frame on
    # A decoder that loses a frame is asked again for all of them.
    monkeypatch.setattr(decode, "_needed_stamps", lambda packets, *rest: (
        list(packets), {-1}))
    assert _numbers(read_frames(path, wanted, info=info)) == wanted


def test_a_deleted_file_raises_a_decode_error(folder, tmp_path):
    path = tmp_path / "video.mp4"
    _render(path, frames=5)
    info = probe_video(path)
    path.unlink()
    for read in (lambda: read_frames(path, [0], info=info),
                 lambda: list(decode.iterate_frames(path, [0], info=info))):
        with pytest.raises(VideoDecodeError, match="cannot be opened"):
            read()
