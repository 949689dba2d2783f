"""Activations made anew for the gradient instead of kept, on every device.

`jax.checkpoint` holds the second computation back with a barrier. XLA's CPU
compiler drops barriers before it chooses an order and then computes at once
what was to come later: the time is spent, no memory saved (jax 0.10, outside
of loops). Here the second computation reads something of the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array


def recomputed(module: nnx.Module, *inputs: Any) -> Any:
    """module(*inputs), of which only the inputs are kept for the gradient.

    What depends on nothing but keys (the masks of dropout) may be kept too:
    the compiler is free to compute it early. Only reverse-mode gradients.

    Args:
      module: without state that changes; its parameters get gradients.
      inputs: pytrees of arrays, keys or None.
    """
    graph, state = nnx.split(module)

    def apply(state, inputs):
        return nnx.merge(graph, state)(*inputs)

    def forward(state, inputs):
        return apply(state, inputs), (state, inputs)

    def backward(kept, gradient):
        state, inputs = kept
        _, pull = jax.vjp(apply, state, _after(gradient, inputs))
        return pull(gradient)

    run = jax.custom_vjp(apply)
    run.defvjp(forward, backward)
    return run(state, inputs)


def _after(gradient: Any, inputs: Any) -> Any:
    """The same inputs, their numbers not there before the gradient is."""
    first = next(leaf for leaf in jax.tree.leaves(gradient)
                 if jnp.issubdtype(leaf.dtype, jnp.inexact))

    def on_cpu(first: Array, leaves: list[Array]) -> list[Array]:
        # Never true, which the compiler does not know.
        never = first[(0,) * first.ndim] > jnp.inf
        return [jnp.where(never, 0, leaf) for leaf in leaves]

    def elsewhere(first: Array, leaves: list[Array]) -> list[Array]:
        return jax.lax.optimization_barrier((first, leaves))[1]

    leaves, structure = jax.tree.flatten(inputs)
    places = [i for i, leaf in enumerate(leaves)
              if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    held = jax.lax.platform_dependent(
        first, [leaves[i] for i in places], cpu=on_cpu, default=elsewhere)
    for i, leaf in zip(places, held, strict=True):
        leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)
