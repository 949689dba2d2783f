"""Resampling along time against numpy."""

import jax.numpy as jnp
import numpy as np

from losa_jax.models.ops.resample import resize_time


def test_area_resampling_by_hand():
    x = jnp.asarray([[[1.0], [3.0], [5.0], [8.0]]])
    shorter = resize_time(x, 2, "area")[0, :, 0]
    np.testing.assert_allclose(shorter, [2.0, 6.5])
    longer = resize_time(x, 8, "area")[0, :, 0]
    np.testing.assert_allclose(longer, [1, 1, 3, 3, 5, 5, 8, 8])
    # 4 into 3: cells share the tokens at their borders.
    uneven = resize_time(x, 3, "area")[0, :, 0]
    np.testing.assert_allclose(uneven, [2.0, 4.0, 6.5])


def test_resize_time_matches_numpy_interpolation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 3)).astype(np.float32)
    for length in (3, 7, 14, 20):
        got = resize_time(jnp.asarray(x), length)
        at = (np.arange(length) + 0.5) * 7 / length - 0.5
        for b in range(2):
            for c in range(3):
                want = np.interp(at, np.arange(7), x[b, :, c])
                np.testing.assert_allclose(got[b, :, c], want, atol=1e-5)
