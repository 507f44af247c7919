"""How a visitor's connection ends when the relay does: who may still ask, who is told why, who is cut.

What has come, by all that can be known, is answered first. The connection's own ends are decided below (`visitor`).
"""

from __future__ import annotations

import os
from typing import Final

from relay.edge.account import COMPLETE, CUT, HANDED_OVER
from relay.edge.entrance import Entrant
from relay.edge.phase import HEAD, HELD, OVER
from relay.edge.services import Services
from relay.edge.websocketframes import GOING_AWAY, RESTARTING, Way, close_frame
from relay.wire.errors import ResetCode

# When the relay stops, a connection without any request yet has had so many seconds for its first.
FIRST_WITHIN: Final = 1.0


class Leaver(Entrant):
    """See `Attended`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._since = self.loop.time()

    @property
    def busy(self) -> bool:
        """See `Attended.busy`."""
        return self._phase is not OVER

    def shutdown(self) -> None:
        """See `Attended.shutdown`."""
        if not self.is_idle():
            return
        if self.request_id or self.loop.time() >= self._since + FIRST_WITHIN:
            self._phase = OVER
            self.close()
        else:
            self.patience.expect("silence", self._since + FIRST_WITHIN)

    def part(self) -> None:
        """See `Attended.part`: a WebSocket gets a close frame each way, at the next border of frames."""
        exchange, pipe = self.exchange, self.pipe
        if exchange is None or pipe is None or not pipe.known:
            self.cut()
            return
        if not exchange.complete:
            self.to_visitor(pipe.to_visitor, pipe.to_visitor.part(close_frame(RESTARTING)))
        if not self._half_closed:
            self.to_local(pipe.to_local, pipe.to_local.part(close_frame(GOING_AWAY, os.urandom(4))))

    def cut(self) -> None:
        """See `Attended.cut`, `Admitted.cut`: an answer that is complete may still arrive, for a while."""
        if self.account is not None and not self.closed:
            if self.account.ended is not COMPLETE:
                self.account.ended = CUT
            self.leave(ResetCode.CANCEL)
            self.break_off(by_close=True)
        elif self._phase is HEAD:
            self.close()

    def hand_over(self) -> tuple[int, bytes] | None:
        """See `Attended.hand_over`."""
        if self._phase is not HELD or not self._held_head:
            return None
        descriptor = self.give_away()
        if descriptor is None:
            return None
        sent = self._held_head + self._buffer
        if self.account is not None:
            self.account.ended = HANDED_OVER
        self.leave(ResetCode.CANCEL)
        self._phase = OVER
        return descriptor, sent

    def is_idle(self) -> bool:
        """Whether nothing has come of a next request, not even into the kernel."""
        return self._phase is HEAD and not self._buffer and not self.has_unread()

    def to_local(self, way: Way, data: bytes) -> None:
        """Sends on what a pipe lets through, and ends that direction behind its last word."""
        if data and self.exchange is not None:
            if self.account is not None:
                self.account.bytes_in += len(data)
            if not self.exchange.write(data):
                self.pause()
            if way.over:
                self.exchange.end([])
