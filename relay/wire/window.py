"""Credit arithmetic of a receiver: how much the peer may send, and when to say so. Pure; time is passed in.

A window starts small. While it is what holds the sender back (the bytes that came in one round trip fill nearly all
of it) it doubles, once per round trip; as soon as something else is slower (the path, the sender, our own consumer) it
settles at 1.25 x delivered rate x round trip, so that bytes wait in the sender's queue, where turns are taken, and
not in the path.
"""

from __future__ import annotations

from relay.wire.errors import RemoteProtocolError

# A round trip shorter than this is taken as this: below it an event loop's own turns are what is measured.
LEAST_ROUND_TRIP = 0.004
# The window counts as the limit when the delivered rate fills at least this share of it in a round trip.
LIMITING_SHARE = 0.85
HEADROOM = 1.25


class ReceiveWindow:
    """One direction of one stream, or of a whole session. All amounts are bytes, all times seconds."""

    __slots__ = ("consumed", "epoch_bytes", "epoch_start", "granted", "least", "most", "received", "size")

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most
        self.size = least
        self.granted = least
        self.received = 0
        self.consumed = 0
        self.epoch_start = -1.0
        self.epoch_bytes = 0

    def on_received(self, amount: int) -> None:
        """Counts `amount` bytes in. Raises `RemoteProtocolError` when the peer sent more than it was granted."""
        self.received += amount
        if self.received > self.granted:
            raise RemoteProtocolError(f"{self.received - self.granted} bytes more than the credit given")

    def held(self) -> int:
        """Bytes received and not yet consumed."""
        return self.received - self.consumed

    def grant(self, base: int, now: float, round_trip: float) -> int:
        """The credit to give now, 0 when it is not worth a frame.

        `base` is the count that credit follows: `consumed` for a stream; `received` for a session, whose streams hold
        their own readers back, so that a reader that stopped does not take the others' share. Whatever it is, no more than
        `most` bytes are ever granted beyond what was consumed.
        """
        left = self.granted - base
        if left > self.size * 3 // 4:
            return 0
        self._measure(base, now, max(round_trip, LEAST_ROUND_TRIP))
        increment = min(base + self.size, self.consumed + self.most) - self.granted
        if increment <= self.size // 8:
            return 0
        self.granted += increment
        return increment

    def _measure(self, base: int, now: float, round_trip: float) -> None:
        if self.epoch_start < 0:
            # The first bytes tell no rate yet: measuring starts here.
            self.epoch_start = now
            self.epoch_bytes = base
            return
        elapsed = now - self.epoch_start
        if elapsed < round_trip:
            return
        in_flight = int((base - self.epoch_bytes) * round_trip / elapsed)
        if in_flight >= self.size * LIMITING_SHARE:
            self.size = min(self.size * 2, self.most)
        else:
            self.size = min(max(int(in_flight * HEADROOM), self.least), self.most)
        self.epoch_start = now
        self.epoch_bytes = base
