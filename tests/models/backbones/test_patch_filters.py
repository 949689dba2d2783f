"""Cosine filters against their definition."""

import numpy as np
import pytest

from losa_jax.models.backbones.patch_filters import cosine_filters


@pytest.mark.parametrize("tubelet, patch, width", [(2, 16, 96), (4, 8, 50)])
def test_filters_are_orthonormal(tubelet, patch, width):
    filters = cosine_filters(tubelet, patch, width)
    assert filters.shape == (tubelet, patch, patch, 3, width)
    flat = filters.reshape(-1, width).astype(np.float64)
    np.testing.assert_allclose(flat.T @ flat, np.eye(width), atol=1e-6)


def test_first_filters_are_mean_and_change():
    mean, change = np.moveaxis(cosine_filters(2, 4, 16), -1, 0)[:2]
    still = np.ones((2, 4, 4, 3))
    brighter = still * np.array([-1, 1])[:, None, None, None]
    size = np.sqrt(2 * 4 * 4 * 3)
    for filter_, picture in ((mean, still), (change, brighter)):
        assert abs(np.sum(filter_ * picture)) == pytest.approx(size, rel=1e-6)
    assert np.sum(mean * brighter) == pytest.approx(0, abs=1e-6)
    assert np.sum(change * still) == pytest.approx(0, abs=1e-6)


def test_an_eighth_sees_color_and_not_brightness():
    filters = cosine_filters(2, 8, 64)
    over_color = np.abs(filters.sum(axis=3)).max(axis=(0, 1, 2))
    assert list(over_color > 1e-6) == [True] * 56 + [False] * 8


def test_a_small_patch_gives_what_it_has():
    # 2 frames x 4 pixels of brightness, and 2 x 3 colored ones.
    assert cosine_filters(2, 2, 48).shape[-1] == 8 + 6
