"""The training state, and the table of parameters that a run prints."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from losa_jax.models.detector import FeatureStatistics


@flax.struct.dataclass
class TrainState:
    """Everything that training changes, and the feature statistics.

    Attributes:
      step: int32, number of updates.
      trained: parameters of adapter, fusion and head, a nested dict.
      optimizer: optax state of `trained`.
      ema: moving average of `trained`, which evaluation uses.
      normalizer: float32, running number of positive points.
      statistics: channel mean and deviation of the head's input.
    """

    step: jax.Array
    trained: Any
    optimizer: Any
    ema: Any
    normalizer: jax.Array
    statistics: FeatureStatistics


def create_state(trained: Any, optimizer: optax.GradientTransformation,
                 normalizer: float, statistics: FeatureStatistics
                 ) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        optimizer=optimizer.init(trained),
        # A copy, because a donated buffer may appear only once.
        ema=jax.tree.map(jnp.array, trained),
        normalizer=jnp.asarray(normalizer, jnp.float32),
        statistics=statistics)


def parameter_table(trees: dict[str, Any]) -> str:
    """Returns a text table of parameter counts and bytes, two levels deep.

    Args:
      trees: {title: nested dict of arrays}.
    """
    rows: list[tuple[str, int, int]] = []
    for title, tree in trees.items():
        groups: dict[str, list] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path[:2], simple=True, separator="/")
            groups.setdefault(name, []).append(leaf)
        rows.append((f"{title} (all)", *_size(tree)))
        rows += [(f"  {name}", *_size(leaves))
                 for name, leaves in groups.items()]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'parameters':<{width}}  {'count':>13}  {'MiB':>9}"]
    lines += [f"{name:<{width}}  {count:>13,}  {size / 2**20:>9.2f}"
              for name, count, size in rows]
    return "\n".join(lines)


def tree_size(tree: Any) -> int:
    """Returns the number of elements in a tree of arrays."""
    return _size(tree)[0]


def _size(tree: Any) -> tuple[int, int]:
    """Returns (elements, bytes)."""
    leaves = jax.tree.leaves(tree)
    return (sum(leaf.size for leaf in leaves),
            sum(leaf.size * leaf.dtype.itemsize for leaf in leaves))
