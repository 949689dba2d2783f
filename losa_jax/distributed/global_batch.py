"""Global batches of which each process reads only the rows it needs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from losa_jax.distributed import sharding


class Lane(NamedTuple):
    """Rows of a global batch that the same processes hold."""

    rows: tuple[int, ...]  # of the global batch, ascending
    # Indices of the processes, ascending. Each of them reads the windows; the
    # first keeps the results.
    holders: tuple[int, ...]


def lanes(mesh: Mesh, batch_windows: int) -> list[Lane]:
    """Groups the rows of a global batch by the processes that hold them.

    Processes over which the clips of a window are spread share a lane.
    """
    holders: dict[int, set[int]] = {}
    indices: Any = NamedSharding(
        mesh, PartitionSpec("data")).devices_indices_map((batch_windows,))
    for device, (part,) in indices.items():
        for row in range(*part.indices(batch_windows)):
            holders.setdefault(row, set()).add(device.process_index)
    by_holders: dict[tuple[int, ...], list[int]] = {}
    for row, processes in sorted(holders.items()):
        by_holders.setdefault(tuple(sorted(processes)), []).append(row)
    return [Lane(tuple(rows), processes)
            for processes, rows in by_holders.items()]


def local_rows(mesh: Mesh, batch_windows: int) -> tuple[int, ...]:
    """Returns the rows that devices of this process hold, ascending."""
    here = jax.process_index()
    return tuple(sorted(row for lane in lanes(mesh, batch_windows)
                        if here in lane.holders for row in lane.rows))


def share_videos(num_windows: Sequence[int], lanes: Sequence[Lane]
                 ) -> list[list[int]]:
    """Returns the indices of the videos that each lane reads, ascending.

    Each video goes to the lane with the fewest windows per row so far.
    """
    loads = [0.0] * len(lanes)
    shares: list[list[int]] = [[] for _ in lanes]
    for video, count in enumerate(num_windows):
        lane = loads.index(min(loads))
        shares[lane].append(video)
        loads[lane] += count / len(lanes[lane].rows)
    return shares


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, batch_windows: int
              ) -> dict[str, jax.Array]:
    """Puts a global batch of `batch_windows` rows onto the mesh.

    `batch` holds the rows of `local_rows`, in their order: [rows, ...].
    """
    shapes = {name: (batch_windows, *leaf.shape[1:])
              for name, leaf in batch.items()}
    return jax.make_array_from_process_local_data(
        sharding.batch_shardings(batch, mesh), batch, shapes)
