"""When a session's window is full of bytes that nobody takes: whoever has taken nothing for a while makes room.

A reader that stops holds its own stream back and no other, as long as the session's window has room beside it. Enough
of them fill it, and then nobody's bytes come in any more. So where the window is nearly full those who took none of
theirs for `PATIENCE` are cut, the one that holds the most first. On the side that opens streams only: there the reader
is a visitor, who can ask again. A local service that pauses must find the uploads that wait for it.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from relay.mux.stream import Stream
from relay.wire.errors import ResetCode
from relay.wire.window import SessionWindow

PATIENCE: Final = 2.0
FULL: Final = 7 / 8
ENOUGH: Final = 1 / 4
_SENTENCE: Final = "too much waits for readers that take nothing"


class Host(Protocol):
    """The session."""

    loop: asyncio.AbstractEventLoop
    streams: dict[int, Stream]
    window: SessionWindow
    ended: bool


class Crowding:
    """Looks again, `PATIENCE` seconds after it was noticed that the window is nearly full."""

    __slots__ = ("_consumed", "_host", "_timer")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._timer: asyncio.TimerHandle | None = None
        self._consumed: dict[int, int] = {}

    def notice(self) -> None:
        """No credit could be given on the session: is that because so much is held?"""
        host = self._host
        if self._timer is None and not host.ended and self._over(FULL):
            self._consumed = {stream.id: stream.seen.consumed for stream in host.streams.values()}
            self._timer = host.loop.call_later(PATIENCE, self._look)

    def _over(self, share: float) -> bool:
        window = self._host.window
        return window.held() > window.most * share

    def _look(self) -> None:
        self._timer = None
        host, before = self._host, self._consumed
        self._consumed = {}
        if host.ended or not self._over(FULL):
            return
        stalled = [one for one in host.streams.values() if before.get(one.id) == one.seen.consumed]
        stalled.sort(key=lambda one: one.seen.held())
        while stalled and self._over(ENOUGH):
            stream = stalled.pop()
            owner = stream.owner
            stream.reset(ResetCode.CANCEL, _SENTENCE, delivered=True)
            if owner is not None:
                try:
                    owner.on_reset(ResetCode.CANCEL, True, _SENTENCE)
                except Exception as error:  # those behind it are cut all the same
                    host.loop.call_exception_handler({"message": "an exchange failed", "exception": error})
        self.notice()
