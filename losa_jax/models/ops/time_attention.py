"""Attention along a window's time, with rotary positions and pooled keys.

The long-range adapter's alternative to a depthwise convolution: every token
sees the whole window. Rotary positions after Su et al. 2021 (RoFormer).
"""

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from losa_jax.models.ops.attention import attention
from losa_jax.models.ops.layers import LayerNorm, Linear

ROTARY_BASE = 10000.0


class TimeAttention(nnx.Module):
    """[b, t, s, d] to the same shape; each of the s places for itself.

    What it gives is zero at first. Padding is never looked at.
    """

    def __init__(self, width: int, heads: int, key_pool: int, *,
                 rngs: nnx.Rngs):
        """
        Args:
          width: d.
          heads: must divide d into even parts.
          key_pool: neighboring tokens that are averaged into one key; the
            scores then cost that much less. 1 keeps every token.
        """
        self.norm = LayerNorm(width, 1e-6)
        self.query = Linear(width, width, rngs=rngs)
        self.key_value = Linear(width, 2 * width, rngs=rngs)
        self.out = Linear(width, width, rngs=rngs)
        self.out.kernel[...] = jnp.zeros((width, width))
        self.heads, self.key_pool = heads, key_pool

    def __call__(self, x: Float[Array, "b t s d"], valid: Bool[Array, "b t"]
                 ) -> Float[Array, "b t s d"]:
        s = x.shape[2]
        x = rearrange(self.norm(x), "b t s d -> (b s) t d")
        valid = jnp.repeat(valid, s, axis=0)
        keys, key_valid = pool_time(x, valid, self.key_pool)
        key, value = jnp.split(self.key_value(keys), 2, axis=-1)
        query, key, value = (
            rearrange(part, "m t (e d) -> m t e d", e=self.heads)
            for part in (self.query(x), key, value))
        # A pooled key stands at the middle of what it was made of.
        centers = (np.arange(key.shape[1]) + 0.5) * self.key_pool - 0.5
        out = attention(rotate(query, np.arange(query.shape[1])),
                        rotate(key, centers), value,
                        mask=key_valid[:, None, None, :])
        out = self.out(rearrange(out, "m t e d -> m t (e d)"))
        return rearrange(out, "(b s) t d -> b t s d", s=s)


def pool_time(x: Float[Array, "m t d"], valid: Bool[Array, "m t"], pool: int
              ) -> tuple[Float[Array, "m p d"], Bool[Array, "m p"]]:
    """Mean over the valid ones of each `pool` tokens, p = ceil(t / pool)."""
    if pool == 1:
        return x, valid
    padding = -x.shape[1] % pool
    x = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
    x = rearrange(x, "m (p q) d -> m p q d", q=pool)
    kept = rearrange(jnp.pad(valid, ((0, 0), (0, padding))),
                     "m (p q) -> m p q", q=pool)
    weight = kept.astype(x.dtype)
    count = jnp.maximum(weight.sum(axis=2), 1)
    mean = jnp.einsum("mpqd,mpq->mpd", x, weight) / count[..., None]
    return mean, kept.any(axis=2)


def rotate(x: Float[Array, "m t e d"], positions: np.ndarray
           ) -> Float[Array, "m t e d"]:
    """Turns pairs (i, i + d / 2) of channels by an angle that grows with
    time: scores then depend on the distance of two tokens alone."""
    half = x.shape[-1] // 2
    rates = ROTARY_BASE ** (-np.arange(half) / half)
    angles = positions[:, None] * rates
    cosine = jnp.asarray(np.cos(angles), x.dtype)[None, :, None, :]
    sine = jnp.asarray(np.sin(angles), x.dtype)[None, :, None, :]
    one, two = x[..., :half], x[..., half:]
    return jnp.concatenate([one * cosine - two * sine,
                            one * sine + two * cosine], axis=-1)
