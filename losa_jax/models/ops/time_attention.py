"""Attention over a window's time, with rotary positions and pooled keys.

Rotary positions: Su et al. 2021 (RoFormer).
"""

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float, Num

from losa_jax.models.ops.attention import attention
from losa_jax.models.ops.layers import LayerNorm, Linear, zero_linear

ROTARY_BASE = 10000.0


class TimeAttention(nnx.Module):
    """Attention of each of s places to itself at all valid times.

    `key_pool` neighboring tokens are averaged into one key. The output is
    zero at the start of training.
    """

    def __init__(self, width: int, heads: int, key_pool: int, *,
                 rngs: nnx.Rngs):
        self.norm = LayerNorm(width, 1e-6)
        self.query = Linear(width, width, rngs=rngs)
        self.key_value = Linear(width, 2 * width, rngs=rngs)
        self.out = zero_linear(width, width, rngs=rngs)
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
        # A pooled key has the mean position of its tokens.
        centers = (np.arange(key.shape[1]) + 0.5) * self.key_pool - 0.5
        out = attention(rotate(query, np.arange(query.shape[1])),
                        rotate(key, centers), value,
                        mask=key_valid[:, None, None, :])
        out = self.out(rearrange(out, "m t e d -> m t (e d)"))
        return rearrange(out, "(b s) t d -> b t s d", s=s)


def pool_time(x: Float[Array, "m t d"], valid: Bool[Array, "m t"], pool: int
              ) -> tuple[Float[Array, "m p d"], Bool[Array, "m p"]]:
    """Returns means over groups of `pool` tokens, and which are valid.

    Only valid tokens count; a group without any is not valid.
    """
    if pool == 1:
        return x, valid
    padding = -x.shape[1] % pool
    x = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
    x = rearrange(x, "m (p q) d -> m p q d", q=pool)
    valid = rearrange(jnp.pad(valid, ((0, 0), (0, padding))),
                      "m (p q) -> m p q", q=pool)
    weight = valid.astype(x.dtype)
    count = jnp.maximum(weight.sum(axis=2), 1)
    mean = jnp.einsum("mpqd,mpq->mpd", x, weight) / count[..., None]
    return mean, valid.any(axis=2)


def rotate(x: Float[Array, "m t e d"], positions: Num[np.ndarray, "t"]
           ) -> Float[Array, "m t e d"]:
    """Returns x with channels (i, i + d / 2) rotated in proportion to time.

    Scores then depend only on the distance between two tokens.
    """
    half = x.shape[-1] // 2
    rates = ROTARY_BASE ** (-np.arange(half) / half)
    angles = positions[:, None] * rates
    cosine = jnp.asarray(np.cos(angles), x.dtype)[None, :, None, :]
    sine = jnp.asarray(np.sin(angles), x.dtype)[None, :, None, :]
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cosine - second * sine,
                            first * sine + second * cosine], axis=-1)
