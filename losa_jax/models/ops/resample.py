"""Resampling along time, and the weights of adaptive average pooling."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def resize_time(x: Float[Array, "b t c"], length: int,
                method: str = "linear") -> Float[Array, "b length c"]:
    """Returns features resampled along time.

    Args:
      x: features.
      length: tokens of the result.
      method: "linear" interpolation with half-pixel centers and repeated
        ends, torch's `interpolate(mode="linear", align_corners=False)`, which
        AdaTAD uses between the backbone's tokens and the head's; or "area",
        adaptive average pooling.
    """
    old = x.shape[1]
    if old == length:
        return x
    if method == "area":
        matrix = jnp.asarray(pool_matrix(old, length), x.dtype)
        return jnp.einsum("btc,lt->blc", x, matrix)
    center = (np.arange(length) + 0.5) * old / length - 0.5
    center = np.clip(center, 0, old - 1)
    left = np.floor(center).astype(int)
    right = np.minimum(left + 1, old - 1)
    share = jnp.asarray(center - left, x.dtype)[None, :, None]
    return x[:, left] * (1 - share) + x[:, right] * share


def pool_matrix(size: int, cells: int) -> np.ndarray:
    """Returns the weights [cells, size] of adaptive average pooling.

    Cell i of g covers floor(i n / g) to ceil((i + 1) n / g) of n.
    """
    matrix = np.zeros((cells, size), np.float32)
    for cell in range(cells):
        first, last = cell * size // cells, -(-(cell + 1) * size // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return matrix
