"""A frame that is read alone is the frame that is read among all."""

import dataclasses
import os
import pathlib

import av
import numpy as np
import pytest
from av.error import FFmpegError

from losa_jax.data.video.decode import iterate_frames
from losa_jax.data.video.probe import probe_video
from losa_jax.errors import InputError
from tests.data.painted import frame_of, number_of

FRAMES = 40
FORMATS = {"avi": "avi", "mov": "mov", "matroska": "mkv", "nut": "nut",
           "mpegts": "ts", "mpeg": "mpg", "flv": "flv", "asf": "wmv",
           "mxf": "mxf", "rm": "rm", "mpeg1video": "m1v", "h264": "h264",
           "hevc": "hevc", "ivf": "ivf", "gif": "gif", "swf": "swf"}
OPTIONS = {"libx264": {"preset": "ultrafast"},
           "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
           "libvpx": {"deadline": "realtime", "cpu-used": "8"},
           "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
           "libsvtav1": {"preset": "13"}}
# They need hardware, or write no video.
LEFT_OUT = ("nvenc", "v4l2", "qsv", "vaapi", "amf", "vulkan", "videotoolbox",
            "_mf", "vnull", "wrapped_avframe")
PALETTE = np.array([[255, 90, 60, 90], [255, 255, 255, 255], [255, 0, 250, 0],
                    [255, 255, 255, 255]] + [[0] * 4] * 252, np.uint8)


@pytest.fixture(autouse=True)
def usual_priority():
    """SVT-AV1, as root, makes the calling thread a real-time one and leaves it
    so: all that this process starts later would run before everything else.
    """
    yield
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _codecs():
    names = []
    for name in sorted(av.codecs_available):
        if not any(part in name for part in LEFT_OUT):
            try:
                if av.Codec(name, "w").type == "video":
                    names.append(av.Codec(name, "w").name)
            except ValueError:
                continue
    return sorted(set(names))


def _render(path, layout, codec, pixels):
    with av.open(str(path), "w", format=layout) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = ((144, 176) if codec.startswith("h26")
                                       else (64, 160))
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = 10
        stream.codec_context.options = OPTIONS.get(codec, {})
        for number in range(FRAMES):
            image = np.full((stream.height, stream.width, 3), 90, np.uint8)
            image[:64, :160] = frame_of(number)
            if pixels == "pal8":
                indices = (image[..., 0] > 128) + 2 * (image[..., 1] > 128)
                frame = av.VideoFrame.from_ndarray(
                    (indices.astype(np.uint8), PALETTE), format="pal8")
            else:
                frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(
                    format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _require_same_frames(path, step):
    """A frame that is read alone is that of the whole video."""
    info = probe_video(path)
    wanted = range(0, info.frame_count, step)
    whole = [frame.rgb() for frame in iterate_frames(
        path, wanted, dataclasses.replace(info, is_seekable=False))]
    for index, expected in zip(wanted, whole, strict=True):
        frame, = iterate_frames(path, [index], info)
        np.testing.assert_array_equal(frame.rgb(), expected,
                                      f"{path.name}, frame {index}")
    return whole


@pytest.mark.parametrize("layout", ["avi", "mov"])
def test_a_palette_is_there_after_a_seek(layout, tmp_path):
    path = tmp_path / f"video.{layout}"
    _render(path, layout, "rawvideo", "pal8")
    frames = _require_same_frames(path, 3)
    assert [number_of(frame) for frame in frames] == [*range(0, FRAMES, 3)]


@pytest.mark.shared
def test_the_palette_of_a_public_case_is_there_after_a_seek(shared_dir):
    frames = _require_same_frames(
        shared_dir / "data/public_cases/video/pal8.avi", 9)
    means = [frame.mean() for frame in frames]
    # Brightness is the number of the frame.
    assert len(frames) == 12 and np.ptp(means) > 10, means


@pytest.mark.slow
@pytest.mark.parametrize("codec", _codecs())
def test_a_seek_changes_no_frame(codec, tmp_path):
    """Every codec that can be encoded here, in every container."""
    known = [one.name for one in av.Codec(codec, "w").video_formats or ()]
    pixels = [name for name in known if name == "pal8"] + [
        name for name in known if name != "pal8"][:1] or ["yuv420p"]
    for layout, suffix in FORMATS.items():
        for pixel_format in pixels:
            path = pathlib.Path(tmp_path / f"{pixel_format}.{suffix}")
            try:
                _render(path, layout, codec, pixel_format)
                probe_video(path)
            except (FFmpegError, InputError, ValueError):
                continue  # no such pair
            _require_same_frames(path, 3)
