"""Dropout of branches and of numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losa_jax.models.ops import layers


def test_drop_path_keeps_the_mean_and_whole_samples():
    x = jnp.ones((4000, 2, 3))
    y = layers.drop_path(x, 0.25, jax.random.key(0))
    assert set(np.unique(y).round(4)) == {0.0, np.float32(1.3333)}
    assert float(y.mean()) == pytest.approx(1.0, abs=0.05)
    per_sample = np.asarray(y).reshape(4000, -1)
    assert (per_sample == per_sample[:, :1]).all()
    np.testing.assert_array_equal(layers.drop_path(x, 0.25, None), x)


def test_dropout_is_off_without_a_key():
    x = jnp.ones((50, 50))
    np.testing.assert_array_equal(layers.dropout(x, 0.5, None), x)
    y = layers.dropout(x, 0.5, jax.random.key(0))
    assert float((y == 0).mean()) == pytest.approx(0.5, abs=0.05)
