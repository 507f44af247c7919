"""Agents in line for their handshakes: a few at each turn of the event loop, so that nobody else waits for them all.

After a restart a thousand agents come back at once. Taken at once, each would be answered after it has given up and
come again, for ever. So they wait in line, which costs nothing; who finds it too long, or does not have its turn before
it would give up, is told so, which costs little. Knows no sockets, and reads no clock but the one that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from relay.tunnels.crowds import Crowd

# Seconds of handshakes in one turn of the event loop.
TURN = 0.01
# While those before them are still judged, those in line wait, and are looked after again in so many seconds: with more
# at once a turn of the loop takes so long that nobody is judged in time.
LOOK_EVERY = 0.01
# An agent gives up after 3 s (docs/protocol.md), and what follows its turn takes a moment as well.
MOST_WAIT = 1.5
MOST_IN_LINE = 512
MOST_OF_ONE = 64


class InLine(Protocol):
    """Whoever waits; told one of these, once, unless it leaves the line before."""

    def on_turn(self) -> None:
        """The handshake may begin."""

    def on_too_long(self) -> None:
        """There will be no turn in time."""


class Line:
    """First come, first served. `now` gives seconds, `call_later` calls back in so many of them, at 0 in the next turn
    of the event loop; while `busy`, nobody has a turn.
    """

    def __init__(
        self,
        now: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        busy: Callable[[], bool],
    ) -> None:
        self._now = now
        self._call_later = call_later
        self._busy = busy
        self._waiting: dict[InLine, tuple[float, str]] = {}
        self._crowd = Crowd(MOST_IN_LINE, MOST_OF_ONE)
        self._called = False

    def join(self, one: InLine, network: str) -> None:
        """Its turn comes, or the news that it will not. An empty network has no bound of its own."""
        if self._crowd.enter(network):
            self._crowd.leave(network)
            one.on_too_long()
            return
        self._waiting[one] = (self._now(), network)
        self._call(0.0)

    def leave(self, one: InLine) -> None:
        """It no longer waits, if it did."""
        waited = self._waiting.pop(one, None)
        if waited is not None:
            self._crowd.leave(waited[1])

    def _call(self, seconds: float) -> None:
        if not self._called:
            self._called = True
            self._call_later(seconds, self._turn)

    def _turn(self) -> None:
        self._called = False
        began = now = self._now()
        busy = self._busy()
        while self._waiting and now - began <= TURN:
            one, (since, network) = next(iter(self._waiting.items()))
            late = now - since > MOST_WAIT
            if busy and not late:
                break
            del self._waiting[one]
            self._crowd.leave(network)
            if late:
                one.on_too_long()
            else:
                one.on_turn()
            now = self._now()
        if self._waiting:
            self._call(LOOK_EVERY if busy else 0.0)
