"""Runs a command in a process of its own and measures what it used."""

import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Usage:
    """What one process used.

    Attributes:
      cpu_seconds: of all its threads.
      peak_bytes: the largest resident memory. The resident memory of the
        process that started it is a lower bound: keep that one small.
      read_bytes, written_bytes: by all its calls of read and write, whether
        from the disk or from the system's cache; None where the system does
        not count them (Linux does). Memory-mapped files are not in them.
      output: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    read_bytes: int | None
    written_bytes: int | None
    output: str


def run_measured(arguments: Sequence[str]) -> Usage:
    """Runs `python ARGUMENTS...` to its end.

    Raises:
      RuntimeError: the command failed; ends with what it printed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed, (
            tempfile.TemporaryFile("w+")) as errors:
        process = subprocess.Popen([sys.executable, *arguments],
                                   stdout=printed, stderr=errors)
        # The counters can be read until the process is waited for.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - started
        counters = _counters(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        errors.seek(0)
        output = printed.read()
        if process.returncode:
            raise RuntimeError(
                f"python {' '.join(arguments)} ended with status "
                f"{process.returncode}:\n{output}{errors.read()}")
    return Usage(seconds, usage.ru_utime + usage.ru_stime,
                 usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
                 counters.get("rchar"), counters.get("wchar"), output)


def _counters(process_id: int) -> dict[str, int]:
    try:
        text = Path(f"/proc/{process_id}/io").read_text()
    except OSError:  # not Linux
        return {}
    return {name: int(count)
            for name, count in re.findall(r"(\w+): (\d+)", text)}
