"""Global batches of which each process reads only its own windows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

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


class Lane(NamedTuple):
    """Rows of a global batch that are held by the same processes.

    Attributes:
      rows: of the global batch, rising.
      holders: numbers of the processes, rising. All of them read the
        windows of these rows; the first keeps their results.
    """

    rows: tuple[int, ...]
    holders: tuple[int, ...]


def lanes(mesh: Mesh, batch_windows: int) -> list[Lane]:
    """The rows of a global batch by the processes that hold them.

    One process has one lane. Several have one each where each holds windows
    of its own, and share one where a window's clips are spread over them.
    """
    holders: dict[int, set[int]] = {}
    places: Any = NamedSharding(
        mesh, PartitionSpec("data")).devices_indices_map((batch_windows,))
    for device, (part,) in places.items():
        process = device.process_index
        for row in range(*part.indices(batch_windows)):
            holders.setdefault(row, set()).add(process)
    by_holders: dict[tuple[int, ...], list[int]] = {}
    for row, numbers in sorted(holders.items()):
        by_holders.setdefault(tuple(sorted(numbers)), []).append(row)
    return [Lane(tuple(rows), numbers)
            for numbers, rows in by_holders.items()]


def share_videos(num_windows: Sequence[int], lanes: Sequence[Lane]
                 ) -> list[list[int]]:
    """Numbers of the videos that each lane reads, rising.

    Each goes to the lane with the least windows a row so far; every process
    computes the same.

    Args:
      num_windows: of each video.
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
            # Rows of one device are neighbors, here as there.
            return leaf[first:first + len(wanted)][(slice(None), *index[1:])]

        return jax.make_array_from_callback(
            (batch_windows, *leaf.shape[1:]), where, part)

    return {name: put(np.asarray(leaf), shardings[name])
            for name, leaf in batch.items()}
