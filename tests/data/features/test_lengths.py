"""Lengths of features: of copies with another rate, and resizing."""

import numpy as np
import pytest

from losa_jax.data.features.files import (
    FeatureFiles,
    resize_by_averaging,
    resize_linearly,
)
from losa_jax.data.records import AnnotatedVideo
from losa_jax.errors import InputError
from tests.data.reading import feature_settings


@pytest.mark.parametrize("annotated, made", [(30, 25), (59.94, 50), (30, 30)])
def test_features_of_copies_with_another_rate_are_named(
        tmp_path, annotated, made):
    files = FeatureFiles(feature_settings(tmp_path, 4, 16, 3))
    for number in range(5):
        name, seconds = f"v{number}", 40.0 + number
        count = int((seconds * made - 16) // 4) + 1
        # One file is cut a little differently.
        np.save(tmp_path / f"{name}.npy", np.ones((count - 10 * (number == 3),
                                                   3), np.float32))
        files.info_of(AnnotatedVideo(name, "test", seconds, float(annotated),
                                     ()))
    if annotated == made:
        files.check_rate()
        return
    with pytest.raises(InputError, match="of 5 videos cover .* copies with "
                       f"about {made}: set config.features.fps"):
        files.check_rate()


def test_sparse_features_that_end_a_stride_before_short_videos_are_right(
        tmp_path):
    """One feature of a single frame a second, of the frames 0, 30 ..."""
    files = FeatureFiles(feature_settings(tmp_path, 30, 1, 3))
    for seconds in (3, 8, 9, 10):
        np.save(tmp_path / f"v{seconds}.npy", np.ones((seconds, 3),
                                                      np.float32))
        files.info_of(AnnotatedVideo(f"v{seconds}", "test", float(seconds),
                                     30.0, ()))
    files.check_rate()


@pytest.mark.parametrize("old, new", [(7, 3), (5, 8), (12, 4), (9, 9), (1, 3)])
def test_resizing_by_averages_is_a_loop_after_roi_align(old, new):
    x = np.random.default_rng(0).normal(size=(old, 2))
    count = int(np.ceil(old / new))  # sampling points of a bin
    want = np.zeros((new, 2))
    for i in range(new):
        for k in range(count):
            place = -0.5 + i * old / new + (k + 0.5) * old / new / count
            place = min(max(place, 0), old - 1)
            low = min(int(place), max(old - 2, 0))
            high, share = min(low + 1, old - 1), place - low
            want[i] += (x[low] * (1 - share) + x[high] * share) / count
    np.testing.assert_allclose(resize_by_averaging(x, new), want, atol=1e-12)


def test_resizing_is_numpys_interpolation():
    x = np.random.default_rng(0).normal(size=(7, 2))
    places = np.clip((np.arange(19) + 0.5) * 7 / 19 - 0.5, 0, 6)
    want = np.stack([np.interp(places, np.arange(7), x[:, i])
                     for i in range(2)], 1)
    np.testing.assert_allclose(resize_linearly(x, 19), want)
