"""Softmax attention for CPUs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# With fewer scores a head, a loop over heads costs more than it saves.
MIN_LOOP_SCORES = 256 * 256


def cpu_attention(query: Float[Array, "b q heads d"],
                  key: Float[Array, "b t heads d"],
                  value: Float[Array, "b t heads d"],
                  mask: Bool[Array, "b #heads #q t"] | None, *,
                  scale: float, remat: bool) -> Float[Array, "b q heads d"]:
    """Returns `attention.attention`, arranged for XLA's CPU compiler.

    Batch axes come first, one head at a time keeps its scores in cache, and
    the result instead of the weights is divided by the sum of the weights.
    Two clips of 1568 tokens with 12 heads of 64 channels took 0.19 s on two
    cores, all heads at once 0.67 s, `jax.nn.dot_product_attention` 1.14 s;
    `benchmarks.losa_speed` has it in its step.
    """
    query, key, value = (jnp.swapaxes(x, 1, 2)
                         for x in (query * scale, key, value))
    b, heads, q, d = query.shape
    if q * key.shape[2] <= MIN_LOOP_SCORES:
        return jnp.swapaxes(_attend(query, key, value, mask), 1, 2)

    def one_head(operands):
        return _attend_long(*operands)

    if mask is None:
        flat = [x.reshape(b * heads, *x.shape[2:])
                for x in (query, key, value)]
        out = jax.lax.map(one_head, flat).reshape(b, heads, q, d)
        return jnp.swapaxes(out, 1, 2)
    # The loop leaves windows alone: they may lie on several devices.
    if remat:
        # Inside the loop: outside, XLA's CPU compiler would recompute the
        # scores early and store them after all.
        one_head = jax.checkpoint(one_head, prevent_cse=False)
    mask = jnp.broadcast_to(mask, (b, heads, *mask.shape[2:]))
    out = jax.lax.map(one_head, [jnp.swapaxes(x, 0, 1)
                                 for x in (query, key, value, mask)])
    return jnp.transpose(out, (1, 2, 0, 3))


def _attend(query, key, value, mask):
    """Attention over the last two axes."""
    weights = jax.nn.softmax(_scores(query, key, mask), axis=-1)
    return jnp.einsum("...qt,...td->...qd", weights.astype(value.dtype),
                      value)


def _attend_long(query, key, value, mask=None):
    """As `_attend`, with one pass less over the scores."""
    scores = _scores(query, key, mask)
    # Any constant gives the same result, so it has no gradient.
    largest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - largest)
    out = jnp.einsum("...qt,...td->...qd", weights.astype(value.dtype), value,
                     preferred_element_type=jnp.float32)
    return (out / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)


def _scores(query, key, mask):
    scores = jnp.einsum("...qd,...td->...qt", query, key,
                        preferred_element_type=jnp.float32)
    if mask is None:
        return scores
    return jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
