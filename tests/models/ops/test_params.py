"""Parameter trees, and random keys by name."""

import jax

from losa_jax.models.ops import params


def test_a_named_key_is_none_that_split_returns():
    """A small number folded in is: fold_in(k, 1) equals split(k, n)[1]."""
    key = jax.random.key(3)
    named = {name: tuple(jax.random.key_data(params.named_key(key, name)))
             for name in ("steps", "backbone", "head", "inside backbone")}
    split = {tuple(row) for count in (2, 5, 64) for row in
             jax.random.key_data(jax.random.split(key, count)).tolist()}
    assert len({*map(str, named.values())}) == len(named)
    assert not split & {tuple(map(int, row)) for row in named.values()}
