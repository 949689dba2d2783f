"""A file is opened once to be probed, in every format."""

import av
import pytest

from losa_jax.data.video.probe import CHECKS, probe_video
from tests.data.painted import render

FRAMES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture
def opened(monkeypatch):
    """The files that were opened, in order."""
    names = []
    real = av.open

    def counted(file, *rest, **options):
        names.append(file)
        return real(file, *rest, **options)

    monkeypatch.setattr(av, "open", counted)
    return names


@pytest.fixture(scope="module", params=[
    ("h264.mp4", "libx264"), ("h264.mkv", "libx264"), ("h264.avi", "libx264"),
    ("h264.ts", "libx264"), ("hevc.mp4", "libx265"), ("hevc.mkv", "libx265"),
    ("vp8.webm", "libvpx"), ("vp9.webm", "libvpx-vp9"),
    ("vp9.mp4", "libvpx-vp9"), ("mpeg4.avi", "mpeg4"), ("mpeg4.mp4", "mpeg4"),
    ("mpeg2.ts", "mpeg2video")], ids=lambda param: param[0])
def sound(request, folder):
    """A sound file of some container and codec."""
    name, codec = request.param
    return render(folder / name, codec=codec, frames=FRAMES)


@pytest.mark.parametrize("check", CHECKS)
def test_an_intact_file_is_opened_once(sound, check, opened):
    info = probe_video(sound, check)
    assert len(opened) == 1
    if check != "none":
        assert info.frame_count == FRAMES


def test_contradicting_packets_need_a_second_opening(folder, opened):
    """Two packets with one time stamp, as no decoder would show them."""
    whole = render(folder / "whole.mkv", frames=FRAMES)
    path = folder / "twice.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        origin = source.streams.video[0]
        stream = target.add_stream_from_template(origin)
        for number, packet in enumerate(source.demux(origin)):
            if packet.size:
                if number == 41:
                    packet.pts -= round(1 / 25 / origin.time_base)
                packet.stream = stream
                target.mux(packet)
    counts = {}
    for check in CHECKS:
        opened.clear()
        info = probe_video(path, check)
        counts[check] = len(opened)
        assert info.frame_count == FRAMES
        assert info.is_timed == (check == "none")
    assert counts == {"none": 1, "ends": 2, "full": 1}
