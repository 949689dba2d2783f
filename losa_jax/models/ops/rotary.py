"""Rotary positions of tokens in time, rows and columns (V-JEPA 2)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BASE = 10000.0


class Rotation(NamedTuple):
    """Cosines and sines by token and channel of a head."""

    cosine: Float[Array, "t d"]
    sine: Float[Array, "t d"]


def axial_rotation(axes: Sequence[np.ndarray], head_width: int, *,
                   is_paired: bool) -> Rotation:
    """Returns the rotation of the tokens of a grid.

    The channels of a head are cut into three equal, even segments, one for
    each axis, and a rest without position. Neighbors form pairs.

    Args:
      axes: positions along time, rows and columns; tokens are in this order.
      is_paired: whether both channels of a pair have one frequency. If not,
        the list of frequencies is repeated as a whole and a pair has two
        angles: V-JEPA 2 was trained with this slip.
    """
    half = head_width // 3 // 2
    frequencies = BASE ** (-np.arange(half) / max(half, 1))
    frequencies = (np.repeat(frequencies, 2) if is_paired
                   else np.tile(frequencies, 2))
    grid = tuple(map(len, axes))
    angles = [np.outer(positions, frequencies) for positions in axes]

    def over_grid(tables: list[np.ndarray], rest: float) -> Array:
        # The program stores the table of each axis, not that of the grid.
        parts = [jnp.broadcast_to(
            jnp.expand_dims(jnp.asarray(table, jnp.float32),
                            tuple({0, 1, 2} - {axis})), (*grid, 2 * half))
            for axis, table in enumerate(tables)]
        parts.append(jnp.full((*grid, head_width - 6 * half), rest))
        return jnp.concatenate(parts, axis=-1).reshape(-1, head_width)

    return Rotation(over_grid([np.cos(angle) for angle in angles], 1.0),
                    over_grid([np.sin(angle) for angle in angles], 0.0))


def rotate(x: Float[Array, "n t heads d"], rotation: Rotation
           ) -> Float[Array, "n t heads d"]:
    """Returns queries or keys with their positions, computed in float32."""
    y = x.astype(jnp.float32)
    # Shifts, because pairs on an axis of their own would be padded on a TPU.
    is_first = np.arange(x.shape[-1]) % 2 == 0
    other = jnp.where(is_first, -jnp.roll(y, -1, axis=-1),
                      jnp.roll(y, 1, axis=-1))
    cosine, sine = (table[:, None] for table in rotation)
    return (y * cosine + other * sine).astype(x.dtype)
