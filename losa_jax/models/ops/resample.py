"""Resampling along time, and pooling of patches."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from losa_jax.models.ops.layers import standardize


def resize_time(x: Float[Array, "b t c"], length: int
                ) -> Float[Array, "b {length} c"]:
    """Returns features interpolated linearly along time.

    Half-pixel centers and repeated ends, as in PyTorch's
    `interpolate(mode="linear", align_corners=False)`, which AdaTAD uses.
    """
    old = x.shape[1]
    if old == length:
        return x
    center = (np.arange(length) + 0.5) * old / length - 0.5
    center = np.clip(center, 0, old - 1)
    left = np.floor(center).astype(int)
    right = np.minimum(left + 1, old - 1)
    share = jnp.asarray(center - left, x.dtype)[None, :, None]
    return x[:, left] * (1 - share) + x[:, right] * share


def shape_tap(x: Float[Array, "n u h w c"], grid: tuple[int, int] | None,
              norm: bool, epsilon: float) -> Float[Array, "n u g1 g2 c"]:
    """Returns a block's output, standardized and pooled to `grid` if asked."""
    y = standardize(x, epsilon).astype(x.dtype) if norm else x
    return y if grid is None else pool_grid(y, grid)


def pool_grid(x: Float[Array, "n u h w c"], grid: tuple[int, int]
              ) -> Float[Array, "n u {grid[0]} {grid[1]} c"]:
    """Returns the average of the patches in each cell of a coarser grid."""
    n, u, h, w, c = x.shape
    if h % grid[0] == 0 and w % grid[1] == 0:
        cells = x.reshape(n * u, grid[0], h // grid[0], grid[1],
                          w // grid[1], c)
        mean = cells.mean(axis=(2, 4), dtype=jnp.float32)
        return mean.astype(x.dtype).reshape(n, u, *grid, c)
    rows, columns = (jnp.asarray(_pool_matrix(*sizes), x.dtype)
                     for sizes in ((h, grid[0]), (w, grid[1])))
    pooled = jnp.einsum("nuhwc,gh,fw->nugfc", x, rows, columns,
                        preferred_element_type=jnp.float32)
    return pooled.astype(x.dtype)


def _pool_matrix(size: int, cells: int) -> Float[np.ndarray, "{cells} {size}"]:
    """Returns the weights of adaptive average pooling.

    Cell i of g covers floor(i n / g) to ceil((i + 1) n / g) of n.
    """
    matrix = np.zeros((cells, size), np.float32)
    for cell in range(cells):
        first, last = cell * size // cells, -(-(cell + 1) * size // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return matrix
