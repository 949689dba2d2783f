"""Every frame of real and odd files, or the right error."""

import dataclasses

import av
import numpy as np
import pytest

from losa_jax.data.video.decode import VideoDecodeError
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError
from tests.data.painted import number_of as _number
from tests.data.painted import numbers as _numbers
from tests.data.reading import read_frames

HMDB = "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"
# Frames of variable_frame_rate.mp4 and when they appear (its README).
VARIABLE_SECONDS = np.concatenate([
    np.arange(60) / 30, 2 + np.arange(20) / 10, 5 + np.arange(25) / 25])


ODD = {  # fps, frames, height, width
    HMDB: (30.0, 83, 240, 320),
    "v_SoccerJuggling_g23_c01.avi": (30000 / 1001, 240, 240, 320),
    "portrait_rotated.mp4": (25.0, 75, 256, 144),
    "variable_frame_rate.mp4": (5250 / 299, 105, 144, 192),
    "flipping_a_pancake.mkv": (30.0, 310, 240, 426),
    "one_frame.mp4": (25.0, 1, 144, 192),
    "bframes_start_offset.mp4": (25.0, 100, 144, 192),
    "hevc_10bit.mp4": (30.0, 90, 144, 192),
    "vp9.webm": (24.0, 72, 144, 192),
}
CODED = [name for name in ODD if name not in (
    HMDB, "v_SoccerJuggling_g23_c01.avi", "flipping_a_pancake.mkv")]


def _expected(name):
    """Numbers in the frames on screen in the middle of every frame."""
    fps, frame_count, *_ = ODD[name]
    if name == "one_frame.mp4":
        return np.array([37])
    if name == "variable_frame_rate.mp4":
        middles = (np.arange(frame_count) + 0.5) / fps
        return np.array([np.flatnonzero(VARIABLE_SECONDS <= middle)[-1]
                         for middle in middles])
    return np.arange(frame_count)


@pytest.mark.shared
@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_probed_right(shared_dir, name):
    path = shared_dir / "data/odd_videos" / name
    info = probe_video(path)
    assert (info.fps, info.frame_count, info.height, info.width) == (
        ODD[name])
    assert info.duration_seconds == info.frame_count / info.fps
    assert probe_video(path, "full") == info


@pytest.mark.shared
@pytest.mark.parametrize("name", CODED)
def test_odd_files_every_frame(shared_dir, name):
    path = shared_dir / "data/odd_videos" / name
    info = probe_video(path)
    expected = _expected(name)
    whole = read_frames(path, range(info.frame_count), info=info)
    assert _numbers(whole) == expected.tolist()
    rng = np.random.default_rng(1)
    for _ in range(10):
        wanted = rng.integers(0, info.frame_count, 6)
        frames = read_frames(path, wanted, info=info)
        assert _numbers(frames) == expected[wanted].tolist()
    np.testing.assert_array_equal(frames, whole[wanted])


@pytest.mark.shared
@pytest.mark.parametrize("name", [HMDB, "v_SoccerJuggling_g23_c01.avi",
                                  "flipping_a_pancake.mkv"])
def test_odd_files_without_numbers(shared_dir, name):
    path = shared_dir / "data/odd_videos" / name
    info = probe_video(path)
    with av.open(str(path), metadata_errors="ignore") as container:
        frames = [frame.to_ndarray(format="rgb24")
                    for frame in container.decode(video=0)]
    wanted = [info.frame_count - 1, 0, 41, 40, 42]
    np.testing.assert_array_equal(
        read_frames(path, wanted, info=info),
        np.stack([frames[index] for index in wanted]))


@pytest.mark.shared
def test_a_rotated_frame_is_scaled_upright(shared_dir):
    path = shared_dir / "data/odd_videos/portrait_rotated.mp4"
    info = dataclasses.replace(probe_video(path), height=128, width=72)
    frames = read_frames(path, [0, 70], info=info)
    assert frames.shape == (2, 128, 72, 3)
    assert [_number(frame, block=8) for frame in frames] == [0, 70]


@pytest.mark.shared
@pytest.mark.parametrize("name, message", [
    ("truncated_faststart.mp4", "index needs 59428 bytes and it has 35656"),
    ("truncated_no_faststart.mp4", "not a readable video"),
    ("zero_bytes.mp4", "is empty"),
    ("text_not_video.mp4", "not a readable video"),
    ("audio_only.mp4", "no video stream"),
])
def test_broken_files(shared_dir, name, message):
    path = shared_dir / "data/odd_videos" / name
    for check in ("ends", "full"):
        with pytest.raises(InputError, match=message) as caught:
            probe_video(path, check)
        assert str(path) in str(caught.value)


@pytest.mark.shared
def test_check_none_believes_the_header(shared_dir):
    path = shared_dir / "data/odd_videos/truncated_faststart.mp4"
    info = probe_video(path, "none")
    assert (info.frame_count, info.last_seconds) == (150, None)
    assert _numbers(read_frames(path, [0, 50], info=info)) == [0, 50]
    with pytest.raises(VideoDecodeError, match=r"frame 100 of 150 \(at 4.02"):
        read_frames(path, [0, 100], info=info)
    # What is not looked at is not promised either.
    whole = shared_dir / "data/odd_videos/vp9.webm"
    assert dataclasses.replace(probe_video(whole), last_seconds=None) == (
        probe_video(whole, "none"))


@pytest.mark.shared
def test_gestures_are_as_annotated(shared_dir):
    path = shared_dir / "data/gestures/videos/gestures_training_0002.mp4"
    info = probe_video(path)
    assert info.fps == 30.0
    assert info.duration_seconds == pytest.approx(42.333333, abs=1e-6)
