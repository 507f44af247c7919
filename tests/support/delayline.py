"""One direction of one proxied connection: bytes go in, come out later, in order, and perhaps damaged.

This room alone decides when and in which shape bytes leave; it knows no sockets, only an `Outlet` to write to and an
`Inlet` to hold back. It must be fast, or a test of a long path would measure the path: a deque of (due time, bytes),
one timer a line, no task and no copy per chunk.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from tests.support.faultcontrols import How

CAPACITY = 256 * 2**20
# Without a delay nothing needs to be in flight: a reader that stops is felt by the sender at once.
CAPACITY_WITHOUT_DELAY = 1 * 2**20
# libuv's timers count in milliseconds: what is due within half of one leaves now.
TIMER_GRAIN = 0.0005
RATE_SLICE = 0.005  # seconds of a limited rate that one piece may take

Payload = bytes | memoryview
Swallow = Literal["no", "drop", "stall"]


class Outlet(Protocol):
    """Where a line writes to."""

    ready: bool

    def write(self, data: Payload) -> None:
        """Hand on bytes; `ready` may turn False by it."""

    def end(self, how: How) -> None:
        """Half-close (fin) or reset (rst) the far side."""

    def cut(self, how: How) -> None:
        """End both sides of the pair."""


class Inlet(Protocol):
    """Where a line's bytes come from."""

    def hold(self) -> None:
        """Stop reading."""

    def release(self) -> None:
        """Read again."""


@dataclass(slots=True)
class Path:
    """The conditions of one direction, shared by its lines, and the counts over all of them."""

    delay: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0
    dribble: int = 0
    capacity: int = CAPACITY
    corrupt_after: int = 0
    corrupt_every: int = 0
    cut_count: int | None = None
    cut_how: How = "rst"
    free_at: float = 0.0
    """When the bottleneck has sent what was given to it (rate only)."""
    read: int = 0
    written: int = 0
    swallowed: int = 0

    def limit(self) -> int:
        """Bytes that may wait in one line now."""
        if self.rate:
            return int(self.rate * (self.delay + self.jitter + 0.05)) + 65536
        return self.capacity if self.delay or self.jitter else CAPACITY_WITHOUT_DELAY


class Line:
    """FIFO from an inlet to an outlet; `seed` makes its damage depend on the byte offset only, not on chunking."""

    def __init__(self, path: Path, inlet: Inlet, outlet: Outlet, seed: str) -> None:
        self.path = path
        self.swallowing: Swallow = "no"
        self.queued = 0
        self.finished = False
        self._inlet = inlet
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self._items: deque[tuple[float, Payload | How]] = deque()
        self._timer: asyncio.Handle | None = None
        self._last_due = 0.0
        self._held = False
        self._written = 0
        self._timing = random.Random(f"{seed}/timing")
        self._damage = random.Random(f"{seed}/damage")
        self._next_flip = -1

    def feed(self, data: bytes) -> None:
        """Take bytes that were read."""
        path = self.path
        path.read += len(data)
        if self.swallowing == "drop":
            path.swallowed += len(data)
            return
        if path.rate:
            step = max(1, min(65536, int(path.rate * RATE_SLICE)))
            view = memoryview(data)
            for start in range(0, len(data), step):
                self._append(view[start : start + step])
        else:
            self._append(data)
        if self.queued > path.limit() and not self._held:
            self._held = True
            self._inlet.hold()
        if self._timer is None:
            self.flush()

    def feed_end(self, how: How) -> None:
        """Take the end of the bytes: it keeps its place in the order, unless the line swallows."""
        if self.swallowing == "no":
            self._items.append((self._due(0), how))
            if self._timer is None:
                self.flush()

    def swallow(self, mode: Swallow) -> None:
        """Start or stop to swallow; what waited is forgotten with "drop" and kept with "stall"."""
        self.swallowing = mode
        if mode == "drop":
            self.path.swallowed += self.queued
            self.clear()
        if mode == "stall":
            self._held = True
            self._inlet.hold()
        else:
            self.flush()

    def clear(self) -> None:
        """Forget what waits and stop the timer."""
        self._items.clear()
        self.queued = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def flush(self) -> None:
        """Write what is due, as far as the outlet takes it, and set the timer for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.swallowing == "stall":
            return
        horizon = self._loop.time() + TIMER_GRAIN
        items, outlet = self._items, self._outlet
        while items and outlet.ready:
            due, payload = items[0]
            if due > horizon:
                self._timer = self._loop.call_at(due, self.flush)
                break
            items.popleft()
            if isinstance(payload, str):
                self.finished = True
                outlet.end(payload)
                break
            if self.path.dribble:
                payload, rest = self._split(payload)
                if rest:
                    items.appendleft((due, rest))
                # A turn of the loop between pieces, or the transport would join them again.
                self._timer = self._loop.call_soon(self.flush)
            self.queued -= len(payload)
            self._write(payload)
            if self._timer is not None:
                break
        if self._held and self.queued <= self.path.limit():
            self._held = False
            self._inlet.release()

    def _append(self, data: Payload) -> None:
        self._items.append((self._due(len(data)), data))
        self.queued += len(data)

    def _due(self, size: int) -> float:
        path = self.path
        due = self._loop.time()
        if path.rate:
            path.free_at = max(path.free_at, due) + size / path.rate
            due = path.free_at
        due += path.delay
        if path.jitter:
            due += self._timing.random() * path.jitter
        self._last_due = due = max(due, self._last_due)
        return due

    def _split(self, payload: Payload) -> tuple[memoryview, memoryview]:
        size = self._timing.randint(1, self.path.dribble)
        view = memoryview(payload)
        return view[:size], view[size:]

    def _write(self, data: Payload) -> None:
        path = self.path
        limit = path.cut_count
        if limit is not None and self._written + len(data) >= limit:
            data = data[: max(0, limit - self._written)]
        if path.corrupt_every:
            data = self._corrupted(data)
        self._written += len(data)
        path.written += len(data)
        if data:
            self._outlet.write(data)
        if limit is not None and self._written >= limit:
            self.clear()
            self.swallowing = "drop"
            self._outlet.cut(path.cut_how)

    def _corrupted(self, data: Payload) -> Payload:
        """Flip the bits whose offsets fall into these bytes; the gaps between flips are 1 to 2 x every."""
        path, start = self.path, self._written
        if self._next_flip < max(start, path.corrupt_after):
            self._next_flip = max(start, path.corrupt_after) + self._damage.randrange(2 * path.corrupt_every)
        if self._next_flip >= start + len(data):
            return data
        damaged = bytearray(data)
        while self._next_flip < start + len(data):
            damaged[self._next_flip - start] ^= 1 << self._damage.randrange(8)
            self._next_flip += 1 + self._damage.randrange(2 * path.corrupt_every)
        return bytes(damaged)
