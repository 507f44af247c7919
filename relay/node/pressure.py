"""What a node does when memory gets short: by levels, so that what is alive goes on and what is new waits.

Level 1, at 80 % of the budget: answers end their connection, and windows of links are small. 2, at 90 %: new requests
are told to come again. 3, at 95 %: nobody is accepted, whoever comes waits in the kernel's queue. A level is left once
5 points less than what led to it are used. Asked by the sweeper; what is used is resident memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from relay.edge.services import CLOSED, PRESSED, Services
from relay.tunnels.hub import Hub

ENTER = (0.80, 0.90, 0.95)
MARGIN = 0.05
SHARE = 0.75
"""Of what the machine has: the budget unless one is set."""
PRESSED_WINDOW = 1024 * 1024
# The allocator keeps what was freed. While memory is short it is told to give it back, this often (seconds), and less
# often where that takes long, as nothing else goes on meanwhile: this part of the time at the most.
TRIM_EVERY = 1.0
TRIM_SHARE = 0.05


class Allocator(Protocol):
    """See `memory.Memory`."""

    def resident(self) -> int:
        """Bytes that the process holds."""

    def give_back(self) -> float:
        """What is kept and not used. How many seconds that took."""


class Pausable(Protocol):
    """A listener that can stop accepting for a while."""

    def pause(self) -> None:
        """Accepts nobody for now."""

    async def resume(self) -> None:
        """Accepts again."""


def next_level(share: float, level: int) -> int:
    """From the level before and the share of the budget that is used."""
    reached = sum(share >= enter for enter in ENTER)
    while level > reached and share < ENTER[level - 1] - MARGIN:
        level -= 1
    return max(level, reached)


def budget_of(setting: int | None, granted: int | None) -> int | None:
    """What was set, else a share of what there is; None: unknown."""
    return setting or (granted and int(granted * SHARE))


class Pressure:
    """One per node. `budget` in bytes; None: unknown, and there is no pressure then."""

    def __init__(
        self, budget: int | None, memory: Allocator, services: Services, report: Callable[[dict[str, object]], None]
    ) -> None:
        self.listeners: list[Pausable] = []
        """Those that stop accepting."""
        self.budget = budget
        """Bytes."""
        self._memory = memory
        self._services = services
        self._report = report
        self._trim_at = 0.0
        self._accepts = True

    async def check(self, now: float) -> None:
        """Looks, and does what is to be done. `now` is loop time."""
        if not self.budget:
            return
        before = self._services.level
        resident = self._memory.resident()
        level = next_level(resident / self.budget, before)
        if level and now >= self._trim_at:
            self._trim_at = now + max(TRIM_EVERY, self._memory.give_back() / TRIM_SHARE)
            resident = self._memory.resident()
            level = next_level(resident / self.budget, before)
        if level or before:
            self._narrow(self._services.hub, level)
        if level != before:
            self._services.level = level
            self._report({"event": "pressure", "level": level, "resident": resident, "budget": self.budget})
        # While the relay drains, the drain alone decides who is let in.
        if self._accepts is not (level < CLOSED) and not self._services.draining:
            await self._accept(level < CLOSED)

    def _narrow(self, hub: Hub, level: int) -> None:
        """Windows of links that are there now, and of those that have come since."""
        for link in hub.sessions():
            most = link.session.options.session_window
            link.session.window.limit(min(most, PRESSED_WINDOW) if level >= PRESSED else most)

    async def _accept(self, accepts: bool) -> None:
        try:
            for listener in self.listeners:
                if accepts:
                    await listener.resume()
                else:
                    listener.pause()
        except OSError:  # no descriptor is left, say: at the next look it may be otherwise
            return
        self._accepts = accepts
