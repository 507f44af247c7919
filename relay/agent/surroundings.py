"""What befalls the machine an agent runs on: it slept, its clock was set, its way to the relay has become another.

Two looks at clocks and network are compared, a moment apart; what to do about it is the runner's. A clock that was set
is no sleep: one clock counts the machine's sleep and nobody can set it, where the system has such a one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

# Seconds between two looks.
LOOK_EVERY = 1.0
ASLEEP_FROM = 5.0
"""Seconds by which the clock that counts sleep must have overtaken the one that does not."""
STOPPED_FROM = 10.0
"""Seconds by which a look must be late, where the process was stopped, or no clock tells of sleep."""
CLOCK_SET_FROM = 5.0
"""Seconds by which the wall clock must have left the others."""

Address = tuple[str, int]
Event = dict[str, object]


class Look(NamedTuple):
    """What was seen at one moment. Times are in seconds."""

    steady: float
    """Of a clock that never jumps; on some systems it stands still while the machine sleeps."""
    awake_or_not: float
    """Of one that counts the machine's sleep too, where there is one."""
    wall: float
    way: tuple[Address, str] | None
    """Whom the agent speaks to, and the local address on the way there, "" without one; None if it spoke to nobody."""


def befallen(before: Look, now: Look) -> Event | None:
    """What happened between two looks that should be `LOOK_EVERY` apart; None for nothing."""
    steady = now.steady - before.steady
    passed = max(steady, now.awake_or_not - before.awake_or_not)
    if passed - steady > ASLEEP_FROM or steady > LOOK_EVERY + STOPPED_FROM:
        return {"event": "woke", "asleep": round(passed - LOOK_EVERY, 1)}
    if before.way and now.way and before.way[0] == now.way[0] and now.way[1] not in ("", before.way[1]):
        return {"event": "network_changed", "address": now.way[1]}
    if abs(now.wall - before.wall - passed) > CLOCK_SET_FROM:
        return {"event": "clock_changed", "by": round(now.wall - before.wall - passed, 1)}
    return None


def way_to(peer: Address) -> str:
    """This machine's address on the way to the peer, "" if there is no way. Sends nothing: it only asks for a route."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.connect(peer)
            return str(wire.getsockname()[0])
    except OSError:
        return ""


def is_gone(address: str) -> bool:
    """Whether this machine does not have an address any more: what came from there reaches nobody."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as wire:
            wire.bind((address, 0))
    except OSError as error:
        return error.errno == errno.EADDRNOTAVAIL
    return False


class Watch:
    """Looks around for ever. `wall` is a wall clock; `tell` takes much less than `STOPPED_FROM`."""

    def __init__(self, wall: Callable[[], float], tell: Callable[[Event], Awaitable[None]]) -> None:
        self._wall = wall
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._before = self._look(None)

    def connected(self, peer: Address, local: str) -> None:
        """The agent speaks to this peer, from this address of its machine."""
        self._before = self._before._replace(way=(peer, local))

    async def run(self) -> None:
        """Tells what befalls the machine."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            before = self._before
            self._before = now = self._look(before.way and before.way[0])
            if (event := befallen(before, now)) is not None:
                await self._tell(event)

    def _look(self, peer: Address | None) -> Look:
        way = None if peer is None else (peer, way_to(peer))
        return Look(self._loop.time(), counting_sleep(), self._wall(), way)


def counting_sleep() -> float:
    """Seconds on the clock that counts sleep, where there is one; else on the steady one."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.monotonic()
