"""RandAugment's operations, each against Pillow or numbers by hand."""

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from losa_jax.data.windows.random_operations import (
    OPERATIONS,
    random_operations,
)

SIZE = 50


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(SIZE), 2 * np.arange(SIZE))[..., None]
    return (smooth + rng.integers(1, 108, (SIZE, SIZE, 3))).astype(np.uint8)


def _both_signs(name, frame):
    """Returns the two different results that an operation has."""
    results = {}
    for seed in range(20):
        result = OPERATIONS[name](np.random.default_rng(seed), SIZE)(frame)
        results[result.tobytes()] = result
    assert len(results) == 2
    return list(results.values())


@pytest.mark.parametrize("name, pillow, tolerance", [
    ("posterize", lambda p: ImageOps.posterize(p, 3), 0),
    ("solarize", lambda p: ImageOps.solarize(p, 230), 0),
    ("invert", ImageOps.invert, 0),
    ("brightness", lambda p: ImageEnhance.Brightness(p).enhance(1.72), 1),
    ("contrast", lambda p: ImageEnhance.Contrast(p).enhance(1.72), 2),
    ("saturation", lambda p: ImageEnhance.Color(p).enhance(1.72), 2),
    ("sharpness", lambda p: ImageEnhance.Sharpness(p).enhance(1.72), 2),
    ("auto_contrast", ImageOps.autocontrast, 1),
])
def test_colors_as_pillow_has_them(frame, name, pillow, tolerance):
    frame[:2] = 255  # some levels that are solarized
    want = np.asarray(pillow(Image.fromarray(frame))).astype(int)
    got = OPERATIONS[name](np.random.default_rng(0), SIZE)(frame).astype(int)
    assert (got != frame).any() and got.min() >= 0
    # Pillow does not filter the outermost pixels.
    edge = int(name == "sharpness")
    inside = np.s_[edge:SIZE - edge, edge:SIZE - edge]
    assert np.abs(got - want)[inside].max() <= tolerance


def test_equalize_as_pillow_has_it(frame):
    # Pillow's steps are a whole number of pixels, here 245 and not 245.1.
    frame = np.tile(frame, (5, 5, 1))
    want = np.asarray(ImageOps.equalize(Image.fromarray(frame))).astype(int)
    got = OPERATIONS["equalize"](np.random.default_rng(0), 250)(frame)
    assert np.abs(got - want).max() <= 3


def test_a_channel_of_one_level_is_not_stretched(frame):
    frame[..., 1] = 77
    got = OPERATIONS["auto_contrast"](np.random.default_rng(0), SIZE)(frame)
    assert (got[..., 1] == 77).all()
    assert [(got[..., i].min(), got[..., i].max()) for i in (0, 2)] == 2 * [
        (0, 255)]


@pytest.mark.parametrize("name, axis", [("shift_x", 1), ("shift_y", 0)])
def test_shifts_are_of_9_in_50_pixels_and_leave_black(frame, name, axis):
    results = _both_signs(name, frame)
    for want in (np.roll(frame, 9, axis), np.roll(frame, -9, axis)):
        rows = np.moveaxis(want, axis, 0)
        if (want == np.roll(frame, 9, axis)).all():
            rows[:9] = 0
        else:
            rows[-9:] = 0
        assert any(np.array_equal(want, result) for result in results)


@pytest.mark.parametrize("name, matrix", [
    ("shear_x", lambda sign: (1, sign * math.tan(math.radians(15.47)), 0, 1)),
    ("shear_y", lambda sign: (1, 0, sign * math.tan(math.radians(15.47)), 1)),
    ("rotate", lambda sign: (
        math.cos(math.radians(27)), -sign * math.sin(math.radians(27)),
        sign * math.sin(math.radians(27)), math.cos(math.radians(27)))),
])
def test_affine_maps_as_pillow_has_them(frame, name, matrix):
    frame = np.asarray(Image.fromarray(frame).filter(
        ImageFilter.GaussianBlur(3)))
    results = _both_signs(name, frame)
    for sign in (1, -1):
        a, b, c, d = matrix(sign)
        # About the center of the frame, 25 in Pillow's continuous axes.
        e, f = 25 - a * 25 - b * 25, 25 - c * 25 - d * 25
        want = np.asarray(Image.fromarray(frame).transform(
            (SIZE, SIZE), Image.Transform.AFFINE, (a, b, e, c, d, f),
            Image.Resampling.BILINEAR)).astype(int)
        result = min(results, key=lambda one: np.abs(one - want).sum())
        assert np.abs(result - want)[10:40, 10:40].max() <= 2
        # At the border of the black corners they differ by rounding.
        assert (np.abs(result - want) > 2).mean() < 0.05
        assert (want == 0).all(-1).mean() > 0.05


def test_cutout_covers_one_square_anywhere(frame):
    areas, centers = [], []
    for seed in range(300):
        before = frame.copy()
        got = OPERATIONS["cutout"](np.random.default_rng(seed), SIZE)(frame)
        np.testing.assert_array_equal(frame, before)
        changed = (got != frame).any(-1)
        assert (got[changed] == 128).all()
        rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        # 0.18 x 50 = 9 pixels, less at the frame's edges.
        assert height <= 10 and width <= 10
        areas.append(height * width)
        centers.append((rows.mean(), columns.mean()))
    assert np.median(areas) == 81
    assert (np.ptp(centers, axis=0) > 40).all()


def test_two_different_of_fifteen_are_drawn_equally_often(frame, monkeypatch):
    assert len(OPERATIONS) == 15
    for name in list(OPERATIONS):
        monkeypatch.setitem(OPERATIONS, name,
                            lambda rng, size, name=name: name)
    rng = np.random.default_rng(0)
    pairs = [tuple(random_operations(rng, 2, SIZE)) for _ in range(3000)]
    order = list(OPERATIONS)
    assert all(order.index(first) < order.index(second)
               for first, second in pairs)
    counts = [sum(name in pair for pair in pairs) for name in order]
    assert min(counts) > 330 and max(counts) < 470  # 400 each on average
    assert random_operations(rng, 0, SIZE) == []
    assert random_operations(rng, 15, SIZE) == order


def test_the_seed_decides(frame):
    def shown(seed):
        out = frame
        for operation in random_operations(np.random.default_rng(seed), 2,
                                           SIZE):
            out = operation(out)
        assert out.shape == frame.shape and out.dtype == np.uint8
        return out.tobytes()

    assert shown(3) == shown(3)
    assert len({shown(seed) for seed in range(60)}) > 40
