"""RandAugment's operations, each against its definition."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from losa_jax.data.windows.random_operations import (
    OPERATIONS,
    random_operations,
)
from losa_jax.errors import InputError

SIZE = 32


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(SIZE), 2 * np.arange(SIZE))[..., None]
    return (smooth + rng.integers(20, 90, (SIZE, SIZE, 3))).astype(np.uint8)


def _made(name, frame, strength=0.9, sign=1.0):
    return OPERATIONS[name](sign * strength, SIZE)(frame)


@pytest.mark.parametrize("name, sign, pillow", [
    ("brightness", -1, lambda p: ImageEnhance.Brightness(p).enhance(0.19)),
    ("contrast", -1, lambda p: ImageEnhance.Contrast(p).enhance(0.19)),
    ("contrast", 1, lambda p: ImageEnhance.Contrast(p).enhance(1.81)),
    ("saturation", -1, lambda p: ImageEnhance.Color(p).enhance(0.19)),
    ("solarize", 1, lambda p: ImageOps.solarize(p, 26)),
    ("posterize", 1, lambda p: ImageOps.posterize(p, 4)),
    ("equalize", 1, ImageOps.equalize),
    ("auto_contrast", 1, ImageOps.autocontrast),
])
def test_colors_as_pillow_has_them(frame, name, sign, pillow):
    want = np.asarray(pillow(Image.fromarray(frame))).astype(int)
    got = _made(name, frame, sign=sign).astype(int)
    assert np.abs(got - want).max() <= (6 if name == "equalize" else 2)


def test_moves_have_a_sign_and_fill_with_gray(frame):
    for name in ("shift_x", "shift_y", "shear_x", "shear_y", "rotate"):
        ahead, back = (_made(name, frame, sign=sign) for sign in (1, -1))
        assert (ahead != back).mean() > 0.3
        assert (ahead == 128).all(-1).any() and (back == 128).all(-1).any()
    # 0.45 x 10/9 x 0.9 x 32 pixels to the right are whole pixels.
    moved = _made("shift_x", frame, strength=0.25 / 0.45)
    np.testing.assert_array_equal(moved[:, 8:], frame[:, :-8])


def test_draws_are_uniform_signed_and_repeatable(frame):
    def shown(seed, count=2):
        out = frame
        for operation in random_operations(np.random.default_rng(seed),
                                           count, 9.0, SIZE):
            out = operation(out)
        assert out.shape == frame.shape and out.dtype == np.uint8
        return out.tobytes()

    assert shown(3) == shown(3)
    assert len({shown(seed) for seed in range(60)}) > 40
    assert shown(0, count=0) == frame.tobytes()
    with pytest.raises(InputError, match="operation_magnitude=11"):
        random_operations(np.random.default_rng(0), 1, 11, SIZE)
    with pytest.raises(InputError, match="random_operations=-1"):
        random_operations(np.random.default_rng(0), -1, 9, SIZE)
