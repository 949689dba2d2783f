"""Times are those of players: 0:00 is where the first stream starts."""

from fractions import Fraction

import av
import numpy as np
import pytest

from configs import quick
from losa_jax.data.records import Video
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows.live import LiveVideo
from losa_jax.data.windows.readers import FrameReader
from losa_jax.data.windows.sampling import video_grid
from losa_jax.errors import InputError
from tests.data.painted import frame_of, numbers
from tests.data.reading import read_frames

FPS, FRAMES = 25, 100
CODECS = {"mp4": ("libx264", "aac"), "mov": ("mpeg4", "aac"),
          "mkv": ("libx264", "aac"), "webm": ("libvpx", "libopus"),
          "ts": ("libx264", "mp2"), "mts": ("mpeg2video", "mp2"),
          "nut": ("mpeg4", "mp2"), "wmv": ("wmv2", "mp2"),
          "flv": ("flv", "aac"), "mpg": ("mpeg2video", "mp2")}
LAYOUTS = {"mts": "mpegts"}
RATE = 48000


def render(path, *, video_start=0, sound_start=None, frames=FRAMES,
           options=None):
    """A video whose frames carry their number, and silence beside it until it
    ends, or for 8 seconds; starts are in seconds."""
    suffix = path.suffix[1:]
    video_codec, sound_codec = CODECS[suffix]
    with av.open(str(path), "w", format=LAYOUTS.get(suffix), options={
            "avoid_negative_ts": "disabled", **(options or {})}) as container:
        video = container.add_stream(video_codec, rate=FPS)
        video.height, video.width, video.pix_fmt = 64, 160, "yuv420p"
        video.codec_context.gop_size = 10
        video.codec_context.max_b_frames = 0
        packets = []
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(frame_of(number), "rgb24")
            frame.pts = number + round(video_start * FPS)
            frame.time_base = Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode()
        if sound_start is not None:
            sound = container.add_stream(sound_codec, rate=RATE)
            sound.layout = "mono"
            resampler = av.AudioResampler(
                sound.codec_context.format.name, "mono", RATE,
                sound.codec_context.frame_size or 1152)
            end = min(video_start + frames / FPS, sound_start + 8)
            for first in range(round(sound_start * RATE), round(end * RATE),
                               RATE // 10):
                frame = av.AudioFrame.from_ndarray(
                    np.zeros((1, RATE // 10), np.float32), "fltp", "mono")
                frame.sample_rate, frame.pts = RATE, first
                frame.time_base = Fraction(1, RATE)
                for part in resampler.resample(frame):
                    packets += sound.encode(part)
            packets += sound.encode()
        for packet in sorted(packets,
                             key=lambda one: one.dts * one.time_base):
            container.mux(packet)
    return path


def warnings(path, caplog):
    caplog.clear()
    info = probe_video(path)
    return info, [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "mts", "wmv"])
@pytest.mark.parametrize("start", [1, 61, 7201])
def test_a_video_that_starts_after_its_sound(suffix, start, tmp_path):
    path = render(tmp_path / f"video.{suffix}", video_start=start + 2,
                  sound_start=start)
    info = probe_video(path)
    assert info.duration_seconds == pytest.approx(2 + FRAMES / FPS, abs=0.05)
    lead = info.frame_count - FRAMES
    assert lead in (49, 50, 51)  # sound has frames of its own length
    assert numbers(read_frames(path, range(info.frame_count), info=info)) == (
        [0] * lead + list(range(FRAMES)))
    assert numbers(read_frames(path, [3, lead + 7, lead + 61], info=info)) == [
        0, 7, 61]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv"])
def test_a_video_that_starts_before_its_sound(suffix, tmp_path):
    path = render(tmp_path / f"video.{suffix}", video_start=1, sound_start=2)
    info = probe_video(path)
    assert (info.frame_count, info.lead_frames) == (FRAMES, 0)
    assert numbers(read_frames(path, range(FRAMES), info=info)) == list(
        range(FRAMES))


def test_frames_that_an_edit_list_hides_are_before_zero(tmp_path):
    """Time stamps below zero: players begin with the frame at zero."""
    path = render(tmp_path / "video.mp4", video_start=-2, sound_start=0)
    info = probe_video(path)
    assert (info.frame_count, info.lead_frames) == (FRAMES - 50, 0)
    assert numbers(read_frames(path, range(50), info=info)) == list(
        range(50, FRAMES))


@pytest.mark.parametrize("check", ["none", "ends", "full"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "wmv"])
def test_every_check_tells_the_same_times(suffix, check, tmp_path):
    path = render(tmp_path / f"video.{suffix}", video_start=3, sound_start=1)
    info = probe_video(path, check)
    assert info.lead_frames in (49, 50, 51)
    assert info.frame_count - info.lead_frames in (FRAMES - 1, FRAMES,
                                                   FRAMES + 1)


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("start", [0, 60])
def test_whole_files_pass_and_cut_files_are_reported(
        suffix, sound, start, tmp_path, caplog):
    # FFmpeg wraps the sound's time stamps below zero in FLV, and NUT has none.
    if sound and suffix in ("flv", "nut") and start == 0:
        pytest.skip("no such file")
    path = render(tmp_path / f"video.{suffix}", video_start=start,
                  sound_start=start if sound else None)
    info, messages = warnings(path, caplog)
    assert messages == []
    assert info.frame_count in (FRAMES, FRAMES + 1)  # sound may start earlier
    # A transport stream cut between two frames shows nothing of it.
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2 + 100])
    try:
        info, messages = warnings(path, caplog)
        assert len(messages) == 1 and info.frame_count < FRAMES, messages
    except InputError as error:
        assert path.name in str(error)


def test_a_clock_of_33_bits_that_wraps_goes_on(tmp_path, caplog):
    start = int(2**33 / 90000) - 1
    path = render(tmp_path / "video.ts", video_start=start)
    info, messages = warnings(path, caplog)
    assert (info.frame_count, info.lead_frames, messages) == (FRAMES, 0, [])
    assert numbers(read_frames(path, range(FRAMES), info=info)) == list(
        range(FRAMES))


def test_streams_that_start_years_apart_are_refused(tmp_path):
    path = render(tmp_path / "video.mkv", video_start=2**20, sound_start=0,
                  frames=5)
    with pytest.raises(InputError, match="video.mkv: its time stamps are "
                       "wrong: the video starts 1048576 s after the sound"):
        probe_video(path)


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_a_live_stream_has_the_same_clock(suffix, tmp_path):
    path = render(tmp_path / f"video.{suffix}", video_start=3602,
                  sound_start=3600)
    config = quick.get_config()
    config.augment.size = 64
    info = probe_video(path)
    expected = list(FrameReader(config).test_samples(Video(
        "a", info, video_grid(info, config.window), ())))
    live = LiveVideo(str(path), config, idle_seconds=0)
    samples = list(live.samples())
    live.close()
    assert live.seconds == pytest.approx(info.duration_seconds)
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.shared
def test_public_cases_of_clocks(shared_dir, tmp_path, caplog):
    folder = shared_dir / "data/public_cases/video"
    for name, frame_count, lead in (
            ("wrap.ts", 200, 0), ("start60.mkv", 200, 0),
            ("late2.mp4", 250, 50), ("late_source.mp4", 200, 0)):
        info, messages = warnings(folder / name, caplog)
        assert (info.frame_count, info.lead_frames, messages) == (
            frame_count, lead, []), name
        assert info.duration_seconds == frame_count / 25
    late = read_frames(folder / "late2.mp4", range(50, 250, 7))
    source = read_frames(folder / "late_source.mp4", range(0, 200, 7))
    assert np.abs(late.astype(int) - source).mean() < 1
    for name in ("wrap.ts", "start60.mkv"):
        content = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[:len(content) // 2])
    _, messages = warnings(tmp_path / "wrap.ts", caplog)
    assert len(messages) == 1 and "ends inside a frame" in messages[0]
    with pytest.raises(InputError, match="start60.mkv: the file is cut off. "
                       "Its header promises 8.0 s and it ends after 3"):
        probe_video(tmp_path / "start60.mkv")
