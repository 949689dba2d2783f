"""Numbers of a run that are read at evaluation time, not every step."""

import resource
import sys
from typing import Any

import jax
import numpy as np

from losa_jax.models.ops.params import flatten

_RANGES = ("short", "long")


def gate_diagnostics(trained: Any, tap_layers: tuple[int, ...], form: str
                ) -> dict[str, float]:
    """What LoSA learned to use, by tapped block and range.

    gate/RANGE/block_N is the mean absolute gate over the channels;
    added/RANGE/block_N the root mean square of the gated up-projection, the
    map by which the adapter reaches the features: zero at step 0 unless the
    gates are "tanh", whose gate is zero then.

    Args:
      trained: the tree; without LoSA's adapters the answer is empty.
      tap_layers: blocks that are tapped, in the adapters' order.
      form: config.adapter.gates.
    """
    flat = {name: leaf for name, leaf in flatten(trained).items()
            if "_gate/" in name}
    diagnostics: dict[str, float] = {}
    for span in _RANGES:
        found = {part: leaf for name, leaf in flat.items()
                 for part in ("gate", "up/kernel")
                 if name.endswith(f"/taps/{span}_gate/{part}")}
        if not found:
            continue
        gates, kernels = (np.asarray(jax.device_get(found[part]), np.float64)
                          for part in ("gate", "up/kernel"))
        if form == "tanh":
            gates = np.tanh(gates)
        elif form == "sigmoid":
            gates = 1 / (1 + np.exp(-gates))
        for block, gate, kernel in zip(tap_layers, gates, kernels,
                                       strict=True):
            diagnostics[f"gate/{span}/block_{block}"] = float(
                np.abs(gate).mean())
            diagnostics[f"added/{span}/block_{block}"] = float(
                np.sqrt(np.square(kernel * gate).mean()))
    return diagnostics


def memory_diagnostics() -> dict[str, float]:
    """Peaks so far, in GiB: of this process, of its first device.

    A device that does not tell (the CPU) is left out.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2 ** 30 if sys.platform == "darwin" else 2 ** 20
    diagnostics = {"host_memory_gib": peak / unit}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        diagnostics["device_memory_gib"] = (
            statistics["peak_bytes_in_use"] / 2 ** 30)
    return diagnostics
