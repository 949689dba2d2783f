"""Softmax attention by the implementation that suits the device."""

import contextlib
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float

from losa_jax.models.ops.flash_attention import can_flash, flash_attention

# Masked attention with more scores a head is rematerialized: a window of 768
# tokens would take most of a head's memory. (Attention without a mask is a
# backbone's, whose blocks are rematerialized as a whole.)
MAX_STORED_SCORES = 512 * 512
# On CPU, a loop over heads costs more than it saves with fewer scores a head.
MIN_LOOP_SCORES = 256 * 256
_is_portable = False


@jax.named_scope("attention")  # planning counts its FLOPs by this name
def attention(query: Float[Array, "b q heads d"],
              key: Float[Array, "b t heads d"],
              value: Float[Array, "b t heads d"],
              mask: Bool[Array, "b #heads #q t"] | None = None,
              scale: float | None = None,
              place: NamedSharding | None = None,
              soft_cap: float | None = None) -> Float[Array, "b q heads d"]:
    """Returns scaled dot-product attention with a float32 softmax.

    Args:
      mask: True where a query may attend; a query without any such key gets
        the mean over all keys, so mask its output.
      scale: of the scores; None is 1 / sqrt(d).
      place: how the first axis is sharded; a TPU's flash kernel and the loop
        over heads need it.
      soft_cap: limit of the scores s, which become cap tanh(s / cap) before
        the mask; None leaves them. No kernel of a library has it, so every
        platform takes the formula that is written for CPU.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if mask is None and soft_cap is None and not _is_portable and (
            place is not None and can_flash(query, key, place)):
        return flash_attention(query, key, value, scale, place)

    remat = mask is not None and (
        query.shape[1] * key.shape[1] > MAX_STORED_SCORES)

    def elsewhere(query, key, value, mask, implementation=None):
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, scale=scale,
            implementation=implementation)

    by_formula = functools.partial(
        _attend, scale=scale, soft_cap=soft_cap, remat=remat,
        shards=1 if place is None
        else len(query) // place.shard_shape(query.shape)[0])
    if soft_cap is not None:
        return by_formula(query, key, value, mask)

    # By platform: one program may be compiled for several.
    paths = {"cpu": by_formula}
    if _cudnn_supports(query, mask):
        paths["cuda"] = functools.partial(elsewhere, implementation="cudnn")
    return jax.lax.platform_dependent(
        query, key, value, mask, **paths,
        default=jax.checkpoint(elsewhere) if remat else elsewhere)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Traces attention without platform-specific kernels.

    An exported program then runs on several platforms and later versions.
    """
    global _is_portable
    before, _is_portable = _is_portable, True
    try:
        yield
    finally:
        _is_portable = before


def _cudnn_supports(query: Array, mask: Array | None) -> bool:
    """Whether cuDNN's flash kernel, which stores no scores, takes this.

    Its limits: 16-bit numbers, heads of up to 128 channels in multiples of
    8, Ampere GPUs or newer (jax.nn.dot_product_attention's documentation).
    Not tested on a GPU.
    """
    d = query.shape[-1]
    if (_is_portable or mask is not None or query.dtype.itemsize != 2
            or d > 128 or d % 8):
        return False
    device = jax.devices()[0]
    return device.platform == "gpu" and (
        float(getattr(device, "compute_capability", 0)) >= 8.0)


def _attend(query, key, value, mask, *, scale, soft_cap, remat, shards):
    """Returns attention by its formula, arranged for XLA's CPU compiler.

    Batch axes come first, one head at a time keeps its scores in cache, and
    the result instead of the weights is divided by the sum of the weights.
    Two clips of 1568 tokens with 12 heads of 64 channels took 0.19 s on two
    cores, all heads at once 0.67 s, `jax.nn.dot_product_attention` 1.14 s.
    """
    query, key, value = (jnp.swapaxes(x, 1, 2)
                         for x in (query * scale, key, value))
    b, heads, q, _ = query.shape
    if q * key.shape[2] <= MIN_LOOP_SCORES:
        weights = jax.nn.softmax(_scores(query, key, mask, soft_cap),
                                 axis=-1)
        out = jnp.einsum("...qt,...td->...qd", weights.astype(value.dtype),
                         value)
        return jnp.swapaxes(out, 1, 2)

    attend_head = functools.partial(_attend_head, soft_cap=soft_cap)
    # What is spread over devices is no axis of the loops: all devices would
    # gather the whole array.
    if mask is None:
        local = [rearrange(x, "(D p) heads t d -> (p heads) D t d", D=shards)
                 for x in (query, key, value)]
        return rearrange(jax.lax.map(attend_head, local),
                         "(p heads) D q d -> (D p) q heads d", heads=heads)
    # Outside it, XLA's CPU compiler would recompute and store the scores early.
    one_head = (jax.checkpoint(attend_head, prevent_cse=False) if remat
                else attend_head)
    mask = jnp.broadcast_to(mask, (b, heads, *mask.shape[2:]))
    out = jax.lax.map(one_head, [jnp.swapaxes(x, 0, 1)
                                 for x in (query, key, value, mask)])
    return jnp.transpose(out, (1, 2, 0, 3))


def _attend_head(operands, soft_cap):
    """Returns one head's attention, with one pass less over the scores."""
    query, key, value, mask = (*operands, None)[:4]
    scores = _scores(query, key, mask, soft_cap)
    # Any constant gives the same result, so it has no gradient.
    largest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    weights = jnp.exp(scores - largest)
    out = jnp.einsum("...qt,...td->...qd", weights.astype(value.dtype), value,
                     preferred_element_type=jnp.float32)
    return (out / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)


def _scores(query, key, mask, soft_cap):
    scores = jnp.einsum("...qd,...td->...qt", query, key,
                        preferred_element_type=jnp.float32)
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    if mask is None:
        return scores
    return jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
