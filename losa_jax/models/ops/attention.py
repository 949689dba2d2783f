"""Softmax attention, one interface, the path that suits the device."""

import contextlib
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float

from losa_jax.models.ops.flash_attention import can_flash, flash_attention

# Queries that one CPU block handles at most: the products want many, the
# scores want to stay in the last level of cache. On two EPYC cores 800 tokens
# in one block take 48 ms, in blocks of 200 54; 1568 tokens in blocks of 784
# 198, of 392 189, of 224 199, in one 207 (two threads, 24 heads).
CPU_QUERY_BLOCK = 800
# Below this many scores a head, blocks cost more than they save.
CPU_BLOCK_FROM_SCORES = 256 * 256
# More scores a head than these are computed anew for the gradient: kept, those
# of a window of 768 tokens outweigh all else that a head keeps. (A backbone's
# blocks, which have no mask, are made anew as a whole.)
KEPT_SCORES = 512 * 512
_is_portable = False


@jax.named_scope("attention")  # planning counts its FLOPs by this name
def attention(query: Float[Array, "b q heads d"],
              key: Float[Array, "b t heads d"],
              value: Float[Array, "b t heads d"],
              mask: Bool[Array, "b #heads #q t"] | None = None,
              scale: float | None = None,
              place: NamedSharding | None = None
              ) -> Float[Array, "b q heads d"]:
    """Scaled dot-product attention with float32 softmax.

    Args:
      query, key, value: heads already split.
      mask: True where a query may look; a query that may look nowhere gets
        a mean over all keys, so mask its output.
      scale: of the scores; None is 1 / sqrt(d).
      place: how the first axis is spread over devices, where that is known:
        a TPU's flash kernel needs it.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if mask is None and not _is_portable and place is not None and (
            can_flash(query, key, place)):
        return flash_attention(query, key, value, scale, place)

    forgets = mask is not None and (
        query.shape[1] * key.shape[1] > KEPT_SCORES)

    def on_cpu(query, key, value, mask):
        return _cpu_attention(query, key, value, mask, scale, forgets)

    def elsewhere(query, key, value, mask, kernel=None):
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, scale=scale, implementation=kernel)

    paths = {"cpu": on_cpu}
    # By name: one program may be made for several kinds of devices.
    if _cudnn_can(query, mask):
        paths["cuda"] = functools.partial(elsewhere, kernel="cudnn")
    return jax.lax.platform_dependent(
        query, key, value, mask, **paths,
        default=jax.checkpoint(elsewhere) if forgets else elsewhere)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced in here uses no kernel of one kind of device, so that
    one program can be made for several kinds and kept for later versions."""
    global _is_portable
    before, _is_portable = _is_portable, True
    try:
        yield
    finally:
        _is_portable = before


def _cudnn_can(query: Array, mask: Array | None) -> bool:
    """Whether cuDNN's flash kernel, which stores no scores, takes this.

    Its limits: 16-bit numbers, heads of up to 128 channels in multiples of
    8, Ampere GPUs or newer (jax.nn.dot_product_attention's documentation).
    Not run here: no GPU was at hand.
    """
    d = query.shape[-1]
    if (_is_portable or mask is not None or query.dtype.itemsize != 2
            or d > 128 or d % 8):
        return False
    device = jax.devices()[0]
    return device.platform == "gpu" and (
        float(getattr(device, "compute_capability", 0)) >= 8.0)


def _cpu_attention(query, key, value, mask, scale, forgets):
    """Heads first, and in blocks of queries when the scores are many."""
    # XLA's CPU matmul wants the batch axes in front: 1.6 x faster.
    query = jnp.swapaxes(query * scale, 1, 2)
    key = jnp.swapaxes(key, 1, 2)
    value = jnp.swapaxes(value, 1, 2)
    b, heads, q, d = query.shape
    t = key.shape[2]
    if q * t <= CPU_BLOCK_FROM_SCORES:
        return jnp.swapaxes(_attend(query, key, value, mask), 1, 2)

    num_blocks = -(-q // CPU_QUERY_BLOCK)
    padding = -q % num_blocks

    def one_head(operands):
        if num_blocks == 1:
            return _attend_late(*operands)
        head_query, head_key, head_value, *masks = operands
        rows = [head_query, *(jnp.broadcast_to(head_mask, (b, q, t))
                              for head_mask in masks)]
        out = jax.lax.map(
            lambda row: _attend_late(row[0], head_key, head_value, *row[1:]),
            tuple(_blocks(part, num_blocks, padding) for part in rows))
        out = jnp.moveaxis(out, 0, -3)
        return out.reshape(*out.shape[:-3], -1, d)[..., :q, :]

    if mask is None:
        flat = [x.reshape(b * heads, *x.shape[2:])
                for x in (query, key, value)]
        out = jax.lax.map(one_head, tuple(flat)).reshape(b, heads, q, d)
        return jnp.swapaxes(out, 1, 2)
    # Windows stay an axis: they may lie on several devices.
    if forgets:
        # In the loop over heads: XLA's CPU forgets the order outside of
        # loops and would make the scores anew as soon as it can, for nothing.
        one_head = jax.checkpoint(one_head, prevent_cse=False)
    mask = jnp.broadcast_to(mask, (b, heads, *mask.shape[2:]))
    out = jax.lax.map(one_head, tuple(
        jnp.swapaxes(x, 0, 1) for x in (query, key, value, mask)))
    return jnp.transpose(out, (1, 2, 0, 3))


def _blocks(rows: Float[Array, "*n q d"], num_blocks: int, padding: int
            ) -> Float[Array, "blocks *n p d"]:
    """Rows in blocks; False or zero at the end of the last."""
    ends = [(0, 0)] * (rows.ndim - 2) + [(0, padding), (0, 0)]
    rows = jnp.pad(rows, ends)
    rows = rows.reshape(*rows.shape[:-2], num_blocks, -1, rows.shape[-1])
    return jnp.moveaxis(rows, -3, 0)


def _attend(query, key, value, mask):
    """Attention over the last two axes, heads first."""
    weights = jax.nn.softmax(_scores(query, key, mask), axis=-1)
    return jnp.einsum("...qt,...td->...qd", weights.astype(value.dtype),
                      value)


def _attend_late(query, key, value, mask=None):
    """As `_attend`; what is divided by the sum of the weights is the result,
    not the weights: a pass less over the scores, a tenth of the time for 800
    tokens."""
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
