"""Is the peer alive, and how far away is it? Decides when to ping and when a peer is dead; time is passed in.

A verdict needs an answer to our own ping: frames that merely arrive prove one direction only, and a half-open link
still carries the other.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from relay.wire.window import Trips

# A ping that stays unanswered for this many seconds is the verdict (with the interval before it: within 15 s).
DEAD_AFTER: Final = 9.0
# A new session pings this often in a row, so that its round trip is known before the first regular interval.
FIRST_PINGS: Final = 3
# While data flows, a ping follows the last one's answer after this many seconds or a round trip, whichever is longer.
BUSY_INTERVAL: Final = 0.05
# The smallest round trip is that of the last so many seconds: a path may change under a session.
SMALLEST_OF: Final = 15.0


class Keepalive:
    """Pings of one session. Times are seconds of one monotonic clock."""

    __slots__ = ("_burst", "_heard_at", "_nonce", "_samples", "_sent_at", "interval", "trips")

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.trips = Trips()
        # (when, round trip): each smaller than those behind it, so that the first is the smallest.
        self._samples: deque[tuple[float, float]] = deque()
        self._nonce = 0
        self._sent_at = -1.0
        self._heard_at = 0.0
        self._burst = FIRST_PINGS

    def ping(self, now: float) -> int | None:
        """The nonce to ping with, or None while an answer is outstanding."""
        if self._sent_at >= 0:
            return None
        self._nonce += 1
        self._sent_at = now
        return self._nonce

    def wants_ping(self, now: float) -> bool:
        """While data flows: whether it is time to measure again."""
        return self._sent_at < 0 and now - self._heard_at >= max(self.trips.last, BUSY_INTERVAL)

    def on_pong(self, nonce: int, now: float) -> bool:
        """Counts an answer. False: a stale or made-up one, which is ignored."""
        if nonce != self._nonce or self._sent_at < 0:
            return False
        self.trips.last = now - self._sent_at
        samples = self._samples
        while samples and samples[-1][1] >= self.trips.last:
            samples.pop()
        samples.append((now, self.trips.last))
        while samples[0][0] < now - SMALLEST_OF:
            samples.popleft()
        self.trips.smallest = samples[0][1]
        self._sent_at = -1.0
        self._heard_at = now
        self._burst -= 1
        return True

    @property
    def measured(self) -> bool:
        """Whether a round trip is known."""
        return bool(self._samples)

    @property
    def in_burst(self) -> bool:
        """Whether to ping again at once: the round trip is not well known yet."""
        return self._burst > 0

    def dead(self, now: float) -> bool:
        """Whether our ping has been unanswered for too long."""
        return self._sent_at >= 0 and now - self._sent_at >= DEAD_AFTER

    def next_check(self, now: float) -> float:
        """Seconds until `ping` or `dead` should be asked again."""
        if self._sent_at < 0:
            return self.interval
        return max(min(self.interval, self._sent_at + DEAD_AFTER - now), 0.01)
