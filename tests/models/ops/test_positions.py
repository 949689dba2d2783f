"""Position tables of another size."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.models.ops.positions import resize_grid


@pytest.mark.parametrize("grid", [(3, 7), (8, 2)])
def test_rows_and_columns_are_resized_as_opencv_does(grid):
    """OpenCV's bicubic has the same a = -0.75 and repeats the edges too."""
    table = np.random.default_rng(0).normal(size=(2, 4, 5, 3)).astype(
        np.float32)
    expected = [cv2.resize(part, grid[::-1], interpolation=cv2.INTER_CUBIC)
                for part in table]
    np.testing.assert_allclose(resize_grid(jnp.asarray(table), grid), expected,
                               atol=1e-5)


def test_a_table_of_the_right_size_stays_as_it_is():
    table = jnp.ones((1, 2, 3, 4))
    assert resize_grid(table, (2, 3)) is table
