"""How long a visitor may keep us waiting. Pure: every call is given the time.

Clocks run only while the relay is ready: a body that we do not read (the local service is slow) costs its sender
nothing, and once a response head was sent nothing is asked of the request any more.
"""

from __future__ import annotations

from typing import Final

# A body must bring this many bytes a second, over a span of this many seconds (never less than the idle limit).
LEAST_RATE: Final = 64
RATE_SPAN: Final = 60.0
NEVER: Final = float("inf")


class Patience:
    """The one deadline of a connection, and why it was set."""

    __slots__ = ("_body", "_span_ready", "_span_start", "deadline", "reason")

    def __init__(self) -> None:
        self.deadline = NEVER
        self.reason = ""
        self._body = 0
        self._span_start = 0.0
        self._span_ready = 0.0

    def expect(self, reason: str, deadline: float) -> None:
        """From now on `reason` must have happened by `deadline`."""
        self.reason = reason
        self.deadline = deadline

    def wait_for_ever(self) -> None:
        """Nothing is asked of the visitor."""
        self.deadline = NEVER
        self.reason = ""

    def start_body(self, now: float) -> None:
        """A request body begins."""
        self._body = 0
        self._span_start = now
        self._span_ready = 0.0

    def on_body(self, amount: int) -> None:
        """Body bytes came in."""
        self._body += amount

    def too_slow(self, now: float, ready: bool) -> bool:
        """Asked now and then while a body comes in; `ready` says whether we are reading. True: below the rate."""
        elapsed = now - self._span_start
        self._span_start = now
        if not ready:
            return False
        self._span_ready += elapsed
        if self._span_ready < RATE_SPAN:
            return False
        slow = self._body < LEAST_RATE * RATE_SPAN
        self._body = 0
        self._span_ready = 0.0
        return slow
