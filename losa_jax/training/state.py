"""The training state, and the table of parameters that a run prints."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from losa_jax.models.detector import FeatureStatistics


@flax.struct.dataclass
class TrainState:
    """Everything that training changes, and the statistics it rests on.

    Attributes:
      step: int32, updates done.
      trained: parameters of adapters, fusion and head (a plain dict tree).
      optimizer: optax state, for `trained` only.
      ema: moving average of `trained`; evaluation uses it.
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
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        optimizer=optimizer.init(trained),
        # A copy: the step donates its buffers, and two leaves of one state
        # must not be the same buffer.
        ema=jax.tree.map(jnp.array, trained),
        normalizer=jnp.asarray(normalizer, jnp.float32),
        statistics=statistics)


def parameter_table(trees: dict[str, Any]) -> str:
    """Counts and bytes of parameter trees, two levels deep, for people.

    Args:
      trees: {"trained": tree, "frozen": tree}, nested dicts of arrays.
    """
    rows: list[tuple[str, int, int]] = []
    for title, tree in trees.items():
        groups: dict[str, list] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            keys = [str(getattr(key, "key", key)) for key in path]
            groups.setdefault("/".join(keys[:2]), []).append(leaf)
        total = [leaf for leaves in groups.values() for leaf in leaves]
        rows.append((f"{title} (all)", *_size(total)))
        rows += [(f"  {name}", *_size(leaves))
                 for name, leaves in groups.items()]
    width = max(len(row[0]) for row in rows)
    lines = [f"{'parameters':<{width}}  {'count':>13}  {'MiB':>9}"]
    lines += [f"{name:<{width}}  {count:>13,}  {size / 2**20:>9.2f}"
              for name, count, size in rows]
    return "\n".join(lines)


def tree_size(tree: Any) -> int:
    """Numbers in a tree of arrays."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _size(leaves: list) -> tuple[int, int]:
    count = tree_size(leaves)
    size = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize
               for leaf in leaves)
    return count, size
