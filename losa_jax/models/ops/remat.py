"""Rematerialization of activations in the backward pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

MAX_UNROLLED = 4


def recomputed(module: nnx.Module, *inputs: Any) -> Any:
    """Returns module(*inputs), storing only the inputs for the backward pass.

    On CPU `jax.checkpoint` saves no memory outside of loops (jax 0.10): XLA
    drops the barrier that delays the recomputation. Here the recomputation
    depends on the gradient. Values that depend only on keys, such as dropout
    masks, may be stored too. Reverse mode only; the module's state is constant.
    """
    graph, state = nnx.split(module)

    def apply(state, inputs):
        return nnx.merge(graph, state)(*inputs)

    def forward(state, inputs):
        return apply(state, inputs), (state, inputs)

    def backward(stored, gradient):
        state, inputs = stored
        _, pull = jax.vjp(apply, state, _after(gradient, inputs))
        return pull(gradient)

    run = jax.custom_vjp(apply)
    run.defvjp(forward, backward)
    return run(state, inputs)


def short_scan(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any,
               inputs: Any) -> tuple[Any, Any]:
    """Returns the result of a scan whose steps need much memory.

    Up to `MAX_UNROLLED` steps are unrolled, since XLA's CPU compiler runs a
    loop on one thread (`benchmarks.losa_speed`); more are rematerialized.
    """
    unroll = jax.tree.leaves(inputs)[0].shape[0] <= MAX_UNROLLED
    if not unroll:
        step = jax.checkpoint(step, prevent_cse=False)
    return jax.lax.scan(step, carry, inputs, unroll=unroll)


def _after(gradient: Any, inputs: Any) -> Any:
    """Returns the inputs such that they depend on the gradient."""
    first = next(leaf for leaf in jax.tree.leaves(gradient)
                 if jnp.issubdtype(leaf.dtype, jnp.inexact))
    # Never true, but the compiler does not know that.
    never = first[(0,) * first.ndim] > jnp.inf
    return jax.tree.map(
        lambda leaf: jnp.where(never, 0, leaf)
        if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, inputs)
