"""How much is measured: the seconds, sizes and rounds of a full run and of a quick one, and the end of its time."""

from __future__ import annotations

import time
from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Effort:
    """Times in seconds, sizes in bytes."""

    quick: bool = False
    rounds: int = 3
    limit: float = 850.0
    """No step begins behind this; what is left out is said."""
    reserve: float = 240.0
    """What the stages behind the rounds need: other tunnels take part in a further round only if this is left."""
    again: int = 2
    """How often in a round, where small differences are compared."""
    small: int = 2
    down: int = 1024 * MIB
    up: int = 512 * MIB
    many: int = 128 * MIB
    """Of each of 8 streams; 0: not measured."""
    beside: float = 2.0
    events: float = 1.5
    echo: float = 2.0
    """0: not measured."""
    far_rounds: int = 3
    far_bulk: float = 10.0
    far_since: float = 3.0
    far_beside: float = 6.0
    far_small: int = 3
    streams: int = 1000
    agents: int = 500
    registered: tuple[int, ...] = (1, 100, 1000)
    """How many tunnels are registered while one is asked; empty: not measured."""
    registered_rounds: int = 8


FULL = Effort()
QUICK = Effort(
    quick=True,
    rounds=1,
    limit=105.0,
    again=1,
    down=256 * MIB,
    up=256 * MIB,
    many=0,
    echo=0.0,
    far_rounds=1,
    far_bulk=4.0,
    far_since=2.0,
    far_beside=3.0,
    far_small=2,
    streams=0,
    agents=0,
    registered=(),
)


class Clock:
    """The time of one run."""

    def __init__(self, limit: float) -> None:
        self.began = time.monotonic()
        self.limit = limit

    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def is_over(self) -> bool:
        """Whether no step may begin any more."""
        return self.passed() > self.limit
