"""How long to wait before the next attempt to reach the relay. Pure: time and chance are passed in.

It alone decides the delays of an outage: the first attempt at once, then full jitter, so that a thousand agents that
lost the same relay do not come back in the same instant.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST = 0.1
"""Seconds: the upper end of the first delay; it doubles up to the cap."""

# (outage shorter than, cap of a delay), both in seconds.
CAPS = ((10.0, 0.25), (120.0, 1.0))
LAST_CAP = 30.0
_MOST_DOUBLINGS = 16


class Backoff:
    """The delays of one outage after another; `random` gives numbers in [0, 1)."""

    __slots__ = ("_attempts", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._attempts = 0

    def next(self, elapsed: float) -> float:
        """Seconds to wait before the next attempt, `elapsed` seconds after the outage began."""
        attempts = self._attempts
        self._attempts = attempts + 1
        if attempts == 0:
            return 0.0
        cap = next((cap for end, cap in CAPS if elapsed < end), LAST_CAP)
        return self._random() * min(cap, FIRST * 2.0 ** min(attempts - 1, _MOST_DOUBLINGS))

    def reset(self) -> None:
        """The outage is over: the next attempt is a first one again."""
        self._attempts = 0
