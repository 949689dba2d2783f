"""A batch ahead, a position that is the step's, and what waiting costs."""

import json
import time

import numpy as np
import pytest

from configs import common
from losa_jax.data.windows.skipped_videos import BrokenVideos
from losa_jax.training.device_prefetch import DataClock, DevicePrefetch


class _Batches:
    """Batches 0, 1, 2, ... of one window."""

    def __init__(self, seconds=0.0):
        self.position, self._seconds = 0, seconds

    def __next__(self):
        time.sleep(self._seconds)
        number, self.position = self.position, self.position + 1
        faults = [("gone", "cannot be opened")] if number == 1 else []
        return {"frames": np.array([number]), "video_number": np.array([7]),
                "decoded_frames": np.array([30]),
                "faults": np.array([json.dumps(faults)])}

    def set_state(self, state):
        self.position = state["next_index"]


def test_a_prefetched_batch_is_not_counted_before_it_is_used():
    batches, put, clock = _Batches(), [], DataClock()
    skipped = BrokenVideos()
    prefetch = DevicePrefetch(
        batches, lambda batch: put.append(batch) or batch, clock, skipped)
    host, batch = prefetch.next()
    assert set(batch) == {"frames"} and host["video_number"] == [7]
    prefetch.fetch()
    prefetch.fetch()  # one is enough
    assert (len(put), batches.position) == (2, 2)
    assert prefetch.get_state() == {"next_index": 1}
    assert prefetch.next()[1]["frames"] == [1] and len(put) == 2
    metrics = clock.metrics(2)
    assert metrics["redrawn_windows"] == 1
    assert skipped.reasons == {"gone": "cannot be opened"}
    prefetch.fetch()
    prefetch.set_state({"next_index": 9})
    assert prefetch.next()[1]["frames"] == [9]
    assert prefetch.get_state() == {"next_index": 10}


def test_a_third_batch_waits_for_the_first_step():
    events = []

    class Result:
        def __init__(self, step):
            self._step = step

        def block_until_ready(self):
            events.append(f"awaited step {self._step}")

    prefetch = DevicePrefetch(
        _Batches(),
        lambda batch: events.append(f"copied batch {batch['frames'][0]}"),
        DataClock(), BrokenVideos())
    for step in range(4):
        prefetch.next()
        events.append(f"dispatched step {step}")
        prefetch.fetch(Result(step))
    assert events == [
        "copied batch 0",
        "dispatched step 0", "copied batch 1",
        "dispatched step 1", "awaited step 0", "copied batch 2",
        "dispatched step 2", "awaited step 1", "copied batch 3",
        "dispatched step 3", "awaited step 2", "copied batch 4"]


def test_clock_reports_rates_and_advises_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("losa_jax.training.device_prefetch.time.perf_counter",
                        lambda: now[0])
    config, clock = common.get_config(), DataClock()

    def interval(seconds, waited):
        clock.add(waited, 600, 0)
        now[0] += seconds
        return clock.metrics(5)

    metrics = interval(20.0, 19.0)  # the first one compiles: no advice
    assert metrics == {"seconds_per_step": 4.0, "data_wait_share": 0.95,
                       "decoded_frames_per_second": pytest.approx(30)}
    assert clock.advice(config) == ""
    interval(10.0, 2.0)
    assert clock.advice(config) == ""
    interval(10.0, 6.0)
    advice = clock.advice(config)
    assert "40 % of the time" in advice and "num_threads" in advice
    assert "--mode=cache" in advice
    assert clock.advice(config) == ""  # once a run
    config.adapter.kind = "tia"  # whose features change
    again = DataClock()
    again._all_seconds, again._all_waited = 10.0, 9.0
    assert "--mode=cache" not in again.advice(config)
