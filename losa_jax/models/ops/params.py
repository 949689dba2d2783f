"""Flax modules as plain nested dicts of arrays, and back.

Parameter paths ("head/cls/convs/0/conv/kernel") are an interface: weight
decay, learning rates, sharding, checkpoints and conversion all match on them.
Plain dicts keep class names out of checkpoints.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

Tree = dict[str, Any]


class Template:
    """How to turn a tree of parameters back into its module.

    Attributes:
      shapes: the tree with `jax.ShapeDtypeStruct` leaves.
    """

    def __init__(self, build: Callable[[], nnx.Module]):
        """`build` makes the module; nothing is allocated here."""
        module = nnx.eval_shape(build)
        self._graph, state = nnx.split(module)
        self._variables = dict(nnx.to_flat_state(state))
        self.shapes = self._tree(state)

    def bind(self, tree: Tree) -> Any:
        """The module with these parameters; works inside `jax.jit`."""
        flat = flatten(tree)
        state = nnx.from_flat_state(
            (path, variable.replace(flat["/".join(map(str, path))]))
            for path, variable in self._variables.items())
        return nnx.merge(self._graph, state)

    def _tree(self, state: nnx.State) -> Tree:
        return nest({"/".join(map(str, path)): variable.get_value()
                     for path, variable in nnx.to_flat_state(state)})


def parameters(module: nnx.Module) -> Tree:
    """The module's parameters as a nested dict of arrays.

    Of a definite type: `jnp.full(c, 1.0)` is weakly typed, what an optimizer
    makes of it is not, and the second step would be compiled anew.
    """
    return nest({"/".join(map(str, path)): _definite(variable.get_value())
                 for path, variable in nnx.to_flat_state(nnx.state(module))})


def _definite(array: Any) -> Any:
    return jnp.asarray(array, array.dtype)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} to {"a/b": x}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, name + "/"))
        else:
            flat[name] = value
    return flat


def nest(flat: Mapping[str, Any]) -> Tree:
    """{"a/b": x} to {"a": {"b": x}}, keys sorted as written."""
    tree: Tree = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree
