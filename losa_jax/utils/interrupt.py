"""The exception of a job that a signal stops."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_INTERRUPTED = 75


class Interrupted(BaseException):
    """Stopped by a signal, everything is saved; a new start continues.

    Like KeyboardInterrupt it is none of the errors that libraries catch.
    """


def interrupted(signal_name: str, kept: str) -> Interrupted:
    """Returns the exception; `kept` is the part about what is saved."""
    return Interrupted(f"stopped by {signal_name}, {kept}: start the same "
                       "command again to continue")


def exit_with(command: Callable[[], int]) -> NoReturn:
    """Ends the program with a command line's status; at a signal with
    EXIT_INTERRUPTED and one line."""
    leave_at_once()
    try:
        sys.exit(command())
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def leave_at_once() -> None:
    """Raises Interrupted at SIGTERM and SIGINT, except where a `StopSignal`
    waits for a better moment. Files are written atomically."""
    def leave(number: int, _frame: object) -> NoReturn:
        raise interrupted(signal.Signals(number).name,
                          "what was finished is kept")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
