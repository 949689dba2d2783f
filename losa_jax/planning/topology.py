"""Descriptions of accelerators to compile for, from public data sheets."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from losa_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator."""

    memory_bytes: float | None  # for programs; None if there is no limit
    flops: float | None  # dense bfloat16 FLOP/s; None if unknown
    gpu: Mapping[str, Any] | None = None  # fields of XLA's GpuDeviceInfoProto


_GIB = 2**30
# The rest is for the driver and the libraries. jax itself takes 75 %, unless
# XLA_PYTHON_CLIENT_MEM_FRACTION raises it to this.
_GPU_SHARE = 0.92
# Of shared memory a block may have 1 KiB less than a core has.
_H100 = {
    "cuda_compute_capability": "{ major: 9 minor: 0 }",
    "core_count": 132, "shared_memory_per_core": 228 * 1024,
    "shared_memory_per_block_optin": 227 * 1024,
    "l2_cache_size": 50 * 2**20, "clock_rate_ghz": 1.98,
    "memory_bandwidth": 3350 * 10**9, "device_memory_size": 80 * 10**9}
_A100 = {
    "cuda_compute_capability": "{ major: 8 minor: 0 }",
    "core_count": 108, "shared_memory_per_core": 164 * 1024,
    "shared_memory_per_block_optin": 163 * 1024,
    "l2_cache_size": 40 * 2**20, "clock_rate_ghz": 1.41,
    "memory_bandwidth": 2039 * 10**9, "device_memory_size": 80 * 10**9}
_ANY_GPU = {
    "threads_per_block_limit": 1024, "threads_per_warp": 32,
    "threads_per_core_limit": 2048, "fpus_per_core": 128,
    "shared_memory_per_block": 48 * 1024, "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16, "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1, "block_dim_limit_z": 2**16 - 1}
CHIPS = {
    "v4": Chip(32 * _GIB, 275e12),
    "v5e": Chip(16 * _GIB, 197e12),
    "v5p": Chip(95 * _GIB, 459e12),
    "v6e": Chip(32 * _GIB, 918e12),
    # The SXM modules with 80 GB.
    "h100": Chip(_GPU_SHARE * 80e9, 989e12, _H100),
    "a100": Chip(_GPU_SHARE * 80e9, 312e12, _A100),
    # This machine's processors, to try the job itself.
    "cpu": Chip(None, None),
}


def describe_devices(text: str) -> tuple[Chip, list[Any]]:
    """Returns the chip of a topology, and devices to compile for.

    Raises:
      InputError: another form, an unknown chip or topology, a compiler that
        is not installed, or too few CPU devices in this process.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    if match is None or match[1] not in CHIPS:
        raise InputError(
            f"--topology={text}: write TPU:SIDExSIDE, as v5e:4x8 or v5p:2x2x2,"
            " or GPU:GPUS or GPU:HOSTSxGPUS, as h100:8 or h100:4x8; chips: "
            + ", ".join(CHIPS))
    name, sides = match[1], [int(side) for side in match[2].split("x")]
    chip, count = CHIPS[name], math.prod(sides)
    if name == "cpu":
        devices = jax.devices("cpu")
        if len(devices) < count:
            raise InputError(
                f"--topology={text}: this process has {len(devices)} CPU "
                "devices; start it with XLA_FLAGS=--xla_force_host_platform_"
                f"device_count={count}")
        return chip, devices[:count]
    if chip.gpu and len(sides) > 2:
        raise InputError(f"--topology={text}: GPUs are {name}:GPUS of one "
                         f"host or {name}:HOSTSxGPUS")
    try:
        topology = (_gpus(name, chip.gpu, sides) if chip.gpu
                    else _tpus(text, name, count))
    except Exception as error:  # each compiler raises types of its own
        extra, form = ("cuda12", "h100:8") if chip.gpu else ("tpu", "v5e:4x4")
        raise InputError(
            f"--topology={text}: cannot be compiled for ("
            f"{str(error).splitlines()[0][:200]}); it needs the extra "
            f"`{extra}` (pip install 'losa_jax[{extra}]') and a grid that "
            f"exists, as {form}") from error
    return chip, list(topology.devices)


def _tpus(text: str, name: str, count: int) -> Any:
    # Without these, libtpu asks a metadata server that does not exist here,
    # and two processes on one machine refuse each other.
    for key, value in (("TPU_SKIP_MDS_QUERY", "1"),
                       ("TPU_WORKER_HOSTNAMES", "localhost"),
                       ("TPU_MIN_LOG_LEVEL", "3"),
                       ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")):
        os.environ.setdefault(key, value)
    extra: dict[str, Any] = (
        {"chips_per_host_bounds": (1, 1, 1)} if count == 1 else {})
    if name == "v4":
        extra["chip_config_name"] = "megacore"
    return topologies.get_topology_desc(platform="tpu", topology_name=text,
                                        **extra)


def _gpus(name: str, gpu: Mapping[str, Any], sides: Sequence[int]) -> Any:
    """Describes GPUs; the CUDA plugin compiles for them without a GPU."""
    hosts, gpus = (1, *sides)[-2:]
    facts = " ".join(f"{key}: {value}"
                     for key, value in {**_ANY_GPU, **gpu}.items())
    return topologies.get_topology_desc(
        platform="cuda", topology_name=name, topology=f"1x{hosts}x{gpus}",
        target_config=f'gpu_device_info {{ {facts} }} platform_name: "CUDA"')
