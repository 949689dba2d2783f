"""Pooling of a tap's cells by learned queries."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float


class AttentionPool(nnx.Module):
    """Each of k learned queries takes a weighted mean of a step's cells.

    A cell's key and value are its token plus a learned vector of its position,
    so that the result also says where a query looks.
    """

    def __init__(self, width: int, cells: int, queries: int, rngs: nnx.Rngs):
        # Taps are standardized: scores of queries of this size vary by one,
        # so the queries differ from the first step on.
        self.queries = nnx.Param(nnx.initializers.normal(1.0)(
            rngs.params(), (queries, width)))
        self.positions = nnx.Param(nnx.initializers.normal(0.5)(
            rngs.params(), (cells, width)))

    def __call__(self, tap: Float[Array, "b n u h w c"]
                 ) -> Float[Array, "b n u k 1 c"]:
        b, n, u, _, _, c = tap.shape
        x = rearrange(tap, "b n u h w c -> (b n u) (h w) c")
        positions = self.positions[...].astype(x.dtype)
        queries = (self.queries[...] * c ** -0.5).astype(x.dtype)
        # Tokens and positions apart: their sum would be a copy of the tap.
        scores = (jnp.einsum("msc,kc->mks", x, queries,
                             preferred_element_type=jnp.float32)
                  + jnp.einsum("sc,kc->ks", positions, queries,
                               preferred_element_type=jnp.float32))
        weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
        pooled = (jnp.einsum("mks,msc->mkc", weights, x)
                  + jnp.einsum("mks,sc->mkc", weights, positions))
        return pooled.reshape(b, n, u, -1, 1, c)
