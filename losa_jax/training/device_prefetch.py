"""Batches onto the devices, one ahead of the step, and what they cost.

Metrics that `DataClock.metrics` gives for every log interval:

- seconds_per_step: of the interval, evaluation and checkpoints left out.
- data_wait_share: share of that in which the loop stood waiting for a batch.
- decoded_frames_per_second: video frames decoded for the batches used.
- redrawn_windows: windows that made room for another one because their
  video could not be read (data.on_broken_video=skip); only if there were any.
"""

import time
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np

from losa_jax.data.windows.batch import HOST_KEYS, Batch
from losa_jax.data.windows.skipped_videos import TRAINING, BrokenVideos
from losa_jax.training.feature_store import CACHED_KINDS

# From this share of waiting on, the run says what would help.
BOTTLENECK_SHARE = 0.3


class DataClock:
    """Time and frames since the last log, and whether data is too slow."""

    def __init__(self) -> None:
        self._intervals = 0
        self._all_seconds = self._all_waited = 0.0
        self._has_advised = False
        self.restart()

    def restart(self) -> None:
        """Forgets what was measured since the last log."""
        self._started = time.perf_counter()
        self._waited, self._decoded, self._redrawn = 0.0, 0, 0

    def add(self, waited_seconds: float, decoded_frames: int,
            redrawn_windows: int) -> None:
        """Counts one batch."""
        self._waited += waited_seconds
        self._decoded += decoded_frames
        self._redrawn += redrawn_windows

    def metrics(self, num_steps: int) -> dict[str, float]:
        """Of the interval that ends now; starts the next one."""
        seconds = max(time.perf_counter() - self._started, 1e-9)
        found = {"seconds_per_step": seconds / num_steps,
                 "data_wait_share": self._waited / seconds,
                 "decoded_frames_per_second": self._decoded / seconds}
        if self._redrawn:
            found["redrawn_windows"] = self._redrawn
        if self._intervals:  # the first one compiles
            self._all_seconds += seconds
            self._all_waited += self._waited
        self._intervals += 1
        self.restart()
        return found

    def advice(self, config: Any) -> str:
        """One line, once a run, if data is the bottleneck; else ""."""
        share = self._all_waited / max(self._all_seconds, 1e-9)
        if self._has_advised or share < BOTTLENECK_SHARE:
            return ""
        self._has_advised = True
        data = config.data
        if data.cache or config.features.folder:
            remedy = "copy the features to a local disk"
        else:
            remedy = (
                f"raise --config.data.num_threads={data.num_threads} to the "
                "number of cores, or --config.data.frame_cache_gib="
                f"{data.frame_cache_gib:g} until the set fits; smaller "
                "videos (docs/videos.md, \"Small copies\")")
            if config.adapter.kind in CACHED_KINDS:
                remedy += "; features (--mode=cache)"
        return (f"{100 * share:.0f} % of the time goes into waiting for "
                f"data: {remedy}")


class DevicePrefetch:
    """The next batch, on the devices before it is asked for.

    `fetch` after a step has been started and before anything waits for it:
    then the batch is awaited and copied while the devices compute.
    """

    def __init__(self, batches: grain.DatasetIterator,
                 put: Callable[[Batch], Any], clock: DataClock,
                 broken: BrokenVideos):
        """
        Args:
          batches: of the dataset.
          put: host arrays onto the devices.
          clock: told of waiting and decoding.
          broken: told of videos that were skipped.
        """
        self._batches, self._put = batches, put
        self._clock, self._broken = clock, broken
        self._held: tuple[Batch, Any] | None = None
        self._given = 0

    def fetch(self) -> None:
        """Awaits a batch and starts its way to the devices."""
        if self._held is not None:
            return
        started = time.perf_counter()
        batch = next(self._batches)
        waited = time.perf_counter() - started
        decoded = int(np.sum(batch.get("decoded_frames", 0)))
        redrawn = self._broken.collect(batch, TRAINING, self._given + 1)
        self._clock.add(waited, decoded, redrawn)
        host = {name: batch.pop(name) for name in HOST_KEYS
                if name in batch}
        self._held = host, self._put(batch)

    def next(self) -> tuple[Batch, dict[str, jax.Array]]:
        """(what stays on the host, what the step reads)."""
        self.fetch()
        held, self._held = self._held, None
        assert held is not None  # `fetch` raises where there is none
        self._given += 1
        return held

    def get_state(self) -> dict[str, Any]:
        """The position after the last batch given, not the last fetched."""
        return {"next_index": self._given}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with the batch that `get_state` told of."""
        self._batches.set_state(state)
        self._given, self._held = int(state["next_index"]), None

    def close(self) -> None:
        """Ends the reading."""
        self._batches.close()
