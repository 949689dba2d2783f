"""A stream without an end gives the samples of the file."""

import io
import socket
import sys
import threading
import types

import av
import numpy as np
import pytest

from configs import quick
from losa_jax.data.records import Video
from losa_jax.data.synthetic import data_set
from losa_jax.data.video.probe import probe_video
from losa_jax.data.windows import live
from losa_jax.data.windows.live import GrowingFile, LiveVideo
from losa_jax.data.windows.readers import FrameReader
from losa_jax.data.windows.sampling import video_grid
from losa_jax.errors import InputError


@pytest.fixture(scope="module")
def config():
    config = quick.get_config()
    config.augment.size = 16
    return config


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    """Its index is at the end."""
    folder = data_set.render_trimmed_set(
        tmp_path_factory.mktemp("live") / "set", num_training=1,
        num_testing=0, size=32)
    return next((folder / "videos").glob("*.mp4"))


@pytest.fixture(scope="module")
def path(mp4):
    """The same in a container that is written front to back."""
    path = mp4.with_suffix(".ts")
    with av.open(str(mp4)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return path


def _expected(path, config):
    info = probe_video(path)
    return list(FrameReader(config).test_samples(Video(
        "a", info, video_grid(info, config.window), ())))


def _samples(source, config, **settings):
    video = LiveVideo(str(source), config, **settings)
    try:
        return list(video.samples()), video
    finally:
        video.close()


@pytest.mark.parametrize("rate", [10.0, 7.0, 60.0])
def test_samples_of_a_whole_file(path, config, rate):
    config = config.copy_and_resolve_references()
    config.window.sample_fps = rate
    samples, video = _samples(path, config, idle_seconds=0)
    np.testing.assert_array_equal(samples, _expected(path, config))
    assert video.seconds == pytest.approx(
        probe_video(path).duration_seconds)


@pytest.mark.shared
@pytest.mark.parametrize("name", [
    "variable_frame_rate.mp4", "bframes_start_offset.mp4", "vp9.webm",
    "portrait_rotated.mp4", "one_frame.mp4"])
def test_samples_of_odd_files(shared_dir, config, name):
    path = shared_dir / "data/odd_videos" / name
    samples, _ = _samples(path, config, idle_seconds=0)
    expected = _expected(path, config)
    if name == "variable_frame_rate.mp4":
        # The last frame's end is not known to a stream.
        samples = samples[:len(expected)]
        expected = expected[:len(samples)]
        assert len(samples) > 50
    np.testing.assert_array_equal(samples, expected)


def test_standard_input(path, config, monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(
        buffer=io.BytesIO(path.read_bytes())))
    samples, _ = _samples("-", config)
    np.testing.assert_array_equal(samples, _expected(path, config))


def test_a_file_that_grows(path, config, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "_LOOK_SECONDS", 0.01)
    growing, content = tmp_path / "growing.ts", path.read_bytes()
    growing.write_bytes(content[:len(content) // 3])

    def write():
        with open(growing, "ab") as file:
            for part in (slice(len(content) // 3, len(content) // 2),
                         slice(len(content) // 2, None)):
                threading.Event().wait(0.1)
                file.write(content[part])
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    samples, _ = _samples(growing, config, idle_seconds=0.7)
    writer.join()
    np.testing.assert_array_equal(samples, _expected(path, config))


def _when_listening(config, source, send):
    """Samples of an address, sent to by a thread as soon as it is open."""
    sender = threading.Thread(target=send)
    sender.start()
    try:
        return _samples(source, config, idle_seconds=0.4)[0]
    finally:
        sender.join()


def test_an_address(path, config):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def send():
            connection, _ = server.accept()
            with connection:
                connection.sendall(path.read_bytes())

        samples = _when_listening(
            config, f"tcp://127.0.0.1:{server.getsockname()[1]}", send)
    np.testing.assert_array_equal(samples, _expected(path, config))


def test_datagrams_end_with_silence(path, config):
    """They have no sign for the end, and the decoder may wait for more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()

    def send():
        threading.Event().wait(0.3)
        content = path.read_bytes()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for start in range(0, len(content), 1316):
                sender.sendto(content[start:start + 1316], address)
                threading.Event().wait(0.001)

    samples = _when_listening(config, f"udp://127.0.0.1:{address[1]}", send)
    expected = _expected(path, config)
    assert len(expected) - 3 <= len(samples) <= len(expected)
    np.testing.assert_array_equal(samples[:-1], expected[:len(samples) - 1])


def test_an_address_that_stays_silent(config, monkeypatch):
    monkeypatch.setattr(live, "_OPENING_SECONDS", 0.2)
    with (socket.create_server(("127.0.0.1", 0)) as server,
          pytest.raises(InputError, match="nothing came.*--idle_seconds")):
        _samples(f"tcp://127.0.0.1:{server.getsockname()[1]}", config,
                 idle_seconds=0.2)


def test_a_container_that_needs_seeking_is_refused(mp4, config, tmp_path):
    # Longer than what is read at once.
    path = tmp_path / "long.mp4"
    content = mp4.read_bytes()
    free = (2 ** 18).to_bytes(4, "big") + b"free" + bytes(2 ** 18 - 8)
    index = content.index(b"moov") - 4
    path.write_bytes(content[:index] + free + content[index:])
    assert len(_expected(path, config)) > 5
    with pytest.raises(InputError, match="read from front to back"):
        _samples(path, config, idle_seconds=0)


def test_a_file_is_at_its_end_after_a_while(tmp_path, monkeypatch):
    path, slept = tmp_path / "a", []
    path.write_bytes(b"abc")
    monkeypatch.setattr(live.time, "sleep", slept.append)
    file = GrowingFile(path, 1.0)
    assert file.read(2) == b"ab" and file.read(2) == b"c" and not slept
    assert file.read(2) == b"" and sum(slept) == pytest.approx(1.0)
    file.close()


@pytest.mark.parametrize("source, message", [
    ("nowhere.mp4", "no such file"), ("{folder}", "is a folder: name one"),
    ("{folder}/link.mp4", "is a link to /nowhere/a.mp4"),
    ("{text}", "cannot be read as it comes"),
    ("tcp://127.0.0.1:1", "cannot be read as it comes")])
def test_unreadable_sources_are_refused(source, message, config, tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    (tmp_path / "link.mp4").symlink_to("/nowhere/a.mp4")
    with pytest.raises(InputError, match=message):
        LiveVideo(source.format(text=text, folder=tmp_path), config,
                  idle_seconds=0)


def test_a_live_video_cannot_be_resized_to_one_window(config, path):
    config = config.copy_and_resolve_references()
    config.window.sampling = "resize"
    with pytest.raises(InputError, match="resize"):
        LiveVideo(str(path), config)
