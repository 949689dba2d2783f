"""Flax modules as plain nested dicts of arrays, and back.

Parameter paths ("head/cls/convs/0/conv/kernel") are an interface: weight
decay, learning rates, sharding, checkpoints and conversion all match on them.
Plain dicts keep class names out of checkpoints.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from losa_jax.errors import InputError

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
    """The module's parameters as a nested dict of arrays."""
    return nest({"/".join(map(str, path)): variable.get_value()
                 for path, variable in nnx.to_flat_state(nnx.state(module))})


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


def check_shapes(tree: Tree, expected: Tree, source: str) -> None:
    """Every parameter there, none too many, all of the right shape.

    Raises:
      InputError: lists all differences; `source` names where the tree is
        from.
    """
    have, want = flatten(tree), flatten(expected)
    problems = [f"  missing: {name} {tuple(want[name].shape)}"
                for name in want if name not in have]
    problems += [f"  unexpected: {name} {tuple(have[name].shape)}"
                 for name in have if name not in want]
    problems += [
        f"  wrong shape: {name} is {tuple(have[name].shape)}, the model "
        f"needs {tuple(want[name].shape)}"
        for name in want if name in have
        and tuple(have[name].shape) != tuple(want[name].shape)]
    if problems:
        raise InputError(f"{source} does not fit the model:\n"
                         + "\n".join(problems))


def abstract(tree: Any) -> Any:
    """The tree with shapes in place of arrays."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
