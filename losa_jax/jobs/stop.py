"""How a job is stopped from outside without losing anything."""

import signal


class Interrupted(Exception):
    """Stopped by a signal with everything saved; start again to go on."""


class StopSignal:
    """Notes SIGTERM (preemption) and SIGINT for the loop to act on."""

    def __enter__(self) -> "StopSignal":
        self.came = ""
        self._old = {number: signal.signal(number, self._note)
                     for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, _frame) -> None:
        if self.came:  # a second one means it
            raise KeyboardInterrupt
        self.came = signal.Signals(number).name

    def __exit__(self, *_) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
