"""Global batches of which each process reads only its own windows."""


import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from losa_jax.distributed import sharding


def local_rows(mesh: Mesh, batch_windows: int) -> tuple[int, ...]:
    """Windows of a global batch that this process's devices hold, rising."""
    rows = NamedSharding(
        mesh, PartitionSpec("data")).addressable_devices_indices_map(
        (batch_windows,))
    return tuple(sorted({row for part, in filter(None, rows.values())
                         for row in range(*part.indices(batch_windows))}))


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, batch_windows: int
              ) -> dict[str, jax.Array]:
    """The global batch's arrays on the mesh, from this process's rows.

    Args:
      batch: [r, ...] each, the rows of `local_rows` in their order.
      mesh: the run's.
      batch_windows: rows of the global batch.
    """
    rows = local_rows(mesh, batch_windows)
    shardings = sharding.batch_shardings(batch, mesh)
    if rows == tuple(range(batch_windows)) and mesh.is_multi_process is False:
        return sharding.put(batch, shardings)
    place = {row: number for number, row in enumerate(rows)}

    def put(leaf, where):
        def part(index):
            wanted = range(*index[0].indices(batch_windows))
            first = place[wanted[0]]
            # Rows of one device are neighbours, here as there.
            return leaf[first:first + len(wanted)][(slice(None), *index[1:])]

        return jax.make_array_from_callback(
            (batch_windows, *leaf.shape[1:]), where, part)

    return {name: put(np.asarray(leaf), shardings[name])
            for name, leaf in batch.items()}
