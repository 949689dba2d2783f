"""Stops a job on a signal, after its work is saved."""

import signal
import time

from jax.experimental import multihost_utils

from losa_jax.distributed import processes

# Seconds between questions whether another process stops.
ASK_SECONDS = 1.0


class Interrupted(Exception):
    """Stopped by a signal, everything is saved; a new start continues."""


class StopSignal:
    """Notes SIGTERM (preemption) and SIGINT until the loop can stop.

    With `in_step`, every process must call `after` at every step; all then
    stop after the same one.
    """

    def __init__(self, *, in_step: bool = False):
        self._in_step = in_step and processes.count() > 1
        self._ask_again = 0.0

    def __enter__(self) -> "StopSignal":
        self.came = ""
        # In step, jax handles SIGTERM and informs the other processes.
        handlers = ({signal.SIGINT: lambda *_: signal.raise_signal(
                        signal.SIGTERM)} if self._in_step else
                    dict.fromkeys((signal.SIGTERM, signal.SIGINT),
                                  self._note))
        self._old = {number: signal.signal(number, handler)
                     for number, handler in handlers.items()}
        return self

    def after(self, step: int) -> str:
        """Returns the signal to stop for after this step, "" for none.

        Must be called at every step: a signal to any process stops all of
        them at a step that none has passed.
        """
        if not self._in_step:
            return self.came
        return ("SIGTERM" if multihost_utils.reached_preemption_sync_point(
            step) else "")

    def raise_if_asked(self, kept: str) -> None:
        """Raises Interrupted if this or another process is to stop; `kept` is
        the part of the message about what is saved."""
        if self.came:
            processes.ask_to_stop()
        elif time.monotonic() < self._ask_again:
            return
        self._ask_again = time.monotonic() + ASK_SECONDS
        if self.came or processes.asked_to_stop():
            raise Interrupted(
                f"stopped by {self.came or 'SIGTERM'}, {kept}: start the "
                "same command again to continue")

    def _note(self, number: int, _frame: object) -> None:
        if self.came:  # the user does not want to wait
            raise KeyboardInterrupt
        self.came = signal.Signals(number).name

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
