"""A block's output as the adapters read it."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from losa_jax.models.ops.layers import standardize
from losa_jax.models.ops.resample import pool_matrix


def shape_tap(x: Float[Array, "n u h w c"], grid: tuple[int, int] | None,
              norm: bool, epsilon: float) -> Float[Array, "n u g1 g2 c"]:
    """Returns a block's output, standardized and pooled to `grid` if asked."""
    y = standardize(x, epsilon).astype(x.dtype) if norm else x
    return y if grid is None else pool_grid(y, grid)


def pool_grid(x: Float[Array, "n u h w c"], grid: tuple[int, int]
              ) -> Float[Array, "n u g1 g2 c"]:
    """Returns the average of the patches in each cell of a coarser grid."""
    n, u, h, w, c = x.shape
    if h % grid[0] == 0 and w % grid[1] == 0:
        cells = x.reshape(n * u, grid[0], h // grid[0], grid[1],
                          w // grid[1], c)
        mean = cells.mean(axis=(2, 4), dtype=jnp.float32)
        return mean.astype(x.dtype).reshape(n, u, *grid, c)
    rows, columns = (jnp.asarray(pool_matrix(*sizes), x.dtype)
                     for sizes in ((h, grid[0]), (w, grid[1])))
    pooled = jnp.einsum("nuhwc,gh,fw->nugfc", x, rows, columns,
                        preferred_element_type=jnp.float32)
    return pooled.astype(x.dtype)
