"""Random values are drawn once for all frames; sizes and ranges as asked."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from losa_jax.data.windows import augment
from losa_jax.errors import InputError
from tests.data.reading import views_of_testing


def _settings(**changes):
    values = dict(size=32, test_resize="short_crop", random_crop=True,
                  crop_area=(0.2, 1.0), crop_ratio=(0.75, 1.33),
                  flip_probability=0.5, color_jitter=0.4, hue_jitter=0.1,
                  random_operations=2,
                  per="window")
    return ConfigDict({**values, **changes})


def _frames(count=4, height=48, width=64):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def test_same_parameters_for_all_frames():
    frames = np.repeat(_frames(1), 5, axis=0)
    for seed in range(10):
        view = augment.train_view(frames, np.random.default_rng(seed),
                                  _settings())
        assert view.shape == (5, 32, 32, 3) and view.dtype == np.uint8
        np.testing.assert_array_equal(view, np.repeat(view[:1], 5, axis=0))


def test_same_seed_same_view_other_seed_other_view():
    views = [augment.train_view(_frames(), np.random.default_rng(seed),
                                _settings()) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).mean() > 0.5


def test_test_views():
    frames = np.zeros((2, 48, 96, 3), np.uint8)
    frames[:, :, 24:72] = 200  # exactly the center square
    crop = views_of_testing(frames, 48, "short_crop")
    assert crop.shape == (2, 48, 48, 3) and (crop == 200).all()
    squash = views_of_testing(frames, 48, "squash")
    assert squash.shape == (2, 48, 48, 3)
    assert (squash[:, :, 14:34] == 200).all() and (squash[:, :, :10] == 0
                                                   ).all()
    with pytest.raises(InputError, match="test_resize='fit'"):
        views_of_testing(frames, 48, "fit")


def test_crop_boxes_keep_area_ratio_and_frame():
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, left, height, width = augment.random_resized_crop(
            100, 150, rng, (0.1, 0.6), (0.75, 4 / 3))
        assert 0 <= top <= 100 - height and 0 <= left <= 150 - width
        assert 0.09 < height * width / 15000 < 0.62
        assert 0.72 < width / height < 1.38


def test_flip_alone_mirrors():
    settings = _settings(random_crop=False, color_jitter=0.0,
                         hue_jitter=0.0, random_operations=0,
                         flip_probability=1.0, size=48)
    frames = _frames(width=48)
    view = augment.train_view(frames, np.random.default_rng(0), settings)
    np.testing.assert_array_equal(view, frames[:, :, ::-1])


def test_color_is_brightness_contrast_saturation():
    frames = _frames(3)

    class Draws:
        def uniform(self, low, high, size):
            return np.array([1.2, 0.7, 0.5])

    jitter = augment.ColorJitter(Draws(), 0.5)
    got = np.stack([jitter.apply(frame) for frame in frames])
    # The same by three separate steps in float.
    x = frames.astype(np.float64)
    gray = np.array([0.299, 0.587, 0.114])
    x = 0.5 * x + 0.5 * (x @ gray)[..., None]
    x = 1.2 * x
    means = (1.2 * frames[:, ::4, ::4] @ gray).mean(axis=(1, 2))
    x = 0.7 * x + 0.3 * means[:, None, None, None]
    np.testing.assert_allclose(got, np.clip(x, 0, 255), atol=1.01)
