"""Tells glibc's malloc to reuse the memory that a step frees.

By default glibc returns every large array to the system when it is freed, and
the next step requests the same pages again. On a virtual machine with two
cores that took a third of the time of training on the CPU (80,000 page faults
a second); windows of frames cost the same on hosts of accelerators.

glibc's own variables (MALLOC_..., GLIBC_TUNABLES) have precedence, and
LOSA_KEEP_FREED_MEMORY=off leaves glibc as it is. With another C library or
another allocator nothing happens.
"""

import ctypes
import os

# Share of the machine's memory that may stay unused in the process.
SHARE = 1 / 8
# <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
# mallopt takes an int.
_LARGEST = 2**31 - 1
# What the heap grows by: fewer, larger requests.
_GROWTH_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Lets glibc keep up to an eighth of the machine's memory.

    Must be called before the process starts threads, which would otherwise
    get arenas of their own.

    Returns:
      whether glibc accepted the settings.
    """
    is_set = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"
                 for name in os.environ)
    if is_set or os.environ.get("LOSA_KEEP_FREED_MEMORY") == "off":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, TypeError, ValueError):
        return False
    kept = min(int(memory * SHARE), _LARGEST)
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0),
                mallopt(_TRIM_THRESHOLD, kept),
                mallopt(_TOP_PAD, _GROWTH_BYTES)])
