"""What came in: how much of it is read before the neighbours have their turn, and how much of it may carry nothing.

A message may hold 131,072 frames, and a socket that is ready may bring thirty such messages: read at once, they would
keep every other session and visitor waiting for seconds. So after `TURN` frames, or `TURN_BYTES` of large messages, the
event loop goes round. What is there by then waits here, copied, and the carrier reads no more: it is never more than a
carrier reads at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from relay.mux.carrier import Carrier
from relay.wire.errors import RemoteProtocolError
from relay.wire.frames import HEADER, HEADER_SIZE

TURN: Final = 128
TURN_BYTES: Final = 512 * 1024
"""So much of a bulk transfer is read before all others have their turn, here and wherever else one is read: an event
loop reads a socket 32 times while there is more, which is 8 MiB and 15 ms.
"""
SMALL: Final = 8192
"""Bytes of a message that is read whole, even if it is all headers."""
# Frames that carry nothing: so many within a second, and more by what the peer was given cause for.
NOISE_MOST: Final = 10_000
NOISE_SPAN: Final = 1.0
NOISE_PER_STREAM: Final = 16
# What is not even a message counts for so many.
OF_CARRIER: Final = 10
BYTES_PER_NOISE: Final = 1024


def _nobody(*_: object) -> None:
    """Nobody reads any more."""


class Inbox:
    """Messages of one session that wait to be read by `read`, which asks `first` about large ones."""

    __slots__ = ("_after", "_bytes_left", "_call_soon", "_carrier", "_read", "holding", "left", "waiting")

    def __init__(
        self, carrier: Carrier, call_soon: Callable[[Callable[[], None]], object], read: Callable[[memoryview], None]
    ) -> None:
        self.holding = False
        """Whether the turn is over: what comes waits."""
        self.left = TURN
        """Frames that may still be read in this turn; whoever reads counts them off, and calls `hold` at 0."""
        self.waiting: deque[memoryview] = deque()
        self._bytes_left = TURN_BYTES
        self._carrier = carrier
        self._call_soon = call_soon
        self._read = read
        self._after: Callable[[], None] | None = None

    def first(self, message: memoryview) -> memoryview | None:
        """What of a message may be read now, at most a turn; None: all of it waits."""
        if self.holding:
            self.waiting.append(memoryview(bytes(message)))
            return None
        message = self._turn(message)
        self._bytes_left -= message.nbytes
        if self._bytes_left <= 0:
            self.left = 0
        return message

    def _turn(self, message: memoryview) -> memoryview:
        """So much of it as a turn has; the rest waits, before all others."""
        at, size = 0, message.nbytes
        for _ in range(TURN):
            if at + HEADER_SIZE > size:
                return message
            at += HEADER_SIZE + (HEADER.unpack_from(message, at)[1] & 0xFFFFFF)
        if at >= size:
            return message
        ours = isinstance(message.obj, bytes)
        self.waiting.appendleft(message[at:] if ours else memoryview(bytes(message[at:])))
        return message[:at]

    def hold(self) -> None:
        """The turn is over."""
        self.left = TURN
        self._bytes_left = TURN_BYTES
        if not self.holding:
            self.holding = True
            self._carrier.pause()
            self._call_soon(self._go_on)

    def when_read(self, last: Callable[[], None]) -> None:
        """Calls `last` once all that has come was read: now, unless something waits. No more comes."""
        if self.holding:
            self._after = last
        else:
            last()

    def close(self) -> None:
        """Nothing more is read. What waited is let go now, and not when somebody looks for circles: it may be much."""
        self.waiting.clear()
        self._read = self._after = _nobody

    def _go_on(self) -> None:
        self.holding = False
        while self.waiting and not self.holding:
            self._read(self._turn(self.waiting.popleft()))
        if self.holding:
            return
        if self._after is not None:
            self._after()
        else:
            self._carrier.resume()


def causes(opened: int, moved: int) -> int:
    """Frames that carry nothing for which a peer has cause, by streams opened and bytes moved on its session."""
    return opened * NOISE_PER_STREAM + moved // BYTES_PER_NOISE


class Noise:
    """Counts the frames of a peer that carry nothing; `now` is in seconds, `due` how many it had cause for so far."""

    __slots__ = ("_count", "_due", "_due_then", "_now", "_since")

    def __init__(self, now: Callable[[], float], due: Callable[[], int]) -> None:
        self._now = now
        self._due = due
        self._count = 0
        self._due_then = 0
        self._since = 0.0

    def heard(self, weight: int = 1) -> None:
        """One came. Raises `RemoteProtocolError` when there were too many within a second."""
        self._count += weight
        if self._count > NOISE_MOST:
            self._judge()

    def _judge(self) -> None:
        now, due = self._now(), self._due()
        if now - self._since >= NOISE_SPAN:
            self._count, self._since, self._due_then = 0, now, due
        elif self._count > NOISE_MOST + due - self._due_then:
            raise RemoteProtocolError(f"more than {NOISE_MOST} frames in a second that carry nothing")
