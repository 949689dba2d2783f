"""How many threads a process may use."""

import os


def thread_count(wanted: int) -> int:
    """Returns `wanted`, or for 0 the cores that this process may run on."""
    if wanted:
        return wanted
    if hasattr(os, "sched_getaffinity"):  # less than all under Slurm, taskset
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
