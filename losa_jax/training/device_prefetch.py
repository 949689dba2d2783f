"""Prefetches batches to the devices and measures the time spent waiting."""

import time
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np

from losa_jax.data.windows.batch import HOST_KEYS, Batch
from losa_jax.data.windows.skipped_videos import TRAINING, BrokenVideos
from losa_jax.training.specs import FROZEN_TYPES

# Share of waiting from which advice is printed.
BOTTLENECK_SHARE = 0.3


class DataClock:
    """Time and frames since the last log."""

    def __init__(self) -> None:
        self._intervals = 0
        self._all_seconds = self._all_waited = 0.0
        self._has_advised = False
        self.restart()

    def restart(self) -> None:
        """Starts a new interval."""
        self._started = time.perf_counter()
        self._waited, self._decoded, self._left_out = 0.0, 0, 0

    def add(self, waited_seconds: float, decoded_frames: int,
            left_out_windows: int) -> None:
        """Counts one batch."""
        self._waited += waited_seconds
        self._decoded += decoded_frames
        self._left_out += left_out_windows

    def metrics(self, num_steps: int) -> dict[str, float]:
        """Returns the metrics of an interval and starts the next one.

        They are seconds_per_step, without evaluation and checkpoints;
        data_wait_share of the time; decoded_frames_per_second; and
        left_out_windows, those that could not be read.
        """
        seconds = max(time.perf_counter() - self._started, 1e-9)
        metrics = {"seconds_per_step": seconds / num_steps,
                   "data_wait_share": self._waited / seconds,
                   "decoded_frames_per_second": self._decoded / seconds}
        if self._left_out:
            metrics["left_out_windows"] = self._left_out
        if self._intervals:  # the first one compiles
            self._all_seconds += seconds
            self._all_waited += self._waited
        self._intervals += 1
        self.restart()
        return metrics

    def advice(self, config: Any) -> str:
        """Returns, once in a run, how to speed up slow data; otherwise ""."""
        share = self._all_waited / max(self._all_seconds, 1e-9)
        if self._has_advised or share < BOTTLENECK_SHARE:
            return ""
        self._has_advised = True
        data = config.data
        if data.cache or config.features.folder:
            remedy = "copy the features to a local disk"
        else:
            remedy = (
                "leave --config.data.num_threads at 0 (all cores), raise "
                "--config.data.frame_cache_gib="
                f"{data.frame_cache_gib:g} until all frames fit, or use "
                "smaller videos (docs/videos.md, \"Small copies\")")
            if config.adapter.kind in FROZEN_TYPES:
                remedy += " or cached features (--mode=cache)"
        return (f"training waits for data in {100 * share:.0f} % of the "
                f"time: {remedy}")


class DevicePrefetch:
    """Copies the next batch to the devices while they compute.

    Call `fetch` after a step was dispatched and before its result is awaited.
    """

    def __init__(self, start: Callable[[int], grain.DatasetIterator],
                 put: Callable[[Batch], Any], clock: DataClock,
                 broken: BrokenVideos):
        """`start` returns the batches from one on, by its number; `put` copies
        host arrays to the devices."""
        self._start, self._put = start, put
        self._batches: grain.DatasetIterator | None = None
        self._clock, self._broken = clock, broken
        self._held: tuple[Batch, Any] | None = None
        self._given = 0
        self._result: Any = None  # of the last step

    def fetch(self, result: Any = None) -> None:
        """Waits for a batch and starts its copy, unless one is held.

        `result` is that of the step that was dispatched. The step before it is
        awaited first, so that a device never holds a third batch.
        """
        if self._held is not None:
            return
        jax.block_until_ready(self._result)
        self._result = result
        if self._batches is None:
            self._batches = self._start(self._given)
        started = time.perf_counter()
        batch = next(self._batches)
        waited = time.perf_counter() - started
        decoded = int(np.sum(batch.get("decoded_frames", 0)))
        left_out = self._broken.collect(batch, TRAINING, self._given + 1)
        self._clock.add(waited, decoded, left_out)
        host = {name: batch.pop(name) for name in HOST_KEYS
                if name in batch}
        self._held = host, self._put(batch)

    def next(self) -> tuple[Batch, dict[str, jax.Array]]:
        """Returns the next batch: (host, device) arrays."""
        self.fetch()
        held, self._held = self._held, None
        assert held is not None  # `fetch` raises otherwise
        self._given += 1
        return held

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last batch that `next` returned."""
        return {"next_index": self._given}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues at a position of `get_state`."""
        self.close()
        self._given, self._held = int(state["next_index"]), None

    def close(self) -> None:
        """Stops reading."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None
