"""Credit arithmetic of a receiver: how much the peer may send, and when to say so. Pure; time is passed in.

A window starts small and doubles, at most once per round trip, while it is what holds the sender back: credit is used
up as fast as a round trip allows. A stream's window gets smaller when its consumer is slow. A session's settles at
1.25 x delivered rate x smallest round trip as soon as pings come back late, which shows that bytes wait in the path:
they should wait in the sender's queue, where turns are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NoReturn

from relay.wire.errors import RemoteProtocolError

# A round trip shorter than this is taken as this: below it an event loop's own turns are what is measured.
LEAST_ROUND_TRIP: Final = 0.004
# A session's window is the limit when all of it was used up within this many round trips. A stream's grows earlier, so
# that it is the session's, which knows the path, that limits a lone stream.
LIMITING_TRIPS: Final = 1.5
NARROW_TRIPS: Final = 2.5
# A ping that took this many times the smallest round trip has waited behind data.
QUEUED_TRIPS: Final = 1.25
HEADROOM: Final = 1.25
# After a session's window has settled it grows by an eighth, so many times, before it doubles again.
CAUTIOUS_STEPS: Final = 8
# A consumer that takes this many round trips for a window is slow.
SLOW_TRIPS: Final = 4.0


@dataclass(slots=True)
class Trips:
    """Round trips of a session, in seconds: the smallest of late, and the last."""

    smallest: float = 0.0
    last: float = 0.0


class ReceiveWindow:
    """One direction of one stream, or of a whole session. All amounts are bytes, all times seconds."""

    __slots__ = ("consumed", "granted", "least", "mark", "mark_base", "mark_time", "most", "received", "size")

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most
        self.size = least
        self.granted = least
        self.received = 0
        self.consumed = 0
        self.mark = least
        """The count up to which credit had been given when measuring last began."""
        self.mark_base = 0
        self.mark_time = -1.0

    def on_received(self, amount: int) -> None:
        """Counts `amount` bytes in. Raises `RemoteProtocolError` when the peer sent more than it was granted."""
        self.received += amount
        if self.received > self.granted:
            self.overrun()

    def overrun(self) -> NoReturn:
        """Whoever counts by itself has found more received than granted. Raises `RemoteProtocolError`."""
        raise RemoteProtocolError(f"{self.received - self.granted} bytes more than the credit given")

    def limit(self, most: int) -> None:
        """Another bound from now on. Credit that was given stays given."""
        self.most = most
        self.size = min(self.size, most)

    def held(self) -> int:
        """Bytes received and not yet consumed."""
        return self.received - self.consumed

    def grant(self, base: int, now: float, trips: Trips) -> int:
        """The credit to give now, 0 when it is not worth a frame.

        `base` is the count that credit follows: `consumed` for a stream; `received` for a session, whose streams hold
        their own readers back, so that a reader that stopped does not take the others' share. Whatever it is, no more
        than `most` bytes are ever granted beyond what was consumed.
        """
        if self.granted - base > self.size * 7 // 8:
            return 0
        taken = now - self.mark_time if self.mark_time >= 0 else 0.0
        # A whole window was used up, or it is plain that this will take too long to wait for.
        if base >= self.mark or taken > 2 * SLOW_TRIPS * max(trips.smallest, LEAST_ROUND_TRIP):
            self.size = min(max(self._judge(base - self.mark_base, taken, trips), self.least), self.most)
            self.mark = base + self.size
            self.mark_base = base
            self.mark_time = now
        increment = min(base + self.size, self.consumed + self.most) - self.granted
        if increment < self.size // 8:
            return 0
        self.granted += increment
        return increment

    def _judge(self, amount: int, taken: float, trips: Trips) -> int:
        """The next size, when `amount` bytes (a whole window, or less in a long time) took `taken` seconds."""
        trip = max(trips.smallest, LEAST_ROUND_TRIP)
        if taken <= trip * NARROW_TRIPS:
            return self.size * 2
        if taken > trip * SLOW_TRIPS:
            return int(amount * trip / taken * 2)
        return self.size


class SessionWindow(ReceiveWindow):
    """The window of a whole session, which alone answers for what waits in the path."""

    __slots__ = ("_cautious", "_late")

    def __init__(self, least: int, most: int) -> None:
        super().__init__(least, most)
        self._cautious = 0
        self._late = False

    def _judge(self, amount: int, taken: float, trips: Trips) -> int:
        smallest = max(trips.smallest, LEAST_ROUND_TRIP)
        late, self._late = self._late, trips.last > smallest * QUEUED_TRIPS
        if self._late:
            # One late ping may be a busy processor; two are a queue. And no single measurement takes more than half.
            self._cautious = CAUTIOUS_STEPS
            settled = int(amount * smallest / max(taken, smallest) * HEADROOM)
            return min(self.size, max(settled, self.size // 2)) if late else self.size
        if taken > max(trips.last, smallest) * LIMITING_TRIPS:
            return self.size
        if self._cautious:
            self._cautious -= 1
            return self.size * 9 // 8
        return self.size * 2
