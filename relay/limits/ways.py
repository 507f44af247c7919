"""Bandwidth of one direction: a band for each key and project, and the way of a tunnel's bytes through its bands. Pure.

Bands form a tree, as keys do: a tunnel's bytes pass those of its project, of the keys above its own, and of its own.
A band without a limit limits nothing, but what it belongs to is shared by bands, not by streams: a key does not get
more by opening more of them. How it is shared is decided by `pacing`.
"""

from __future__ import annotations

import math

from relay.limits.buckets import Bucket

# How much may pass at once after a silence: so many seconds' worth, for slow bands this many bytes, within reason.
DEPTH = 0.1
LEAST_DEPTH = 2048
MOST_DEPTH = 0.25
# What comes in within so many seconds is for those who wait; it must be longer than the time between two turns.
RESERVE = 0.035
# No piece is held back to make a larger one than this, in bytes.
GRAIN = 4096
# A band lets its lanes gather an eighth of its depth, or half of it among all of them.
GRAINS = 8
# A writer is stopped when more waits than a grain and so many seconds' worth: there is something for the next turn.
LOW = 0.02
LOW_MOST = 64 * 1024


class Band(Bucket):
    """One direction of one key or project: so many bytes a second, `math.inf` without a limit."""

    __slots__ = ("above", "claims", "limited", "mark", "part", "waiting")

    def __init__(self, rate: float) -> None:
        super().__init__(rate, _depth(rate))
        self.limited = rate < math.inf
        self.waiting = 0
        """Lanes that wait for a turn below it, as counted after the last turn, and those that came since."""
        # What a turn writes down while it goes down the tree: see `pacing`.
        self.mark = 0
        self.claims = 0
        self.part = 0.0
        self.above: Band | None = None

    def set_rate(self, rate: float, now: float) -> None:
        """Another limit from now on."""
        self.limited = rate < math.inf
        self.change(rate, _depth(rate), now)

    def spare(self, now: float) -> float:
        """What may pass without waiting for a turn: what has just come in is for those who wait. Of limited ones."""
        return self.level(now) - self.rate * RESERVE if self.waiting else self.level(now)


class Way:
    """What the bytes of one direction of a tunnel pass, from the widest band to the narrowest."""

    __slots__ = ("bands", "grain", "limited", "low")

    def __init__(self) -> None:
        self.bands: tuple[Band, ...] = ()
        """Begins with a limited one, or is empty."""
        self.limited: tuple[Band, ...] = ()
        self.low = LOW_MOST
        """Bytes that may wait before a writer is stopped."""
        self.grain = GRAIN

    def lead(self, bands: tuple[Band, ...]) -> None:
        """Leads through these bands (that of the project first) from now on; also when the limit of one was changed."""
        limited = [at for at, band in enumerate(bands) if band.limited]
        self.bands = bands[limited[0] :] if limited else ()
        self.limited = tuple(band for band in bands if band.limited)
        self.grain = int(min([GRAIN, *(max(band.depth / GRAINS, 1) for band in self.limited)]))
        self.low = int(min([LOW_MOST, *(self.grain + band.rate * LOW for band in self.limited)]))

    def spare(self, amount: int, now: float) -> int:
        """How many of `amount` bytes may pass at once: all, or what makes a piece of some size."""
        left = float(amount)
        for band in self.limited:
            spare = band.spare(now)
            if spare < left:
                left = spare
        return amount if left >= amount else int(left) if left >= self.grain else 0

    def spend(self, amount: float) -> None:
        """Takes what `spare` allowed just now; below zero: gives it back."""
        for band in self.limited:
            band.tokens -= amount

    def piece(self, queued: int) -> float:
        """How much is worth passing when so much waits."""
        least: float = min(self.grain, queued)
        for band in self.limited:
            among_all = band.depth / (2 * band.waiting) if band.waiting > GRAINS // 2 else least
            if among_all < least:
                least = max(among_all, 1)
        return least


def _depth(rate: float) -> float:
    return max(rate * DEPTH, min(LEAST_DEPTH, rate * MOST_DEPTH))
