"""Flax modules as nested dicts of arrays, and back.

Parameter paths such as "head/cls/convs/0/conv/kernel" are an interface: weight
decay, learning rates, sharding, checkpoints and conversion match on them. Keys
are strings, also those of an `nnx.List`.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

Tree = dict[str, Any]


class Template:
    """A module without its parameters, whose shapes are the tree `shapes`."""

    def __init__(self, build: Callable[[], nnx.Module]):
        """`build` makes the module; nothing is allocated here."""
        self._graph, state = nnx.split(nnx.eval_shape(build))
        self._variables = nnx.to_flat_state(state)
        self.shapes = _tree(state)

    def bind(self, tree: Tree) -> Any:
        """Returns the module with these parameters; traceable."""
        flat = flatten(tree)
        return nnx.merge(self._graph, nnx.from_flat_state(
            (path, variable.replace(flat[_name(path)]))
            for path, variable in self._variables))


def named_key(key: jax.Array, name: str) -> jax.Array:
    """Returns the random key of a named stream.

    Unlike small numbers folded in, names do not meet what `split` returns.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def stacked(build: Callable[[nnx.Rngs], nnx.Module], count: int,
            rngs: nnx.Rngs) -> Any:
    """Returns `count` modules as one, for a scan over a new first axis."""
    return nnx.vmap(lambda key: build(nnx.Rngs(params=key)))(
        jax.random.split(rngs.params(), count))


def parameters(module: nnx.Module) -> Tree:
    """Returns the module's parameters as a nested dict of arrays.

    None of them is weakly typed, as `jnp.full(c, 1.0)` is: an optimizer's
    result is not, and the second step would be compiled again.
    """
    return _tree(nnx.state(module),
                 lambda array: jnp.asarray(array, array.dtype))


def _tree(state: nnx.State, convert: Callable[[Any], Any] = lambda x: x
          ) -> Tree:
    return nest({_name(path): convert(variable.get_value())
                 for path, variable in nnx.to_flat_state(state)})


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


def flatten(tree: Tree) -> dict[str, Any]:
    """Returns {"a/b": x} for {"a": {"b": x}}."""
    return traverse_util.flatten_dict(tree, sep="/")


def nest(flat: Mapping[str, Any]) -> Tree:
    """Returns {"a": {"b": x}} for {"a/b": x}."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")
