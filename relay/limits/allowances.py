"""What a key or a project may use and has used: its scope, its buckets, its counts of the month. Pure.

One object for each, shared by all tunnels below it, so that its limits bound their sum. Counts are what the registry
said last plus what has not been written there yet; who writes and asks is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakSet, WeakValueDictionary

from relay.keys.scopes import Scope
from relay.limits.buckets import Bucket
from relay.limits.ways import Band

# A burst of requests may be as long as a quarter of a second's worth.
BURST = 0.25


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests; bytes of bodies and of upgraded connections, from visitors (in) and to them (out)."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def plus(self, other: Totals, times: int = 1) -> Totals:
        """The sum, or with `times=-1` the difference, never below zero."""
        return Totals(
            max(self.requests + times * other.requests, 0),
            max(self.bytes_in + times * other.bytes_in, 0),
            max(self.bytes_out + times * other.bytes_out, 0),
        )


NOTHING = Totals()


class Watcher(Protocol):
    """Who wants to know that a limit was changed."""

    def on_rescoped(self) -> None:
        """The scope is another one."""


def request_bucket(rate: int) -> Bucket:
    """For so many requests a second."""
    return Bucket(rate, _burst(rate))


class Allowance:
    """Of one key or project, by its id; `now` is loop time."""

    __slots__ = (
        "__weakref__", "_base", "_in", "_older", "_out", "_period", "_requests", "_watchers",
        "down", "id", "limited", "rate", "scope", "streams", "up",
    )  # fmt: skip

    def __init__(self, id: str, scope: Scope, now: float) -> None:
        self.id = id
        self.scope = Scope()
        self.limited = False
        """Whether anything of what a tunnel does is limited (how many tunnels there may be is no such thing)."""
        self.rate: Bucket | None = None
        self.up = Band(math.inf)
        """From visitors."""
        self.down = Band(math.inf)
        """To visitors."""
        self.streams = 0
        """Open now, of those whose streams are under limits (see `Meter.paced`)."""
        self._watchers: WeakSet[Watcher] = WeakSet()
        self._period = ""
        self._base = NOTHING
        self._requests = self._in = self._out = 0
        self._older: dict[str, Totals] = {}
        """Counts of months that are over and have not been written."""
        self.rescope(scope, now)

    # ---- limits

    def watch(self, watcher: Watcher) -> None:
        """Tells it of every change of the scope, as long as it lives."""
        self._watchers.add(watcher)

    def rescope(self, scope: Scope, now: float) -> None:
        """Other limits from now on, also for streams that were opened under limits. What has been used stays used."""
        if scope == self.scope:
            return
        self.scope = scope
        self.limited = bool(
            scope.rate or scope.bandwidth or scope.streams or scope.body or scope.monthly_requests
            or scope.monthly_bytes
        )  # fmt: skip
        if scope.rate is None:
            self.rate = None
        elif self.rate is None:
            self.rate = request_bucket(scope.rate)
        else:
            self.rate.change(scope.rate, _burst(scope.rate), now)
        for band in (self.up, self.down):
            band.set_rate(scope.bandwidth or math.inf, now)
        for watcher in list(self._watchers):
            watcher.on_rescoped()

    # ---- counts

    def count(self, requests: int, bytes_in: int, bytes_out: int, period: str) -> None:
        """Adds what was used in a month, and has not been written."""
        if period != self._period:
            if period < self._period:  # the last of a month is sampled when the next one has begun
                self._add_to_older(period, Totals(requests, bytes_in, bytes_out))
                return
            self._begin(period)
        self._requests += requests
        self._in += bytes_in
        self._out += bytes_out

    def used(self, period: str) -> Totals:
        """What was used in the month, as far as is known; a month that has not begun starts at zero."""
        if period == self._period:
            return self._base.plus(self._pending())
        return self._older.get(period, NOTHING)

    def requests_in(self, period: str) -> int:
        """Of `used`, for the way of every request."""
        return self._base.requests + self._requests if period == self._period else 0

    def bytes_in(self, period: str) -> int:
        """Of `used`, both ways together."""
        base = self._base
        return base.bytes_in + base.bytes_out + self._in + self._out if period == self._period else 0

    def learn(self, period: str, totals: Totals) -> None:
        """What the registry says has been used in the month, by all nodes: that counts, plus what is not written."""
        if period > self._period:
            self._begin(period)
        if period == self._period:
            self._base = totals

    def unwritten(self) -> list[tuple[str, Totals]]:
        """What has been counted and not written, by month."""
        pending = self._pending()
        return [*self._older.items(), *([(self._period, pending)] if pending != NOTHING else [])]

    def written(self, period: str, totals: Totals) -> None:
        """So much of what was counted is in the registry now."""
        if period == self._period:
            self._base = self._base.plus(totals)
            left = self._pending().plus(totals, -1)
            self._requests, self._in, self._out = left.requests, left.bytes_in, left.bytes_out
        elif period in self._older:
            left = self._older.pop(period).plus(totals, -1)
            if left != NOTHING:
                self._older[period] = left

    def _pending(self) -> Totals:
        return Totals(self._requests, self._in, self._out)

    def _add_to_older(self, period: str, more: Totals) -> None:
        if more != NOTHING:
            self._older[period] = self._older.get(period, NOTHING).plus(more)

    def _begin(self, period: str) -> None:
        self._add_to_older(self._period, self._pending())
        self._period = period
        self._base = NOTHING
        self._requests = self._in = self._out = 0


class Allowances:
    """Every allowance of this node, one object for each id."""

    def __init__(self) -> None:
        self._all: dict[str, Allowance] = {}
        # An id that was forgotten while somebody still held its object must not get a second one.
        self._held: WeakValueDictionary[str, Allowance] = WeakValueDictionary()

    def of(self, id: str, scope: Scope, now: float) -> Allowance:
        """The allowance, with this scope from now on."""
        allowance = self.get(id)
        if allowance is None:
            allowance = self._held[id] = Allowance(id, scope, now)
        else:
            allowance.rescope(scope, now)
        self._all[id] = allowance
        return allowance

    def get(self, id: str) -> Allowance | None:
        """The allowance, where there is one."""
        return self._all.get(id) or self._held.get(id)

    def forget(self, ids: Iterable[str]) -> None:
        """Nobody is connected by these: those with nothing left to be written are dropped."""
        for id in ids:
            allowance = self._all.get(id)
            if allowance is not None and not allowance.unwritten():
                del self._all[id]

    def __len__(self) -> int:
        return len(self._all)


def _burst(rate: float) -> float:
    return max(1.0, rate * BURST)
