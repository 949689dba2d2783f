"""The device mesh, and the sharding of arrays on it.

Axes: `data` (windows), `clip` (clips of a window, which the frozen backbone
encodes one by one, without communication) and `fsdp` (shards of parameters,
gathered block by block, and clips as well). The result does not depend on the
mesh.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from losa_jax.errors import InputError
from losa_jax.utils import memory_map

AXES = ("data", "clip", "fsdp")
# Smaller parameters are cheaper to copy than to gather.
MIN_SHARDED_SIZE = 2 ** 16


def mesh_shape(num_devices: int, batch_windows: int, window_clips: int, *,
               data: int, clip: int, fsdp: int) -> tuple[int, int, int]:
    """Returns the sizes of the mesh axes; those given as 0 are chosen.

    `data` takes the most that divide the batch. `fsdp` takes the others if
    they divide the window's clips. Else `clip` takes as many as divide the
    clips, and `fsdp` the rest. InputError if they do not multiply to the
    devices, or `data` does not divide the batch, or `clip` the clips.
    """
    for name, size, number, what in (
            ("data", data, batch_windows,
             f"config.train.batch_windows={batch_windows}"),
            ("clip", clip, window_clips,
             f"the {window_clips} clips of a window (window.samples / "
             "window.clip_samples)"),
            ("fsdp", fsdp, num_devices, "")):
        common = math.gcd(num_devices, number)
        if size and common % size:
            raise InputError(
                f"config.mesh.{name}={size} must divide the {num_devices} "
                f"devices{what and ' and ' + what}: take "
                f"{_nearest_divisor(common, size)}")
    if data == 0:
        free = num_devices // (max(clip, 1) * max(fsdp, 1))
        data = math.gcd(batch_windows, free)
    if clip == 0:
        free = num_devices // (data * max(fsdp, 1))
        clip = math.gcd(window_clips, free)
        if fsdp == 0 and clip == free:
            clip = 1
    if fsdp == 0:
        fsdp = max(1, num_devices // (data * clip))
    if data * clip * fsdp != num_devices:
        raise InputError(
            f"config.mesh data={data} clip={clip} fsdp={fsdp} is "
            f"{data * clip * fsdp} devices, there are {num_devices}; set an "
            "axis to 0 to have it chosen")
    return data, clip, fsdp


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((size for size in range(1, number + 1) if number % size == 0),
               key=lambda size: abs(size - wanted))


def make_mesh(shape: tuple[int, int, int],
              devices: list[Any] | None = None) -> Mesh:
    """Returns a mesh of all devices, or of those given, in their order."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices).reshape(shape), AXES)


def of_leaves(tree: Any) -> Any:
    """Returns the shardings of a tree of arrays."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that puts the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def parameter_shardings(tree: Any, mesh: Mesh) -> Any:
    """Spreads each parameter over `fsdp` by its largest axis that divides."""
    size = mesh.shape["fsdp"]

    def sharding(leaf):
        axes = [axis for axis, length in enumerate(leaf.shape)
                if length % size == 0]
        if (size == 1 or math.prod(leaf.shape) < MIN_SHARDED_SIZE
                or not axes):
            return replicated(mesh)
        largest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(
            "fsdp" if axis == largest else None
            for axis in range(len(leaf.shape)))))

    return jax.tree.map(sharding, tree)


def _clip_axes(mesh: Mesh, count: int) -> tuple[str, ...]:
    """Returns the axes over which clips are spread, `fsdp` if it divides."""
    devices = mesh.shape["clip"] * mesh.shape["fsdp"]
    return ("clip", "fsdp") if count % devices == 0 else ("clip",)


def batch_sharding(name: str, shape: Sequence[int], mesh: Mesh
                   ) -> NamedSharding:
    """Spreads windows over `data`, and the frames of a window like its clips.

    `readable` has a value for each device, see `put_batch`.
    """
    axes: list[Any] = ["data"]
    if name == "frames":
        axes.append(_clip_axes(mesh, shape[1]))
    elif name == "readable":
        axes.append(("clip", "fsdp"))
    return NamedSharding(mesh, PartitionSpec(*axes))


def batch_shardings(batch: dict[str, Any], mesh: Mesh
                    ) -> dict[str, NamedSharding]:
    """Returns `batch_sharding` of each array."""
    return {name: batch_sharding(name, value.shape, mesh)
            for name, value in batch.items()}


def clip_placement(mesh: Mesh, window_clips: int
                   ) -> tuple[tuple[int, int], NamedSharding]:
    """Returns how `encode_windows` spreads clips: the parts into which windows
    and the clips of a window are divided, and the sharding of clips in chunks,
    [chunks, clips, ...]."""
    axes = _clip_axes(mesh, window_clips)
    parts = math.prod(mesh.shape[axis] for axis in axes)
    return ((mesh.shape["data"], parts),
            NamedSharding(mesh, PartitionSpec(None, ("data", *axes))))


def read_onto_mesh(tree: Any, mesh: Mesh, dtype_of: Callable[[Any], Any], *,
                   abstract: bool = False) -> Any:
    """Puts memory-mapped parameters onto the mesh by `parameter_shardings`.

    Each device reads and casts only its own slice, so host memory never
    holds a second copy of all parameters. `dtype_of` maps an array to its new
    dtype; `abstract` returns `jax.ShapeDtypeStruct`s instead.
    """
    def place(leaf, sharding):
        dtype = dtype_of(leaf)
        if abstract:
            return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)

        return jax.make_array_from_callback(
            leaf.shape, sharding,
            lambda index: memory_map.copied(leaf[index], dtype))

    return jax.tree.map(place, tree, parameter_shardings(tree, mesh))


def make_on_mesh(build: Callable[[], Any], mesh: Mesh, *,
                 abstract: bool = False) -> Any:
    """Runs a traceable function that creates parameters, on the mesh.

    `abstract` returns `jax.ShapeDtypeStruct`s instead.
    """
    program = jax.jit(build, out_shardings=parameter_shardings(
        jax.eval_shape(build), mesh))
    return program.eval_shape() if abstract else program()


def put(tree: Any, shardings: Any) -> Any:
    """Puts host arrays, which every process has in full, onto the mesh."""
    def place(leaf, sharding):
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(
            leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, tree, shardings)


class Lane(NamedTuple):
    """Rows of a global batch that the same processes hold."""

    rows: tuple[int, ...]  # of the global batch, ascending
    # Indices of the processes, ascending. Each of them reads its part of the
    # windows; the first keeps the results.
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


class Share(NamedTuple):
    """What this process reads of each global batch of windows."""

    rows: tuple[int, ...]  # ascending
    samples: range  # of each window
    window_samples: int


def local_share(mesh: Mesh, batch_windows: int, window_samples: int) -> Share:
    """Returns the part of a batch of frames that this process's devices hold.
    """
    shape = (batch_windows, window_samples)
    indices: Any = batch_sharding(
        "frames", shape, mesh).addressable_devices_indices_map(shape)
    held = [samples.indices(window_samples)[:2]
            for _, samples in indices.values()]
    samples = range(min(first for first, _ in held),
                    max(end for _, end in held))
    return Share(local_rows(mesh, batch_windows), samples, window_samples)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh, batch_windows: int,
              share: Share | None = None) -> dict[str, jax.Array]:
    """Puts a global batch of `batch_windows` rows onto the mesh.

    `batch` holds the rows of `local_rows`, in their order: [rows, ...]; of
    frames, the samples of `share` or all. Each process has a `readable` of its
    own, bool [rows]; together they are one array [batch_windows, devices].
    """
    rows = local_rows(mesh, batch_windows)

    def place(name, leaf):
        shape, first = (batch_windows, *leaf.shape[1:]), 0
        if name == "readable":
            devices = mesh.shape["clip"] * mesh.shape["fsdp"]
            shape = (batch_windows, devices)
            leaf = np.broadcast_to(leaf.reshape(-1, 1), (len(rows), devices))
        elif name == "frames" and share is not None:
            shape = (batch_windows, share.window_samples, *leaf.shape[2:])
            first = share.samples.start

        def part(index):
            row, end_row, _ = index[0].indices(batch_windows)
            here = rows.index(row)
            part = leaf[here:here + end_row - row]
            if leaf.ndim == 1:
                return part
            column, end_column, _ = index[1].indices(shape[1])
            return part[:, column - first:end_column - first]

        return jax.make_array_from_callback(
            shape, batch_sharding(name, shape, mesh), part)

    return {name: place(name, leaf) for name, leaf in batch.items()}
