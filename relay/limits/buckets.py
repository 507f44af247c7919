"""The token bucket: what every rate is measured with. Pure; time is passed in, in seconds of one steady clock.

A bucket fills at its rate up to its depth. Whoever takes asks first (`level`, `wait`); who may not ask `spend`s and
leaves a debt, which counts for those who come after.
"""

from __future__ import annotations

import math

# A clock's own steps must not cost anybody a turn: what is missing may be as much as comes in a microsecond.
SLACK = 1e-6


class Bucket:
    """`rate` tokens a second, at most `depth` at once; starts full. Raises ValueError unless both are above zero."""

    __slots__ = ("at", "depth", "rate", "tokens")

    def __init__(self, rate: float, depth: float) -> None:
        if not (rate > 0 and depth > 0):
            raise ValueError(f"a bucket of depth {depth} that is filled at {rate} a second gives nothing")
        self.rate = rate
        self.depth = depth
        self.tokens = depth
        """What was there at the time `at`."""
        self.at = -math.inf

    def level(self, now: float) -> float:
        """What is there; below zero it is owed."""
        elapsed = now - self.at
        if elapsed > 0:  # a clock that goes back gives nothing
            self.at = now
            tokens = self.tokens + elapsed * self.rate
            self.tokens = tokens if tokens < self.depth else self.depth
        return self.tokens

    def has(self, amount: float, now: float) -> bool:
        """Whether `take` would succeed."""
        return self.level(now) + self.rate * SLACK >= amount

    def take(self, amount: float, now: float) -> bool:
        """Takes all of it or nothing; whether it did."""
        if not self.has(amount, now):
            return False
        self.tokens -= amount
        return True

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `take` would succeed, if nobody else takes; infinite for more than the depth."""
        if self.has(amount, now):
            return 0.0
        return (amount - self.tokens) / self.rate if amount <= self.depth else math.inf

    def spend(self, amount: float, now: float) -> None:
        """Takes what has been used already, also into debt."""
        self.level(now)
        self.tokens -= amount

    def change(self, rate: float, depth: float, now: float) -> None:
        """Fills at another rate from now on."""
        self.level(now)
        self.rate = rate
        self.depth = depth
        self.tokens = min(self.tokens, depth)
