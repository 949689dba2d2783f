"""A job stops on its own signal, and on that of another process."""

import os
import signal

import pytest

from losa_jax.distributed import processes, stop_signal
from losa_jax.distributed.stop_signal import Interrupted, StopSignal


@pytest.fixture
def asked(monkeypatch):
    """Returns the calls of `asked_to_stop`, while the clock stands still."""
    calls = []
    monkeypatch.setattr(processes, "asked_to_stop", lambda: bool(
        calls.append(1)) or len(calls) > 1)
    monkeypatch.setattr(stop_signal.time, "monotonic", lambda: 100.0)
    return calls


def test_an_own_signal_stops_at_once(asked):
    with StopSignal() as stop:
        stop.raise_if_asked("all is saved")
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted,
                           match="by SIGTERM, all is saved: start"):
            stop.raise_if_asked("all is saved")


def test_others_are_asked_once_a_second(asked, monkeypatch):
    with StopSignal() as stop:
        for _ in range(50):
            stop.raise_if_asked("all is saved")
        assert len(asked) == 1
        monkeypatch.setattr(stop_signal.time, "monotonic", lambda: 101.5)
        with pytest.raises(Interrupted, match="stopped by SIGTERM"):
            stop.raise_if_asked("all is saved")
