"""Crops of stored planes against crops of RGB."""

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from losa_jax.data.video.frame import DecodedFrame, is_planar, upright_rgb


def _pixels(height=48, width=64):
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (4, 5, 3)).astype(np.uint8),
                      (width, height), interpolation=cv2.INTER_CUBIC)


def _frame(pixel_format, height=48, width=64):
    frame = VideoFrame.from_ndarray(_pixels(height, width), "rgb24")
    return frame.reformat(format=pixel_format)


def _error(got, want):
    return np.abs(got.astype(int) - want).mean()


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuvj444p"])
@pytest.mark.parametrize("colors", [
    (Colorspace.ITU601, ColorRange.MPEG), (Colorspace.ITU709, ColorRange.MPEG),
    (Colorspace.ITU709, ColorRange.JPEG), (2, ColorRange.UNSPECIFIED)])
def test_colors_are_those_of_ffmpeg(pixel_format, colors):
    frame = _frame(pixel_format)
    frame.colorspace, frame.color_range = colors
    assert is_planar(frame)
    decoded, rgb = DecodedFrame(frame), upright_rgb(frame, 48, 64)
    np.testing.assert_array_equal(decoded.rgb(), rgb)
    np.testing.assert_allclose(decoded.crop(6, 10, 30, 30, 30).astype(int),
                               rgb[6:36, 10:40], atol=1)
    for box in ((0, 0, 48, 64, 32), (8, 20, 22, 34, 40), (0, 0, 48, 64, 20)):
        np.testing.assert_allclose(decoded.crop(*box).astype(int),
                                   DecodedFrame(rgb).crop(*box), atol=4)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuvj420p"])
def test_a_crop_of_planes_is_nearer_to_the_truth_than_one_of_rgb(pixel_format):
    frame = _frame(pixel_format)
    decoded, rgb = DecodedFrame(frame), upright_rgb(frame, 48, 64)
    for box in ((0, 0, 48, 64), (8, 20, 22, 34), (2, 0, 40, 40)):
        want = DecodedFrame(_pixels()).crop(*box, 40)
        got = decoded.crop(*box, 40)
        from_rgb = DecodedFrame(rgb).crop(*box, 40)
        assert _error(got, want) < min(2, _error(from_rgb, want))
        np.testing.assert_array_equal(decoded.copy().crop(*box, 40), got)


def test_a_copy_does_not_change_with_its_source():
    frame = _frame("yuv420p")
    copy = DecodedFrame(frame).copy()
    before = copy.rgb().copy()
    for plane in frame.planes:
        np.frombuffer(plane, np.uint8)[:] = 0
    np.testing.assert_array_equal(copy.rgb(), before)
    assert (DecodedFrame(frame).rgb() != before).any()


def test_odd_sizes_keep_the_last_row_and_column():
    """An even frame without its last row and column, as players crop it."""
    frame = VideoFrame(63, 47, "yuv420p")
    for plane, source in zip(frame.planes, _frame("yuv420p").planes,
                             strict=True):
        stored = np.frombuffer(source, np.uint8).reshape(source.height, -1)
        target = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
        target[:, :plane.width] = stored[:plane.height, :plane.width]
    decoded = DecodedFrame(frame)
    assert decoded.rgb().shape == (47, 63, 3)
    np.testing.assert_array_equal(decoded.copy().rgb(), decoded.rgb())
    for box in ((2, 2, 44, 60, 44), (0, 0, 46, 62, 70)):
        assert _error(decoded.crop(*box),
                      DecodedFrame(_pixels()[:47, :63]).crop(*box)) < 2


def test_other_formats_are_turned_into_rgb_first():
    for name in ("nv12", "yuv420p10le", "gray", "gbrp", "yuv411p"):
        assert not is_planar(_frame(name))
    frame = _frame("yuv420p")
    frame.colorspace = Colorspace.BT2020
    assert not is_planar(frame)
