"""Bytes of any amount that can be checked at the speed of memory, and a meter of how fast they went.

Byte i of every large body is byte i mod 1,000,003 of one seeded block. The period is prime, so a chunk lost, doubled
or out of place does not match where it stands. Nothing here does I/O.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PERIOD = 1_000_003
PIECE = 256 * 1024
SAMPLE_EVERY = 0.02

_BLOCK = random.Random(1).randbytes(PERIOD)
_DOUBLE = _BLOCK + _BLOCK
_VIEW = memoryview(_DOUBLE)


def pieces(size: int, piece: int = PIECE, start: int = 0) -> Iterator[memoryview]:
    """The pattern's bytes from `start`, `size` of them, in pieces of at most 1,000,003."""
    offset, end = start, start + size
    while offset < end:
        at = offset % PERIOD
        count = min(piece, PERIOD, end - offset)
        yield _VIEW[at : at + count]
        offset += count


def whole(size: int, start: int = 0) -> bytes:
    """The pattern's bytes at once, for small sizes."""
    return b"".join(pieces(size, start=start))


def matches(offset: int, data: bytes) -> bool:
    """Whether these are the pattern's bytes at this offset."""
    if len(data) <= PERIOD:
        return _DOUBLE.startswith(data, offset % PERIOD)
    return data == whole(len(data), offset)


@dataclass(slots=True)
class Meter:
    """Counts, checks and times the bytes of one body; `hashing` costs about a second per GiB."""

    hashing: bool = False
    size: int = 0
    intact: bool = True
    """All bytes so far were the pattern's (only `add` looks)."""
    started: float = field(default_factory=time.monotonic)
    finished: float = 0.0
    samples: list[tuple[float, int]] = field(default_factory=list)
    """Seconds since the start and bytes by then, every 20 ms or so."""
    _hash: Any = field(default_factory=hashlib.sha256)

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self.intact = self.intact and matches(self.size, data)
        if self.hashing:
            self._hash.update(data)
        self.count(len(data))

    def count(self, size: int) -> None:
        """Take bytes that need no check."""
        self.size += size
        self.finished = time.monotonic()
        elapsed = self.finished - self.started
        if not self.samples or elapsed - self.samples[-1][0] >= SAMPLE_EVERY:
            self.samples.append((elapsed, self.size))

    @property
    def seconds(self) -> float:
        """From the start to the last bytes."""
        return max(self.finished - self.started, 1e-9)

    @property
    def rate(self) -> float:
        """Bytes per second over all."""
        return self.size / self.seconds

    def rate_between(self, start: float, end: float) -> float:
        """Bytes per second between two times, in seconds since the start."""
        inside = [sample for sample in self.samples if start <= sample[0] <= end]
        if len(inside) < 2:
            return 0.0
        return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])

    @property
    def sha256(self) -> str:
        """Hex digest so far (of nothing without `hashing`)."""
        return str(self._hash.hexdigest())
