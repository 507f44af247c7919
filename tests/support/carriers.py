"""A pair of carriers in memory: whole messages, in order, with a delay and a rate; a stand-in for a network path.

A path with a rate takes no more than `ROOM_AHEAD` seconds of it at once, as a socket with little room for unsent
bytes does.
"""

from __future__ import annotations

import asyncio
from collections import deque

from relay.mux.carrier import ROOM, CarrierEvents

ROOM_AHEAD = 0.002
# A close waits this long, in seconds, for what was sent before it.
CLOSE_WITHIN = 2.0


class MemoryCarrier:
    """One end. `peer` and `owner` are set by `pair` and by the test."""

    def __init__(self, delay: float, rate: float | None) -> None:
        self.delay = delay
        self.rate = rate
        self.peer: MemoryCarrier | None = None
        self.owner: CarrierEvents | None = None
        self.sent = 0
        self.messages = 0
        self.closed: tuple[int, str] | None = None
        self.swallow = False
        """Everything sent is lost, and nobody is told: a half-open path."""
        self._free_at = 0.0
        # Timers of one instant fire in any order; messages do not.
        self._under_way: deque[bytes] = deque()
        self._loop = asyncio.get_running_loop()

    def send(self, message: bytearray) -> bool:
        """See `Carrier.send`."""
        if self.closed is not None:
            return True
        payload = bytes(message[ROOM:])
        self.sent += len(payload)
        self.messages += 1
        now = self._loop.time()
        self._free_at = max(self._free_at, now) + (len(payload) / self.rate if self.rate else 0.0)
        self._under_way.append(payload)
        self._loop.call_at(self._free_at + self.delay, self._deliver)
        if self.rate and self._free_at - now > ROOM_AHEAD:
            self._loop.call_at(self._free_at, self._writable)
            return False
        return True

    def pause(self) -> None:
        """See `Carrier.pause`: what is under way comes all the same."""

    def resume(self) -> None:
        """See `Carrier.resume`."""

    def close(self, code: int, reason: str) -> None:
        """See `Carrier.close`."""
        if self.closed is None:
            self.closed = (code, reason)
            sent = max(self._free_at - self._loop.time(), 0.0)
            self._loop.call_later(min(sent, CLOSE_WITHIN) + self.delay, self._end_both, reason)

    def abort(self) -> None:
        """See `Carrier.abort`."""
        self._under_way.clear()
        self._free_at = 0.0
        self.close(1006, "aborted")

    def _writable(self) -> None:
        if self.owner is not None and self.closed is None:
            self.owner.on_writable()

    def _deliver(self) -> None:
        if not self._under_way:
            return
        payload = self._under_way.popleft()
        peer = self.peer
        if peer is not None and peer.owner is not None and not self.swallow:
            peer.owner.on_message(memoryview(payload))

    def _end_both(self, reason: str) -> None:
        if self._free_at <= self._loop.time():
            while self._under_way:
                self._deliver()
        for end in (self, self.peer):
            if end is not None and end.owner is not None:
                owner, end.owner = end.owner, None
                end.closed = end.closed or (1000, reason)
                owner.on_lost(reason)


def pair(delay: float = 0.0, rate: float | None = None) -> tuple[MemoryCarrier, MemoryCarrier]:
    """Two ends of one path: one-way delay in seconds, rate in bytes per second each way."""
    one, other = MemoryCarrier(delay, rate), MemoryCarrier(delay, rate)
    one.peer, other.peer = other, one
    return one, other
