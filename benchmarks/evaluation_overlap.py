"""Measures how busy evaluation and prediction keep a device.

    python -m benchmarks.evaluation_overlap [--batches=40]

The device is a stand-in: a batch is copied to it in 30 ms and computed in
60 ms, each by a thread that does one thing at a time; its result is fetched in
5 ms. `run_windows`, which evaluation and prediction use, feeds it, waiting for
each result or a batch ahead. The host's work on a batch (reading its windows
from the queue, NMS) is a sleep. Prints the share of the time that the device
computes.
"""

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from benchmarks.common.figures import table
from losa_jax.data.records import Window
from losa_jax.data.windows.batch import Inputs
from losa_jax.data.windows.stream import WindowBatch, WindowRow
from losa_jax.inference.run_windows import run_windows

COPY_SECONDS, COMPUTE_SECONDS, FETCH_SECONDS = 0.03, 0.06, 0.005


class _Output:
    """A result that is computed later, as a device's array."""

    def __init__(self, result: Future):
        self._result = result

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        self._result.result()
        time.sleep(FETCH_SECONDS)
        return np.zeros((1, 1))


class StandInDevice:
    """Copies and computes, each in order, at the same time."""

    def __init__(self) -> None:
        self._copies, self._steps = (ThreadPoolExecutor(1) for _ in range(2))
        self.computed: list[tuple[float, float]] = []  # starts and ends

    def step(self, inputs: Inputs) -> _Output:
        """Starts the copy of a batch and its computation."""
        copied = self._copies.submit(time.sleep, COPY_SECONDS)
        return _Output(self._steps.submit(self._compute, copied))

    def _compute(self, copied: Future) -> None:
        copied.result()
        started = time.perf_counter()
        time.sleep(COMPUTE_SECONDS)
        self.computed.append((started, time.perf_counter()))

    def busy_share(self) -> float:
        """Returns the share of computing between first start and last end."""
        starts, ends = np.transpose(self.computed)
        return float((ends - starts).sum() / (ends[-1] - starts[0]))


def busy_share(num_batches: int, host_seconds: float, is_ahead: bool) -> float:
    """Returns the busy share of a device that `run_windows` feeds."""
    device = StandInDevice()

    def batches() -> Iterator[WindowBatch]:
        for _ in range(num_batches):
            yield WindowBatch({"frames": np.zeros((1, 1), np.uint8)},
                              (WindowRow(0, Window(0, 1, 1)),), ())

    for _ in run_windows(device.step, batches(), is_ahead=is_ahead):
        time.sleep(host_seconds)
    return device.busy_share()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=40)
    arguments = parser.parse_args()
    print(table(
        ["host's work on a batch", "waiting for each result", "a batch ahead"],
        [(f"{1e3 * seconds:.0f} ms", *(
            f"{100 * busy_share(arguments.batches, seconds, is_ahead):.1f} %"
            for is_ahead in (False, True)))
         for seconds in (0.0, 0.01, 0.02, 0.04)]))


if __name__ == "__main__":
    main()
