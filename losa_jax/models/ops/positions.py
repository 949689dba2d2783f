"""Position tables of transformers, and their resizing."""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32


@functools.lru_cache(maxsize=8)
def sincos_table(times: int, rows: int, columns: int, width: int
                 ) -> Float32[np.ndarray, "{times} {rows} {columns} {width}"]:
    """Returns VideoMAE's fixed table of positions.

    Position p counts tokens in time, row, column order; channel j has the sine
    (j even) or cosine (j odd) of p / 10000^(2 floor(j / 2) / width).
    """
    position = np.arange(times * rows * columns)[:, None]
    channel = np.arange(width)[None, :]
    angle = position / np.power(10000.0, 2 * (channel // 2) / width)
    table = np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))
    return table.reshape(times, rows, columns, width).astype(np.float32)


def resize_grid(table: Float[Array, "u h w c"], grid: tuple[int, int]
                ) -> Float[Array, "u {grid[0]} {grid[1]} c"]:
    """Returns the table for another number of rows and columns.

    Bicubic with a = -0.75, half-pixel centers, repeated edges and no
    anti-aliasing, as in AdaTAD.
    """
    if table.shape[1:3] == tuple(grid):
        return table
    rows = jnp.asarray(bicubic_matrix(table.shape[1], grid[0]))
    columns = jnp.asarray(bicubic_matrix(table.shape[2], grid[1]))
    return jnp.einsum("uhwc,gh,fw->ugfc", table, rows, columns)


def bicubic_matrix(old: int, new: int) -> Float32[np.ndarray, "{new} {old}"]:
    """Returns bicubic interpolation as a matrix."""
    a = -0.75  # as in PyTorch
    matrix = np.zeros((new, old))
    for i in range(new):
        center = (i + 0.5) * old / new - 0.5
        base = int(np.floor(center))
        for tap in range(base - 1, base + 3):
            distance = abs(center - tap)
            if distance <= 1:
                weight = ((a + 2) * distance - (a + 3)) * distance ** 2 + 1
            else:
                weight = a * (((distance - 5) * distance + 8) * distance - 4)
            matrix[i, min(max(tap, 0), old - 1)] += weight
    return matrix.astype(np.float32)
