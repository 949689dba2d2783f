"""Resampling along time against numpy."""

import jax.numpy as jnp
import numpy as np

from losa_jax.models.ops.resample import pool_grid, resize_time


def test_pooling_by_hand():
    x = jnp.asarray([1.0, 3.0, 5.0, 8.0]).reshape(1, 1, 4, 1, 1)
    even = pool_grid(x, (2, 1)).ravel()
    np.testing.assert_allclose(even, [2.0, 6.5])
    # 4 into 3: cells share the rows at their borders.
    uneven = pool_grid(x, (3, 1)).ravel()
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
