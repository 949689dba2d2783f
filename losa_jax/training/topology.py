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
      link_bytes: a second, to other chips.
    """

    memory_bytes: float
    flops: float
    link_bytes: float


_GIB = 2**30
CHIPS = {
    "v4": Chip(32 * _GIB, 275e12, 300e9),
    "v5e": Chip(16 * _GIB, 197e12, 200e9),
    "v5p": Chip(95 * _GIB, 459e12, 600e9),
    "v6e": Chip(32 * _GIB, 918e12, 448e9),
    # This machine's processors, to try the program itself; no speeds.
    "cpu": Chip(math.inf, math.nan, math.nan),
}


def parse_topology(text: str) -> tuple[str, tuple[int, ...]]:
    """"v5e:4x8" to a chip's name and the sides of its grid.

    Raises:
      InputError: another form, or an unknown chip.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
    if found is None or found[1] not in CHIPS:
        raise InputError(f"--topology={text}: write CHIP:SIDExSIDE, as "
                         f"v5e:4x8 or v5p:2x2x2; chips: {', '.join(CHIPS)}")
    return found[1], tuple(int(side) for side in found[2].split("x"))


def describe_devices(text: str) -> tuple[Chip, list[Any]]:
    """The chip, and devices to compile for.

    Raises:
      InputError: the topology is none that libtpu knows, libtpu is not
        installed, or there are too few processors.
    """
    name, sides = parse_topology(text)
    count = math.prod(sides)
    if name == "cpu":
        devices = jax.devices("cpu")
        if len(devices) < count:
            raise InputError(
                f"--topology={text}: this process has {len(devices)} CPU "
                "devices; start it with XLA_FLAGS=--xla_force_host_platform_"
                f"device_count={count}")
        return CHIPS[name], devices[:count]
    # Else libtpu asks a metadata server that is not there.
    for key, value in (("TPU_SKIP_MDS_QUERY", "1"),
                       ("TPU_WORKER_HOSTNAMES", "localhost"),
                       ("TPU_MIN_LOG_LEVEL", "3")):
        os.environ.setdefault(key, value)
    extra: dict[str, Any] = {}
    if count == 1:
        extra["chips_per_host_bounds"] = (1, 1, 1)
    if name == "v4":
        extra["chip_config_name"] = "megacore"
    try:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=text, **extra)
    except Exception as error:  # libtpu's own, of several kinds
        raise InputError(
            f"--topology={text}: cannot be compiled for ("
            f"{str(error).splitlines()[0][:200]}); it needs the extra `tpu` "
            "(pip install 'losa_jax[tpu]') and a grid that exists, as "
            "v5e:4x4") from error
    return CHIPS[name], list(topology.devices)
