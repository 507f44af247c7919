"""The pacer: bytes that a bandwidth limit holds back wait in lanes, one for each direction of a stream, for their turn.

It alone decides who of those that wait is given how much. At each turn what has come into the bands is dealt out, down
the tree of bands, in equal parts; what one cannot use goes to the others. A lane passes bytes on when its purse holds
enough of them to make a piece. One timer, and none while nothing waits; the clock and the timer are passed in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Protocol

from relay.limits.ways import GRAIN, Band, Way

# Seconds between two turns, and with very many lanes up to three times as much: each costs some microseconds a turn.
TURN = 0.01
MANY = 100
SLOWEST = 3.0
# Rounds of dealing out in a turn: each deals what the one before left, because some lane had no use for its part.
MOST_ROUNDS = 4
# A writer that fills its lane again while it is served is served again in the same turn, within reason.
MOST_PASSES = 64
_NOTHING = 1e-6


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Forgets the call."""


class Lane(ABC):
    """Bytes of one direction of one stream that wait for their turn, in order."""

    __slots__ = ("_parts", "purse", "queued", "stalled", "waiting", "way")

    def __init__(self, way: Way) -> None:
        self.way = way
        self.queued = 0
        """Bytes that wait."""
        self.stalled = False
        """Whether it takes no turns, because what it passes bytes to takes none."""
        self.waiting = False
        """Whether the pacer deals out to it."""
        self.purse = 0.0
        """Bytes that have been dealt out to it and not passed on."""
        self._parts: deque[bytes] = deque()

    @abstractmethod
    def pass_on(self, data: bytes) -> bool:
        """Passes bytes on. False: no more of them until `Pacer.resume`."""

    @abstractmethod
    def on_low(self) -> None:
        """Little or nothing waits any more, see `Way.low`. Also told when that has been so before."""

    @abstractmethod
    def on_defect(self) -> None:
        """`pass_on` or `on_low` raised in a turn, and what waits is dropped."""

    def put(self, data: bytes) -> None:
        """Adds bytes at the end. Little ones are joined: each by itself would cost many times what it holds."""
        parts = self._parts
        if parts and len(parts[-1]) + len(data) <= GRAIN:
            parts[-1] += data
        else:
            parts.append(data)
        self.queued += len(data)

    def cut(self, amount: int) -> bytes:
        """Takes so many bytes, of those that wait, from the front."""
        parts = self._parts
        self.queued -= amount
        taken = []
        while amount:
            part = parts.popleft()
            if len(part) > amount:
                parts.appendleft(part[amount:])
                part = part[:amount]
            taken.append(part)
            amount -= len(part)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def clear(self) -> None:
        """Drops what waits."""
        self._parts.clear()
        self.queued = 0


class Pacer:
    """One for a node. `now` is the event loop's clock, `call_later` sets a timer on it."""

    def __init__(self, now: Callable[[], float], call_later: Callable[[float, Callable[[], None]], Timer]) -> None:
        self.lanes: dict[Lane, None] = {}
        """Those that wait for their turn; lanes that are stalled are not among them."""
        self._now = now
        self._call_later = call_later
        self._timer: Timer | None = None
        self._in_turn = False
        self._round = 0
        self._crowded: set[Band] = set()

    def grab(self, way: Way, amount: int) -> int:
        """Takes what may pass this way at once, for a lane in which nothing waits: all of `amount`, less, or 0."""
        if not way.limited:
            return amount
        if self._in_turn:
            return 0
        allowed = way.spare(amount, self._now())
        way.spend(allowed)
        return allowed

    def add(self, lane: Lane, data: bytes) -> None:
        """Bytes (not none) that have to wait."""
        lane.put(data)
        if not (lane.waiting or lane.stalled):
            self._join(lane)

    def stall(self, lane: Lane) -> None:
        """Nothing is passed on until `resume`; others are given what it had."""
        lane.stalled = True
        self._refund(lane)
        self._leave(lane)

    def resume(self, lane: Lane) -> None:
        """A lane that was stalled goes on, at once where its way is free."""
        lane.stalled = False
        amount = self.grab(lane.way, lane.queued)
        if amount:
            self._pass(lane, amount)
        elif lane.queued <= lane.way.low:
            lane.on_low()
        if lane.queued and not (lane.waiting or lane.stalled):
            self._join(lane)

    def drop(self, lane: Lane) -> None:
        """What waits in a lane is not wanted any more."""
        lane.clear()
        self._refund(lane)
        self._leave(lane)

    # ---- a turn

    def _turn(self) -> None:
        """Deals out, and lets lanes pass on. Raises the defects of exchanges, once all others have been served."""
        self._timer = None
        self._in_turn = True
        now = self._now()
        defects: list[Exception] = []
        try:
            for _ in range(MOST_PASSES):
                if self._deal(now) < _NOTHING:
                    break
                self._serve(defects)
        finally:
            self._in_turn = False
            self._tidy()
        if defects:
            raise ExceptionGroup("exchanges failed", defects)

    def _deal(self, now: float) -> float:
        """Moves what the bands hold into purses; how much that was."""
        dealt = 0.0
        lanes: list[Lane] = list(self.lanes)
        for _ in range(MOST_ROUNDS):
            lanes = [lane for lane in lanes if lane.queued - lane.purse > _NOTHING and _open(lane.way, now)]
            if not lanes:
                break
            self._divide(lanes)
            for lane in lanes:
                bands = lane.way.bands
                part = lane.queued - lane.purse
                if bands:
                    last = bands[-1]
                    part = min(part, last.part / last.claims)
                    lane.way.spend(part)
                lane.purse += part
                dealt += part
        return dealt

    def _divide(self, lanes: list[Lane]) -> None:
        """Finds what each band may hand down in this round: its equal part of the band above, if it holds so much."""
        self._round = mark = self._round + 1
        order: list[Band] = []
        for lane in lanes:
            above: Band | None = None
            for band in lane.way.bands:
                if band.mark != mark:
                    band.mark = mark
                    band.claims = 0
                    band.above = above
                    order.append(band)  # behind the one above it
                    if above is not None:
                        above.claims += 1
                above = band
            if above is not None:
                above.claims += 1
        for band in order:
            above = band.above
            band.part = band.tokens if above is None else min(band.tokens, above.part / above.claims)

    def _serve(self, defects: list[Exception]) -> None:
        """Lets every lane whose purse is worth it pass on."""
        for lane in list(self.lanes):
            if lane.waiting and lane.purse + _NOTHING >= lane.way.piece(lane.queued):
                amount = min(int(lane.purse + _NOTHING), lane.queued)
                lane.purse -= amount
                try:
                    self._pass(lane, amount)
                except Exception as error:
                    defects.append(error)
                    self.drop(lane)
                    lane.on_defect()

    def _pass(self, lane: Lane, amount: int) -> None:
        if not lane.pass_on(lane.cut(amount)):
            self.stall(lane)
        elif lane.queued <= lane.way.low:
            lane.on_low()

    def _tidy(self) -> None:
        """Forgets lanes in which nothing waits, counts the others in their bands, and sets the timer for them."""
        for lane in [lane for lane in self.lanes if not lane.queued]:
            self._refund(lane)
            lane.waiting = False
            del self.lanes[lane]
        self._forget_crowds()
        for lane in self.lanes:
            self._crowd(lane)
        self._schedule()

    # ---- who waits

    def _join(self, lane: Lane) -> None:
        lane.waiting = True
        self.lanes[lane] = None
        self._crowd(lane)
        if not self._in_turn:
            self._schedule()

    def _leave(self, lane: Lane) -> None:
        if not lane.waiting:
            return
        lane.waiting = False
        del self.lanes[lane]
        if not self.lanes and not self._in_turn:
            self._forget_crowds()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _refund(self, lane: Lane) -> None:
        lane.way.spend(-lane.purse)
        lane.purse = 0.0

    def _schedule(self) -> None:
        if self.lanes and self._timer is None:
            self._timer = self._call_later(TURN * min(max(len(self.lanes) / MANY, 1.0), SLOWEST), self._turn)

    def _crowd(self, lane: Lane) -> None:
        for band in lane.way.bands:
            band.waiting += 1
            self._crowded.add(band)

    def _forget_crowds(self) -> None:
        for band in self._crowded:
            band.waiting = 0
        self._crowded.clear()


def _open(way: Way, now: float) -> bool:
    """Whether every band of the way holds something."""
    return min([band.level(now) for band in way.bands], default=math.inf) > _NOTHING
