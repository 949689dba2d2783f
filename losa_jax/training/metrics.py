"""Writes the metrics of a run, and computes diagnostics for it."""

import json
import math
import resource
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from losa_jax.distributed import processes
from losa_jax.models.ops.params import flatten
from losa_jax.utils import atomic_write, run_files


class MetricWriter:
    """Writes to metrics.jsonl and TensorBoard in the first process."""

    def __init__(self, workdir: Path, first_step: int):
        """Drops lines after `first_step`, at which this start begins.

        A run that was killed after its last checkpoint leaves such lines.
        """
        self._writes = processes.is_first()
        if not self._writes:
            return
        self._path = path = workdir / run_files.METRICS_FILE
        _drop_lines_after(path, first_step)
        with atomic_write.writing(path):
            self._file = path.open("a")
        self._events = _EventFile(
            workdir / run_files.TENSORBOARD_FOLDER, first_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends a line {"step": ..., name: value, ...}.

        Values that are not finite become null.
        """
        if not self._writes:
            return
        clean = {name: value if math.isfinite(value) else None
                 for name, value in values.items()}
        with atomic_write.writing(self._path):
            self._file.write(json.dumps({"step": step, **clean}) + "\n")
            self._file.flush()
        self._events.write(step, values)

    def close(self) -> None:
        """Closes the files."""
        if self._writes:
            self._events.close()
            with atomic_write.writing(self._path):
                self._file.close()


class _EventFile:
    """Writes scalars for TensorBoard.

    The writer of tensorboardX has a thread, which ends silently where the disk
    is full; the training then waits for it for ever.
    """

    def __init__(self, folder: Path, first_step: int):
        # Imported here, because it imports torch where that is installed.
        from tensorboardX import record_writer, summary
        from tensorboardX.proto import event_pb2

        self._event, self._scalar = event_pb2.Event, summary.scalar
        self._checksum = record_writer.masked_crc32c
        self._path = folder / (f"events.out.tfevents.{time.time():.0f}."
                               f"{socket.gethostname()}")
        atomic_write.make_folder(folder)
        with atomic_write.writing(self._path):
            self._file = self._path.open("ab", buffering=0)
        first = {"step": first_step + 1} if first_step else {}
        self._append(file_version="brain.Event:2", **first)
        if first_step:  # TensorBoard hides the points of later steps.
            self._append(session_log=event_pb2.SessionLog(
                status=event_pb2.SessionLog.START), **first)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._append(summary=self._scalar(name, value), step=step)

    def _append(self, **fields: Any) -> None:
        """Appends a TFRecord: length, its checksum, event, its checksum."""
        event = self._event(wall_time=time.time(), **fields)
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        with atomic_write.writing(self._path):
            self._file.write(b"".join((
                length, struct.pack("<I", self._checksum(length)),
                data, struct.pack("<I", self._checksum(data)))))

    def close(self) -> None:
        self._file.close()


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            # A kill in the middle of a write leaves half a line.
            continue
    atomic_write.write_text(path, "".join(line + "\n" for line in kept))


def gate_diagnostics(trained: Any, tap_layers: tuple[int, ...], form: str
                     ) -> dict[str, float]:
    """Returns how strongly LoSA uses each tapped block and range.

    gate/RANGE/block_N is the mean absolute gate of the channels, and
    added/RANGE/block_N the root mean square of the gated up-projection. For a
    block that several adapters read, the adapter's number follows.

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
        for i, (block, gate, kernel) in enumerate(zip(
                tap_layers, gates, kernels, strict=True)):
            name = (f"{span}/block_{block}" if tap_layers.count(block) == 1
                    else f"{span}/block_{block}/{i}")
            diagnostics[f"gate/{name}"] = float(np.abs(gate).mean())
            diagnostics[f"added/{name}"] = float(
                np.sqrt(np.square(kernel * gate).mean()))
    return diagnostics


def memory_diagnostics() -> dict[str, float]:
    """Returns the peak memory of this process and its first device, in GiB.

    CPUs report none as devices.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2 ** 30 if sys.platform == "darwin" else 2 ** 20
    diagnostics = {"host_memory_gib": peak / unit}
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        diagnostics["device_memory_gib"] = (
            statistics["peak_bytes_in_use"] / 2 ** 30)
    return diagnostics


def parameter_table(trees: dict[str, Any]) -> str:
    """Returns a text table of parameter counts and bytes, two levels deep.

    Args:
      trees: {title: nested dict of arrays}.
    """
    rows: list[tuple[str, Any]] = []
    for title, tree in trees.items():
        groups: dict[str, list] = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            name = jax.tree_util.keystr(path[:2], simple=True, separator="/")
            groups.setdefault(f"  {name}", []).append(leaf)
        rows += [(f"{title} (all)", tree), *groups.items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'parameters':<{width}}  {'count':>13}  {'MiB':>9}"]
    for name, tree in rows:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
        lines.append(f"{name:<{width}}  {optax.tree.size(tree):>13,}  "
                     f"{size / 2**20:>9.2f}")
    return "\n".join(lines)
