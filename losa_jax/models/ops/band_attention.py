"""Attention to a band of neighbors, at a cost linear in the length.

ActionFormer's local attention. The sequence is cut into chunks at least as long
as the band reaches; each attends to itself and to both neighbors.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# Products of smaller chunks do not fill vector units.
MIN_CHUNK = 16


def band_attention(query: Float[Array, "b t heads d"],
                   key: Float[Array, "b t heads d"],
                   value: Float[Array, "b t heads d"],
                   valid: Bool[Array, "b t"], reach: int,
                   bias: Float[Array, "heads distances"] | None = None
                   ) -> Float[Array, "b t heads d"]:
    """Returns scaled dot-product attention to the tokens within `reach`.

    Only valid tokens are attended to; the output at other tokens is undefined.
    `bias` is added to the scores by key minus query, from -reach to reach.
    """
    b, t, heads, d = query.shape
    chunk = max(MIN_CHUNK, -(-reach // 8) * 8)
    count = -(-t // chunk)
    padding = ((0, 0), (0, count * chunk - t), (0, 0), (0, 0))

    def chunks(x: Array) -> Array:
        return jnp.pad(x, padding).reshape(b, count, chunk, heads, d)

    def around(x: Array) -> Array:
        # Each chunk between its neighbors: [b, count, 3 chunk, ...].
        x = jnp.pad(x, ((0, 0), (1, 1), *((0, 0),) * (x.ndim - 2)))
        return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)

    seen = around(jnp.pad(valid, padding[:2]).reshape(b, count, chunk))
    distance = (np.arange(3 * chunk)[None, :] - chunk
                - np.arange(chunk)[:, None])
    mask = seen[:, :, None, None, :] & (np.abs(distance) <= reach)

    keys, values = around(chunks(key)), around(chunks(value))
    scores = jnp.einsum("bnqhd,bnkhd->bnhqk", chunks(query * d ** -0.5),
                        keys, preferred_element_type=jnp.float32)
    if bias is not None:
        scores = scores + bias[:, np.clip(distance + reach, 0, 2 * reach)]
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    out = jnp.einsum("bnhqk,bnkhd->bnqhd", weights, values)
    return out.reshape(b, count * chunk, heads, d)[:, :t]
