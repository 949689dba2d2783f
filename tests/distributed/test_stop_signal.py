"""A job stops on its own signal, and on that of another process."""

import os
import signal

import pytest

from losa_jax.distributed import processes, stop_signal
from losa_jax.distributed.stop_signal import StopSignal
from losa_jax.utils.interrupt import Interrupted, leave_at_once


@pytest.fixture
def asked(monkeypatch):
    """Returns the calls of `asked_to_stop`, while the clock stands still."""
    calls = []
    monkeypatch.setattr(processes, "asked_to_stop", lambda: bool(
        calls.append(1)) or len(calls) > 1)
    monkeypatch.setattr(stop_signal.time, "monotonic", lambda: 100.0)
    return calls


def test_without_a_loop_a_signal_raises_at_once_and_not_as_an_error():
    before = {number: signal.getsignal(number)
              for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        leave_at_once()
        for number in before:
            with pytest.raises(Interrupted, match="finished is kept"):
                try:
                    os.kill(os.getpid(), number)
                except Exception:
                    pytest.fail("libraries would catch it")
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.came_now() == "SIGTERM"
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
