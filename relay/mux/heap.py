"""How the C library keeps the memory in which large pieces come and go: not given back and asked for again each time.

By default glibc returns the end of its heap to the kernel whenever a large piece there is freed. A download then costs
a page fault for every page of every piece: a third of the agent's time.
"""

from __future__ import annotations

import sys
from typing import Final

# Numbers of <malloc.h>.
_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_THRESHOLD: Final = -3
KEPT: Final = 8 * 1024 * 1024
"""Free bytes at the end of the heap that are kept."""
_PAD: Final = 1024 * 1024
# Every message is below: none gets a mapping of its own.
_MAPPED_FROM: Final = 4 * 1024 * 1024


def keep_heap() -> None:
    """Once, at the start of a process. Does nothing where the C library is another one."""
    if sys.platform != "linux":
        return
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in ((_TRIM_THRESHOLD, KEPT), (_TOP_PAD, _PAD), (_MMAP_THRESHOLD, _MAPPED_FROM)):
        mallopt(option, value)
