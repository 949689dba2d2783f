"""A batch ahead, a position that is the step's, and what waiting costs."""

import json

import numpy as np
import pytest

from configs import common
from losa_jax.data.windows.skipped_videos import BrokenVideos
from losa_jax.training.device_prefetch import DataClock, DevicePrefetch


class _Batches:
    """Batches of one window each, which hold their number."""

    def __init__(self, first=0):
        self.position = first

    def __next__(self):
        number, self.position = self.position, self.position + 1
        fault = json.dumps(["gone", "cannot be opened"])
        return {"frames": np.array([number]), "video_number": np.array([7]),
                "decoded_frames": np.array([30]),
                "fault": np.array([fault if number == 1 else ""])}

    def close(self):
        self.position = None


def test_a_prefetched_batch_is_not_counted_before_it_is_used():
    started, put, clock = [], [], DataClock()

    def start(first):
        started.append(_Batches(first))
        return started[-1]

    skipped = BrokenVideos()
    prefetch = DevicePrefetch(
        start, lambda batch: put.append(batch) or batch, clock, skipped)
    host, batch = prefetch.next()
    assert set(batch) == {"frames"} and host["video_number"] == [7]
    prefetch.fetch()
    prefetch.fetch()  # one is enough
    assert (len(put), started[0].position) == (2, 2)
    assert prefetch.get_state() == {"next_index": 1}
    assert prefetch.next()[1]["frames"] == [1] and len(put) == 2
    metrics = clock.metrics(2)
    assert metrics["left_out_windows"] == 1
    assert skipped.reasons == {"gone": "cannot be opened"}
    prefetch.fetch()
    prefetch.set_state({"next_index": 9})
    assert prefetch.next()[1]["frames"] == [9]
    assert prefetch.get_state() == {"next_index": 10}
    assert started[0].position is None  # closed
    prefetch.close()
    assert started[1].position is None


def test_a_third_batch_waits_for_the_first_step():
    events = []

    class Result:
        def __init__(self, step):
            self._step = step

        def block_until_ready(self):
            events.append(f"awaited step {self._step}")

    prefetch = DevicePrefetch(
        _Batches,
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
