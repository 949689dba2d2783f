"""Freed memory is reused without page faults, unless it is switched off."""

import os
import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource
import threading
import numpy as np
from losa_jax.utils.malloc import keep_freed_memory

print(keep_freed_memory())

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def make_arrays(count):
    for _ in range(count):
        np.ones(5 * 2**20)  # 40 MiB: more than glibc's own threshold can be

def measure():
    make_arrays(2)
    before = faults()
    make_arrays(10)
    print(faults() - before)

measure()
thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""
_PAGES = 10 * 40 * 2**20 // os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc",
                    reason="another C library than glibc")
@pytest.mark.parametrize("switch", (
    {}, {"LOSA_KEEP_FREED_MEMORY": "off"}, {"MALLOC_ARENA_MAX": "4"}))
def test_large_arrays_cause_no_page_faults(switch):
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("LOSA_", "MALLOC_", "GLIBC_"))}
    accepted, main, thread = subprocess.run(
        [sys.executable, "-c", _PROGRAM], check=True, text=True,
        capture_output=True, env={**environment, **switch}
    ).stdout.split()
    assert accepted == str(not switch)
    for faults in (int(main), int(thread)):
        # Off: every page of each array, or of huge pages fewer.
        assert faults < _PAGES / 100 if not switch else faults > _PAGES / 1000
