"""What adapters read of a block's output: standardized, pooled."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from losa_jax.models.ops.layers import standardize
from losa_jax.models.ops.resample import pool_matrix


def shape_tap(x: Float[Array, "n u h w c"], grid: tuple[int, int] | None,
              norm: bool, epsilon: float) -> Float[Array, "n u g1 g2 c"]:
    """A block's output as the adapters read it: standardized, pooled."""
    y = standardize(x, epsilon).astype(x.dtype) if norm else x
    return y if grid is None else pool_grid(y, grid)


def pool_grid(x: Float[Array, "n u h w c"], grid: tuple[int, int]
              ) -> Float[Array, "n u g1 g2 c"]:
    """Average-pool patches to a coarser grid, uneven cells allowed.

    As two small matrix products, see `pool_matrix`; a plain mean where the
    cells are even.
    """
    n, u, h, w, c = x.shape
    if h % grid[0] == 0 and w % grid[1] == 0:
        cells = x.reshape(n * u, grid[0], h // grid[0], grid[1],
                          w // grid[1], c)
        mean = cells.mean(axis=(2, 4), dtype=jnp.float32)
        return mean.astype(x.dtype).reshape(n, u, *grid, c)
    rows = jnp.asarray(pool_matrix(x.shape[2], grid[0]), jnp.float32)
    columns = jnp.asarray(pool_matrix(x.shape[3], grid[1]), jnp.float32)
    pooled = jnp.einsum("nuhwc,gh,fw->nugfc", x, rows.astype(x.dtype),
                        columns.astype(x.dtype),
                        preferred_element_type=jnp.float32)
    return pooled.astype(x.dtype)
