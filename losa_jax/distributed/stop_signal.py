"""Stops a job on a signal, after its work is saved."""

import itertools
import signal
import time

from jax.experimental import multihost_utils

from losa_jax.distributed import processes
from losa_jax.utils.interrupt import interrupted

# Seconds between questions whether another process stops.
ASK_SECONDS = 1.0
# All processes pass the places where they may stop in step in one order.
_places = itertools.count(1)


class StopSignal:
    """Notes SIGTERM (preemption) and SIGINT until the loop can stop.

    With `in_step`, every process must call `came_now` or `raise_if_asked` at
    the same places, after each step and each batch of an evaluation; all then
    stop at the same one.
    """

    def __init__(self, *, in_step: bool = False):
        self._in_step = in_step and processes.count() > 1
        self._ask_again = 0.0
        self.came = ""

    def __enter__(self) -> "StopSignal":
        # In step, jax handles SIGTERM and informs the other processes.
        handlers = ({signal.SIGINT: lambda *_: signal.raise_signal(
                        signal.SIGTERM)} if self._in_step else
                    dict.fromkeys((signal.SIGTERM, signal.SIGINT),
                                  self._note))
        self._old = {number: signal.signal(number, handler)
                     for number, handler in handlers.items()}
        return self

    def came_now(self) -> str:
        """Returns the signal to stop for, "" for none; with `in_step` one to
        any process stops all of them at a place that none has passed."""
        if not self._in_step:
            return self.came
        return ("SIGTERM" if multihost_utils.reached_preemption_sync_point(
            next(_places)) else "")

    def raise_if_asked(self, kept: str) -> None:
        """Raises Interrupted if this or another process is to stop; `kept` is
        the part of the message about what is saved."""
        if self._in_step:
            if came := self.came_now():
                raise interrupted(came, kept)
            return
        if self.came:
            processes.ask_to_stop()
        elif time.monotonic() < self._ask_again:
            return
        self._ask_again = time.monotonic() + ASK_SECONDS
        if self.came or processes.asked_to_stop():
            raise interrupted(self.came or "SIGTERM", kept)

    def _note(self, number: int, _frame: object) -> None:
        # At a second Ctrl-C the user does not want to wait. Launchers may send
        # SIGTERM twice.
        if self.came and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.came = signal.Signals(number).name

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
