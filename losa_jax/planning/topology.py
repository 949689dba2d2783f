"""Accelerators that are not there: what they are, and how to compile for one.

Figures are the makers' public data sheets: dense bfloat16 FLOP/s, memory and
its bandwidth, bandwidth of the links to other chips (all of a chip, one
direction).
"""

import dataclasses
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from losa_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      memory_bytes: that a program may use.
      flops: bfloat16, a second.
      memory_bandwidth: bytes a second.
      link_bytes: a second, to other chips.
      gpu: what the GPU compiler must know; None for others.
    """

    memory_bytes: float
    flops: float
    memory_bandwidth: float
    link_bytes: float
    gpu: "Gpu | None" = None


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Facts of a GPU from its data sheet and CUDA's programming guide.

    Attributes:
      compute_capability: major, minor.
      cores: streaming multiprocessors.
      shared_bytes: shared memory of a core; a block may have 1 KiB less.
      cache_bytes: second level.
      clock_ghz: boost.
    """

    compute_capability: tuple[int, int]
    cores: int
    shared_bytes: int
    cache_bytes: int
    clock_ghz: float


_GIB = 2**30
# What the driver and the libraries keep of a GPU's memory; jax takes 75 % by
# itself (XLA_PYTHON_CLIENT_MEM_FRACTION), which can be raised to this.
_GPU_SHARE = 0.92
_H100 = Gpu((9, 0), 132, 228 * 1024, 50 * 2**20, 1.98)
_A100 = Gpu((8, 0), 108, 164 * 1024, 40 * 2**20, 1.41)
CHIPS = {
    "v4": Chip(32 * _GIB, 275e12, 1228e9, 300e9),
    "v5e": Chip(16 * _GIB, 197e12, 819e9, 200e9),
    "v5p": Chip(95 * _GIB, 459e12, 2765e9, 600e9),
    "v6e": Chip(32 * _GIB, 918e12, 1640e9, 448e9),
    # The SXM modules with 80 GB; NVLink, one direction.
    "h100": Chip(_GPU_SHARE * 80e9, 989e12, 3350e9, 450e9, _H100),
    "a100": Chip(_GPU_SHARE * 80e9, 312e12, 2039e9, 300e9, _A100),
    # This machine's processors, to try the program itself; no speeds.
    "cpu": Chip(math.inf, math.nan, math.nan, math.nan),
}


def parse_topology(text: str) -> tuple[str, tuple[int, ...]]:
    """"v5e:4x8" to a chip's name and the sides of its grid.

    Raises:
      InputError: another form, or an unknown chip.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    if found is None or found[1] not in CHIPS:
        raise InputError(
            f"--topology={text}: write CHIP:SIDExSIDE, as v5e:4x8 or "
            "v5p:2x2x2, h100:8 for a host of GPUs, h100:4x8 for four; "
            f"chips: {', '.join(CHIPS)}")
    return found[1], tuple(int(side) for side in found[2].split("x"))


def describe_devices(text: str) -> tuple[Chip, list[Any]]:
    """The chip, and devices to compile for.

    Raises:
      InputError: the topology is none that the compiler knows, the compiler
        is not installed, or there are too few processors.
    """
    name, sides = parse_topology(text)
    chip = CHIPS[name]
    if name == "cpu":
        return chip, _processors(text, math.prod(sides))
    gpu = chip.gpu
    try:
        topology = (_tpu(text, name, math.prod(sides)) if gpu is None
                    else _gpus(text, name, chip, gpu, sides))
    except InputError:
        raise
    except Exception as error:  # the compilers' own, of several kinds
        extra, form = (("tpu", "v5e:4x4") if chip.gpu is None
                       else ("cuda12", "h100:8"))
        raise InputError(
            f"--topology={text}: cannot be compiled for ("
            f"{str(error).splitlines()[0][:200]}); it needs the extra "
            f"`{extra}` (pip install 'losa_jax[{extra}]') and a grid that "
            f"exists, as {form}") from error
    return chip, list(topology.devices)


def _processors(text: str, count: int) -> list[Any]:
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise InputError(
            f"--topology={text}: this process has {len(devices)} CPU "
            "devices; start it with XLA_FLAGS=--xla_force_host_platform_"
            f"device_count={count}")
    return devices[:count]


def _tpu(text: str, name: str, count: int) -> Any:
    # Else libtpu asks a metadata server that is not there, and two processes
    # on one machine refuse each other.
    for key, value in (("TPU_SKIP_MDS_QUERY", "1"),
                       ("TPU_WORKER_HOSTNAMES", "localhost"),
                       ("TPU_MIN_LOG_LEVEL", "3"),
                       ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")):
        os.environ.setdefault(key, value)
    extra: dict[str, Any] = {}
    if count == 1:
        extra["chips_per_host_bounds"] = (1, 1, 1)
    if name == "v4":
        extra["chip_config_name"] = "megacore"
    return topologies.get_topology_desc(platform="tpu", topology_name=text,
                                        **extra)


def _gpus(text: str, name: str, chip: Chip, gpu: Gpu, sides: tuple[int, ...]
          ) -> Any:
    """GPUs of one or more hosts; the CUDA plugin compiles without a GPU."""
    if len(sides) > 2:
        raise InputError(f"--topology={text}: GPUs are {name}:GPUS of one "
                         f"host or {name}:HOSTSxGPUS")
    hosts, gpus = (1, *sides)[-2:]
    return topologies.get_topology_desc(
        platform="cuda", topology_name=name, target_config=_target(chip, gpu),
        topology=f"1x{hosts}x{gpus}")


def _target(chip: Chip, gpu: Gpu) -> str:
    """A GPU as XLA's text proto GpuTargetConfigProto says it."""
    major, minor = gpu.compute_capability
    facts = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32,
        "threads_per_core_limit": 2048, "fpus_per_core": 128,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_block_optin": gpu.shared_bytes - 1024,
        "shared_memory_per_core": gpu.shared_bytes,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1, "core_count": gpu.cores,
        "l2_cache_size": gpu.cache_bytes, "clock_rate_ghz": gpu.clock_ghz,
        "memory_bandwidth": int(chip.memory_bandwidth),
        "device_memory_size": int(chip.memory_bytes / _GPU_SHARE),
    }
    lines = "\n".join(f"  {key}: {value}" for key, value in facts.items())
    return (f"gpu_device_info {{\n{lines}\n  cuda_compute_capability "
            f"{{ major: {major} minor: {minor} }}\n}}\n"
            'platform_name: "CUDA"\n')
