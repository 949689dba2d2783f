"""Runs stacked transformer blocks in a scan, of which some are tapped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float


def block_on_place(block: Any, x: Float[Array, "n t c"],
                   place: NamedSharding | None, **settings: Any
                   ) -> Float[Array, "n t c"]:
    """Returns block(x, **settings), gathering the block's parameters for it.

    The compiler would move the clips' activations instead, which are hundreds
    of times larger.
    """
    if place is not None:
        replicated = NamedSharding(place.mesh, PartitionSpec())
        block = jax.lax.with_sharding_constraint(block, replicated)
        x = jax.lax.with_sharding_constraint(x, place)
    return block(x, place=place, **settings)


def scan_blocks(blocks: Any, x: Float[Array, "n t c"],
                place: NamedSharding | None, *, numbers: range,
                tap_layers: tuple[int, ...], tap: Callable[[Array], Array],
                taps: Array | None = None
                ) -> tuple[Float[Array, "n t c"], Array | None]:
    """Returns the last block's output, and taps [k, ...] or None.

    Blocks are rematerialized in a backward pass.

    Args:
      blocks: a module whose parameters are stacked on a first axis.
      numbers: of these blocks in the backbone, which may have further stacks.
      tap_layers: ascending numbers of the k tapped blocks of all stacks.
      tap: maps the output of such a block to its tap, which has the same
        shape for all stacks.
      taps: of earlier stacks, with places for all k; None if there are none.
    """
    run = jax.checkpoint(lambda block, x: block_on_place(block, x, place),
                         prevent_cse=False)
    is_tapped = np.isin(numbers, tap_layers)
    if not is_tapped.any():
        x, _ = jax.lax.scan(lambda x, block: (run(block, x), None), x, blocks)
        return x, taps
    # One scan over all blocks: slices of their stack would copy weights.
    slots = np.minimum(np.searchsorted(tap_layers, numbers),
                       len(tap_layers) - 1)
    if taps is None:
        shape = jax.eval_shape(tap, x)
        taps = jnp.zeros((len(tap_layers), *shape.shape), shape.dtype)

    def step(carry, inputs):
        x, taps = carry
        block, slot, is_tapped = inputs
        x = run(block, x)
        old = jax.lax.dynamic_index_in_dim(taps, slot, 0, False)
        new = jax.lax.cond(is_tapped, tap, lambda x: old, x)
        taps = jax.lax.dynamic_update_index_in_dim(taps, new, slot, 0)
        return (x, taps), None

    return jax.lax.scan(step, (x, taps), (
        blocks, jnp.asarray(slots), jnp.asarray(is_tapped)))[0]
