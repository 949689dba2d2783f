"""The mesh and where arrays lie on it.

Axes: `data` (windows), `clip` (clips inside a window: the frozen backbone
sees each alone, so they spread without communication) and `fsdp` (shards of
parameters, gathered block by block; clips spread over it as well, so that no
device repeats another's work). The result does not depend on the mesh.
"""

import math
import mmap
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from losa_jax.errors import InputError

AXES = ("data", "clip", "fsdp")
# Smaller parameters are cheaper to copy than to gather.
MIN_SHARDED_SIZE = 2 ** 16


def mesh_shape(num_devices: int, batch_windows: int, window_clips: int, *,
               data: int, clip: int, fsdp: int) -> tuple[int, int, int]:
    """Sizes of the mesh axes; 0 in the config lets this choose.

    `data` takes as many devices as the batch divides among. `fsdp` takes the
    rest where the window's clips divide among them: clips spread over it as
    over `clip`, and parameters too, so that a chip's share of all memory
    falls with the number of chips. Else `clip` takes as many as the clips
    divide among, `fsdp` what is left.

    Raises:
      InputError: the sizes do not multiply to the number of devices, or the
        batch or the clips do not divide.
    """
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
    if batch_windows % data:
        raise InputError(f"config.train.batch_windows={batch_windows} does "
                         f"not divide by config.mesh.data={data}")
    if window_clips % clip:
        raise InputError(f"{window_clips} clips a window (config.window."
                         "frames / clip_frames) do not divide by "
                         f"config.mesh.clip={clip}")
    return data, clip, fsdp


def make_mesh(shape: tuple[int, int, int],
              devices: list[Any] | None = None) -> Mesh:
    """A mesh with automatic axes (`jax.make_mesh` now makes explicit ones,
    under which a plain matrix product of sharded arrays is an error)."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices).reshape(shape), AXES)


def of_leaves(tree: Any) -> Any:
    """Where the arrays of a tree lie."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def parameter_shardings(tree: Any, mesh: Mesh) -> Any:
    """Each parameter's largest axis that divides is spread over `fsdp`."""
    size = mesh.shape["fsdp"]

    def sharding(leaf):
        if size == 1 or math.prod(leaf.shape) < MIN_SHARDED_SIZE:
            return replicated(mesh)
        axes = sorted(range(len(leaf.shape)), key=lambda i: -leaf.shape[i])
        for axis in axes:
            if leaf.shape[axis] % size == 0:
                spec: list[str | None] = [None] * len(leaf.shape)
                spec[axis] = "fsdp"
                return NamedSharding(mesh, PartitionSpec(*spec))
        return replicated(mesh)

    return jax.tree.map(sharding, tree)


def clip_axes(mesh: Mesh, count: int) -> tuple[str, ...]:
    """Axes that a window's clips (or frames) lie on, behind `data`.

    `fsdp` is one of them unless the count does not divide among it: then its
    devices compute the same.
    """
    whole = mesh.shape["clip"] * mesh.shape["fsdp"]
    return ("clip", "fsdp") if count % whole == 0 else ("clip",)


def batch_shardings(batch: dict[str, Any], mesh: Mesh
                    ) -> dict[str, NamedSharding]:
    """Windows over `data`; the frames of a window as its clips lie.

    Args:
      batch: arrays, or their shapes; None for those of any size.
    """
    def spec(name, value):
        if name != "frames":
            return PartitionSpec("data")
        shape = getattr(value, "shape", None)
        axes = ("clip",) if shape is None else clip_axes(mesh, shape[1])
        return PartitionSpec("data", axes)

    return {name: NamedSharding(mesh, spec(name, value))
            for name, value in batch.items()}


def clip_placement(mesh: Mesh, window_clips: int
                   ) -> tuple[tuple[int, int], NamedSharding]:
    """((parts of the windows, of a window's clips), where the clips lie).

    The latter is of clips in chunks, [chunks, clips, ...]: see
    `encode_windows`.
    """
    axes = clip_axes(mesh, window_clips)
    parts = math.prod(mesh.shape[axis] for axis in axes)
    return ((mesh.shape["data"], parts),
            NamedSharding(mesh, PartitionSpec(None, ("data", *axes))))


def read_onto_mesh(tree: Any, mesh: Mesh, dtype_of: Callable[[Any], Any], *,
                   abstract: bool = False) -> Any:
    """Memory-mapped parameters onto the mesh.

    Each device reads, and casts, only its own slice: host memory never holds
    a second copy of the whole, in a process group not even a first.

    Args:
      tree: arrays, for `parameter_shardings`.
      dtype_of: array to the dtype it shall have.
      abstract: only say what would be there (`jax.ShapeDtypeStruct`).
    """
    def place(leaf, sharding):
        dtype = dtype_of(leaf)
        if abstract:
            return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)

        def read(index):
            part = np.asarray(leaf[index], dtype)
            _release_pages(leaf)
            return part

        return jax.make_array_from_callback(leaf.shape, sharding, read)

    return jax.tree.map(place, tree, parameter_shardings(tree, mesh))


def _release_pages(array: Any) -> None:
    """Lets go of a mapped file's pages: they can be read again any time."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    if array is not None and hasattr(mmap, "MADV_DONTNEED"):
        array.madvise(mmap.MADV_DONTNEED)


def make_on_mesh(build: Callable[[], Any], mesh: Mesh, *,
                 abstract: bool = False) -> Any:
    """A fresh tree of parameters, made where it lies, in one program.

    Args:
      build: traceable.
      abstract: see `read_onto_mesh`.
    """
    shapes = jax.eval_shape(build)
    shardings = parameter_shardings(shapes, mesh)
    if abstract:
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding),
            shapes, shardings)
    return jax.jit(build, out_shardings=shardings)()


def put(tree: Any, shardings: Any) -> Any:
    """Host arrays onto the mesh; every process has the whole of each."""
    def place(leaf, sharding):
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(
            leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, tree, shardings)
