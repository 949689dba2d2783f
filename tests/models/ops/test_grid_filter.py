"""The grid filter and its custom gradient against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.models.ops.conv import filter_grid


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (4, 4), (4, 5)])
def test_filter_of_a_grid_and_its_gradients_by_loops(grid):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel, weights = (
            jnp.asarray(rng.normal(size=shape))
            for shape in [(2, 2, *grid, 3), (3, 3, 3), (2, 2, *grid, 3)])
        got = filter_grid(x, kernel)
        gradients = jax.grad(
            lambda x, kernel: (filter_grid(x, kernel) * weights).sum(),
            argnums=(0, 1))(x, kernel)
        want, to_x, to_kernel = (np.zeros(array.shape)
                                 for array in (x, x, kernel))
        for h, w, i, j in np.ndindex(*grid, 3, 3):
            row, column = h + i - 1, w + j - 1
            if 0 <= row < grid[0] and 0 <= column < grid[1]:
                seen, from_here = x[:, :, row, column], weights[:, :, h, w]
                want[:, :, h, w] += seen * kernel[i, j]
                to_x[:, :, row, column] += from_here * kernel[i, j]
                to_kernel[i, j] += (seen * from_here).sum((0, 1))
        np.testing.assert_allclose(got, want, atol=1e-12)
        np.testing.assert_allclose(gradients[0], to_x, atol=1e-12)
        np.testing.assert_allclose(gradients[1], to_kernel, atol=1e-12)
