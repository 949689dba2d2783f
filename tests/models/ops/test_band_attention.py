"""Chunked band attention against plain loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.models.ops.band_attention import band_attention


@pytest.mark.parametrize("length, reach, has_bias", [
    (72, 9, False), (40, 3, True), (16, 2, True), (7, 20, False),
    (50, 17, True)])
def test_equals_a_loop(length, reach, has_bias):
    rng = np.random.default_rng(length)
    query, key, value = rng.normal(size=(3, 2, length, 2, 4)).astype(
        np.float32)
    valid = np.arange(length)[None] < np.array([[length], [length // 2 + 1]])
    bias = (rng.normal(size=(2, 2 * reach + 1)).astype(np.float32)
            if has_bias else None)
    got = np.asarray(band_attention(
        *map(jnp.asarray, (query, key, value, valid)), reach,
        None if bias is None else jnp.asarray(bias)))
    for b in range(2):
        for t in np.flatnonzero(valid[b]):
            near = [s for s in range(max(0, t - reach),
                                     min(length, t + reach + 1))
                    if valid[b, s]]
            for h in range(2):
                scores = np.array([query[b, t, h] @ key[b, s, h] / 2
                                   + (bias[h, s - t + reach] if has_bias
                                      else 0) for s in near])
                weights = np.exp(scores - scores.max())
                want = weights @ value[b, near, h] / weights.sum()
                np.testing.assert_allclose(got[b, t, h], want, atol=1e-5)
