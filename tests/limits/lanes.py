"""Lanes for tests of the pacer: each is fed with a pattern, checks what passes, and remembers when."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate

from relay.limits.pacing import Lane, Pacer, Timer
from relay.limits.ways import Band, Way
from tests.support.pattern import matches, pieces

Pass = tuple[float, int]
"""Loop time, bytes."""


def pacer(late: random.Random | None = None) -> Pacer:
    """A pacer on the running loop; with `late` its timers come up to 15 ms late."""
    loop = asyncio.get_running_loop()

    def call_later(delay: float, callback: Callable[[], None]) -> Timer:
        return loop.call_later(delay + (late.uniform(0, 0.015) if late is not None else 0.0), callback)

    return Pacer(loop.time, call_later)


def way(*bands: Band) -> Way:
    """Through these bands, the widest first."""
    made = Way()
    made.lead(bands)
    return made


class Fed(Lane):
    """A lane as a stream has one: its source writes pieces of `piece` bytes until it is told to wait."""

    def __init__(self, owner: Pacer, leads: Way, piece: int) -> None:
        super().__init__(leads)
        self.pacer = owner
        self.piece = piece
        self.left: int | None = None
        """Bytes that the source still has; None: without end."""
        self.written = 0
        self.passed = 0
        self.passes: list[Pass] = []
        self.blocked = False
        """What it passes bytes to takes them, and then no more."""
        self.low = 0

    def write(self, data: bytes) -> bool:
        """What `PacedStream.write` does."""
        self.written += len(data)
        if not (self.queued or self.stalled):
            passed = self.pacer.grab(self.way, len(data))
            if passed:
                self.stalled = not self.pass_on(data[:passed])
            data = data[passed:]
        if data:
            self.pacer.add(self, data)
        return not self.stalled and self.queued <= self.way.low

    def fill(self) -> None:
        """Writes until it is told to wait, or has written what it has."""
        for _ in range(10_000):
            size = self.piece if self.left is None else min(self.piece, self.left)
            if not size:
                return
            if self.left is not None:
                self.left -= size
            if not self.write(b"".join(pieces(size, start=self.written))):
                return
        raise AssertionError("the source was never told to wait")

    def pass_on(self, data: bytes) -> bool:
        assert matches(self.passed, data), f"{len(data)} bytes that do not belong behind {self.passed}"
        self.passed += len(data)
        self.passes.append((asyncio.get_running_loop().time(), len(data)))
        return not self.blocked

    def on_low(self) -> None:
        self.low += 1
        self.refill()

    def refill(self) -> None:
        """There is room again."""
        self.fill()

    def on_defect(self) -> None:
        raise AssertionError("a defect")


class FedLater(Fed):
    """Its source learns in the next turn of the loop that there is room, as a socket does."""

    def refill(self) -> None:
        asyncio.get_running_loop().call_soon(self._fill_if_low)

    def _fill_if_low(self) -> None:
        if self.queued <= self.way.low and not self.stalled:
            self.fill()


def most_and_least(passes: Sequence[Pass], width: float, until: float) -> tuple[int, int]:
    """The most and the fewest bytes that passed in any `width` seconds, from the first pass to `until`."""
    times = [time for time, _ in passes]
    sums = [0, *accumulate(size for _, size in passes)]

    def within(start: float, *, closed: bool) -> int:
        end = bisect_left(times, start + width + (1e-9 if closed else 0.0))
        return sums[end] - sums[bisect_left(times, start)]

    # The most is in a window that begins with a pass, the least in one that begins just behind one.
    most = max(within(time, closed=True) for time in times)
    starts = [time + 1e-9 for time in times if time + width <= until]
    assert starts, "the run is shorter than the window"
    return most, min(within(start, closed=False) for start in starts)


def passed_since(lane: Fed, start: float) -> int:
    """Bytes that passed from `start` on."""
    return sum(size for time, size in lane.passes if time >= start)
