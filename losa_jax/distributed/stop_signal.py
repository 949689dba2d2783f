"""How a job is stopped from outside without losing anything."""

import signal
import time

from losa_jax.distributed import processes

# How often a loop asks whether another process is to stop.
ASK_SECONDS = 1.0


class Interrupted(Exception):
    """Stopped by a signal with everything saved; start again to go on."""


class StopSignal:
    """Notes SIGTERM (preemption) and SIGINT for the loop to act on.

    In a run of several processes a loop that all go through in step asks
    `after(step)`: they stop together, whichever the signal came to.
    """

    def __init__(self, *, in_step: bool = False):
        self._in_step = in_step and processes.count() > 1
        self._ask_again = 0.0

    def __enter__(self) -> "StopSignal":
        self.came = ""
        self._old = {}
        if self._in_step:
            # jax notes SIGTERM itself, and tells the other processes.
            self._old[signal.SIGINT] = signal.signal(
                signal.SIGINT, lambda *_: signal.raise_signal(
                    signal.SIGTERM))
            return self
        self._old = {number: signal.signal(number, self._note)
                     for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def after(self, step: int) -> str:
        """The signal to act on after this step; "" for none."""
        if self._in_step:
            return "SIGTERM" if processes.stop_reached(step) else ""
        return self.came

    def raise_if_asked(self, kept: str) -> None:
        """Raises Interrupted where this or another process of the run is to
        stop.

        Args:
          kept: says what stays, as "whole files stay".
        """
        if self.came:
            processes.ask_to_stop()
        elif time.monotonic() < self._ask_again:
            return
        self._ask_again = time.monotonic() + ASK_SECONDS
        if self.came or processes.asked_to_stop():
            raise Interrupted(
                f"stopped by {self.came or 'SIGTERM'}, {kept}: start the "
                "same command again to go on")

    def _note(self, number: int, _frame: object) -> None:
        if self.came:  # a second one means it
            raise KeyboardInterrupt
        self.came = signal.Signals(number).name

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
