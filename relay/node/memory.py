"""How much memory this process may have, how much it has, and giving back what it does not use. Linux tells and does;
elsewhere nobody knows anything and nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def granted(process: Path = Path("/proc/self"), cgroups: Path = CGROUPS) -> int | None:
    """Bytes that the machine has, or its container where that gets less; None: unknown."""
    known = list(_limits(process, cgroups))
    with contextlib.suppress(ValueError, OSError, AttributeError):
        known.append(os.sysconf("SC_PHYS_PAGES") * _PAGE)
    return min(known, default=None)


def _limits(process: Path, cgroups: Path) -> Iterator[int]:
    """What the control groups of a process allow, of version 1 and 2, those above its own included."""
    for line in _text(process / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        below = path.strip("/")
        if not controllers:
            # In a container the path may be the host's, which is not seen here: what is mounted is the own one then.
            while True:
                yield from _numbers(_text(cgroups / below / "memory.max"))
                if not below:
                    break
                below = below.rpartition("/")[0]
        elif "memory" in controllers.split(","):
            for folder in (cgroups / "memory" / below, cgroups / "memory"):
                for one in _text(folder / "memory.stat").splitlines():
                    if one.startswith("hierarchical_memory_limit "):
                        yield from _numbers(one.split()[1])


def _numbers(text: str) -> Iterator[int]:
    if text.strip().isdigit():  # and not "max"
        yield int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


class Memory:
    """This process's own."""

    def __init__(self) -> None:
        self._trim = _trimmer()

    def resident(self) -> int:
        """Bytes; 0: unknown."""
        found = _text(_STATM).split()
        return int(found[1]) * _PAGE if found else 0

    def give_back(self) -> float:
        """What was freed and is kept for later, which is the allocator's affair. How many seconds that took.

        Connections that have ended under TLS hold each other until the collector looks, and it looks only while new
        objects are made: a node that accepts nobody would wait for it for ever.
        """
        began = time.perf_counter()
        gc.collect()
        if self._trim is not None:
            self._trim(0)
        return time.perf_counter() - began


def _trimmer() -> ctypes._NamedFuncPointer | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
