"""Makes glibc's malloc reuse the memory that a step frees.

By default glibc returns every large array to the system, and the next step
requests the same pages again: a third of the time of training on two virtual
cores (80,000 page faults a second). LOSA_KEEP_FREED_MEMORY=off and glibc's
own variables (MALLOC_..., GLIBC_TUNABLES) leave glibc as it is.
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
    get arenas of their own. Returns whether glibc accepted the settings;
    false with another C library.
    """
    if os.environ.get("LOSA_KEEP_FREED_MEMORY") == "off" or any(
            name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
            for name in os.environ):
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
