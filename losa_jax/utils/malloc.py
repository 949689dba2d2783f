"""Memory that a step frees stays with the process, for the next step.

glibc gives every large array back to the system the moment it is freed, and
the next step asks for the same pages again: on a virtual machine with two
cores that was a third of the time of training on the processor (80,000 page
faults a second), and windows of frames cost the same on hosts of
accelerators. `keep_freed_memory` lets glibc keep up to an eighth of the
machine's memory.

Whoever sets glibc's own variables (MALLOC_..., GLIBC_TUNABLES) has chosen
already; LOSA_KEEP_FREED_MEMORY=off leaves glibc as it is. With another C
library, or another allocator in its place, nothing happens.
"""

import ctypes
import os

# The share of the machine's memory that may lie unused in the process.
SHARE = 1 / 8
# <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
# mallopt takes an int.
_LARGEST = 2**31 - 1
# What the heap grows by: fewer, larger requests.
_GROWTH_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """For the whole process; call before it starts threads, whose arrays
    would else have places of their own.

    Returns:
      whether glibc was told so.
    """
    chosen = [name for name in os.environ
              if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    if chosen or os.environ.get("LOSA_KEEP_FREED_MEMORY") == "off":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, TypeError, ValueError):
        return False
    kept = min(int(memory * SHARE), _LARGEST)
    # All succeed or the C library knows none of them.
    return all([mallopt(_ARENA_MAX, 1), mallopt(_MMAP_MAX, 0),
                mallopt(_TRIM_THRESHOLD, kept),
                mallopt(_TOP_PAD, _GROWTH_BYTES)])
