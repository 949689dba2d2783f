"""Values that are logged at each evaluation."""

import resource
import sys
from typing import Any

import jax
import numpy as np

from losa_jax.models.ops.params import flatten


def gate_diagnostics(trained: Any, tap_layers: tuple[int, ...], form: str
                     ) -> dict[str, float]:
    """Returns how strongly LoSA uses each tapped block and range.

    gate/RANGE/block_N is the mean absolute gate of the channels;
    added/RANGE/block_N is the root mean square of the gated up-projection,
    through which the adapter changes the features.

    Args:
      trained: the tree; without LoSA's gates the result is empty.
      tap_layers: tapped blocks, in the adapters' order.
      form: config.adapter.gates.
    """
    flat = flatten(trained)
    diagnostics: dict[str, float] = {}
    for span in ("short", "long"):
        end = f"/taps/{span}_gate/gate"
        prefix = next((name.removesuffix("gate") for name in flat
                       if name.endswith(end)), None)
        if prefix is None:
            continue
        gates, kernels = (
            np.asarray(jax.device_get(flat[prefix + part]), np.float64)
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
    """Returns the peak memory of this process and its first device, in GiB.

    Devices that report none, such as CPUs, are left out.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2 ** 30 if sys.platform == "darwin" else 2 ** 20
    diagnostics = {"host_memory_gib": peak / unit}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        diagnostics["device_memory_gib"] = (
            statistics["peak_bytes_in_use"] / 2 ** 30)
    return diagnostics
