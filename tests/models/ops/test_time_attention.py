"""Attention along time against plain loops."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from losa_jax.models.ops.time_attention import TimeAttention, pool_time, rotate


def test_pooled_keys_are_means_of_what_is_valid():
    x = np.arange(7, dtype=np.float32).reshape(1, 7, 1)
    valid = np.array([[1, 1, 1, 0, 0, 0, 0]], bool)
    mean, kept = pool_time(jnp.asarray(x), jnp.asarray(valid), 2)
    np.testing.assert_allclose(mean[0, :, 0], [0.5, 2.0, 0.0, 0.0])
    np.testing.assert_array_equal(kept, [[True, True, False, False]])


def test_rotated_scores_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def score(q, k):
        return float((rotate(jnp.asarray(query), np.array([q]))
                      * rotate(jnp.asarray(key), np.array([k]))).sum())

    assert score(3.0, 7.0) == pytest.approx(score(103.0, 107.0), abs=1e-4)
    assert score(3.0, 7.0) != pytest.approx(score(3.0, 9.0), abs=1e-3)
    assert score(0.0, 0.0) == pytest.approx(float((query * key).sum()),
                                            abs=1e-5)


@pytest.mark.parametrize("pool", [1, 3])
def test_equals_a_loop(pool):
    rng = np.random.default_rng(1)
    d, heads, t, s = 8, 2, 7, 2
    module = TimeAttention(d, heads, pool, rngs=nnx.Rngs(0))
    module.out.kernel[...] = rng.normal(size=(d, d)).astype(np.float32)
    x = rng.normal(size=(1, t, s, d)).astype(np.float32)
    valid = np.arange(t)[None] < 5
    got = np.asarray(module(jnp.asarray(x), jnp.asarray(valid)))

    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-6)
    angle = 10000.0 ** (-np.arange(d // heads // 2) / (d // heads // 2))

    def turn(vector, position):
        one, two = np.split(vector, 2)
        c, n = np.cos(position * angle), np.sin(position * angle)
        return np.concatenate([one * c - two * n, one * n + two * c])

    def linear(layer, vector):
        return vector @ np.asarray(layer.kernel) + np.asarray(layer.bias)

    for place in range(s):
        rows = normed[0, :, place]
        keys = []
        for first in range(0, t, pool):
            some = [rows[i] for i in range(first, min(first + pool, t))
                    if valid[0, i]]
            if some:
                both = linear(module.key_value, np.mean(some, axis=0))
                keys.append((first + (pool - 1) / 2, *np.split(both, 2)))
        for time in range(5):
            query = linear(module.query, rows[time])
            parts = []
            for head in range(heads):
                cut = slice(head * d // heads, (head + 1) * d // heads)
                scores = np.array([
                    turn(query[cut], time) @ turn(key[cut], center)
                    for center, key, _ in keys]) / np.sqrt(d / heads)
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                parts.append(weights @ np.array([v[cut] for *_, v in keys]))
            want = linear(module.out, np.concatenate(parts))
            np.testing.assert_allclose(got[0, time, place], want, atol=1e-4)
