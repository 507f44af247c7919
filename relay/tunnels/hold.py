"""Which requests wait for an agent to come back: for which names, how long, how many, how many bytes of them.

Whoever waits is told once, whatever comes. Knows names and waiters; what a link is, and whether a name has one, is the
hub's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

# Names remembered as "reserved, but offline"; the oldest is forgotten first.
MOST_OFFLINE = 10_000

L = TypeVar("L")
L_contra = TypeVar("L_contra", contravariant=True)


class Waiter(Protocol[L_contra]):
    """A request that is held while its name has no link."""

    def on_ready(self, link: L_contra) -> None:
        """An agent is there."""

    def on_given_up(self) -> None:
        """Nobody came in time."""


@dataclass(eq=False, slots=True)
class _Offline(Generic[L]):
    """A name without a link: until when requests are held for it (None: no longer), and which, with their bytes."""

    timer: asyncio.TimerHandle | None
    waiting: dict[Waiter[L], int] = field(default_factory=dict)
    size: int = 0
    """Bytes of all that wait."""


@dataclass(frozen=True, slots=True)
class HoldBounds:
    """How long requests are held after a name dropped (seconds), how many, and how many bytes of them."""

    seconds: float = 10.0
    per_name: int = 256
    in_all: int = 1000
    bytes_per_name: int = 4 * 1024 * 1024
    bytes_in_all: int = 16 * 1024 * 1024


class Hold(Generic[L]):
    """The part of the hub that waits."""

    def __init__(self, bounds: HoldBounds) -> None:
        self.held = 0
        self.held_bytes = 0
        self.reserved: dict[str, str] = {}
        """Every name that the registry knows to be reserved, with its project."""
        self._bounds = bounds
        self._offline: dict[str, _Offline[L]] = {}
        self._all_dropped_until = -math.inf

    def expect_all(self) -> None:
        """This node has just started: every reserved name counts as just dropped."""
        self._all_dropped_until = asyncio.get_running_loop().time() + self._bounds.seconds

    def hold(self, name: str, waiter: Waiter[L], size: int) -> bool:
        """Holds a request of so many bytes until a link comes up. False: nobody just dropped, or too much waits."""
        if self.held >= self._bounds.in_all:
            return False
        offline = self._offline.get(name) or self._expected(name)
        if offline is None or offline.timer is None or len(offline.waiting) >= self._bounds.per_name:
            return False
        if not self._has_room(offline, size):
            return False
        offline.waiting[waiter] = 0
        self.held += 1
        self._count(offline, waiter, size)
        return True

    def grow(self, name: str, waiter: Waiter[L], more: int) -> bool:
        """Counts so many more bytes of a request that is held. False: there is no room, and nothing was counted."""
        offline = self._offline.get(name)
        if offline is None or waiter not in offline.waiting or not self._has_room(offline, more):
            return False
        self._count(offline, waiter, more)
        return True

    def release(self, name: str, waiter: Waiter[L]) -> None:
        """The request no longer waits."""
        offline = self._offline.get(name)
        if offline is not None and waiter in offline.waiting:
            size = offline.waiting.pop(waiter)
            offline.size -= size
            self.held_bytes -= size
            self.held -= 1

    def give_up(self) -> None:
        """Nobody will come any more (the relay stops): every held request is told."""
        self._all_dropped_until = -math.inf
        for name in list(self._offline):
            self._give_up(name)

    def forget(self, name: str) -> None:
        """A name without a link is nobody's any more: visitors are told so, and not that its agent is away."""
        if name in self._offline:
            self._give_up(name)
            del self._offline[name]

    # ---- for the hub

    def _drop(self, name: str, seconds: float) -> _Offline[L]:
        """The name counts as just dropped, for so long."""
        loop = asyncio.get_running_loop()
        self._offline.pop(name, None)
        while len(self._offline) >= MOST_OFFLINE:
            oldest = next(iter(self._offline))
            self._give_up(oldest)
            del self._offline[oldest]
        offline = self._offline[name] = _Offline[L](loop.call_later(seconds, self._give_up, name))
        return offline

    def _release_held(self, name: str, link: L) -> None:
        """The name has a link."""
        offline = self._offline.pop(name, None)
        if offline is None:
            return
        if offline.timer is not None:
            offline.timer.cancel()
        _tell_all(self._take_all(offline), lambda waiter: waiter.on_ready(link))

    def _give_up(self, name: str) -> None:
        """Nobody is expected any more for this name."""
        offline = self._offline[name]
        if offline.timer is not None:
            offline.timer.cancel()
            offline.timer = None
        _tell_all(self._take_all(offline), lambda waiter: waiter.on_given_up())

    # ---- what waits

    def _expected(self, name: str) -> _Offline[L] | None:
        """A reserved name that nobody has served since the start, while that is not long ago."""
        left = self._all_dropped_until - asyncio.get_running_loop().time()
        return self._drop(name, left) if left > 0 and name in self.reserved else None

    def _has_room(self, offline: _Offline[L], size: int) -> bool:
        bounds = self._bounds
        return offline.size + size <= bounds.bytes_per_name and self.held_bytes + size <= bounds.bytes_in_all

    def _count(self, offline: _Offline[L], waiter: Waiter[L], more: int) -> None:
        offline.waiting[waiter] += more
        offline.size += more
        self.held_bytes += more

    def _take_all(self, offline: _Offline[L]) -> dict[Waiter[L], int]:
        """Those that wait, who wait no longer: whatever comes of telling them, they have been counted out."""
        waiting, offline.waiting = offline.waiting, {}
        self.held -= len(waiting)
        self.held_bytes -= offline.size
        offline.size = 0
        return waiting


def _tell_all(waiting: Iterable[Waiter[L]], tell: Callable[[Waiter[L]], None]) -> None:
    """A defect of one request must not leave those behind it waiting for ever."""
    for waiter in waiting:
        try:
            tell(waiter)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler({"message": "a held request failed", "exception": error})
