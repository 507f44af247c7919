"""What a session tells its owner. What a stream tells its own stands in `streamevents`."""

from __future__ import annotations

from typing import Protocol

from relay.mux.stream import Stream
from relay.mux.streamevents import StreamEvents


class SessionEvents(Protocol):
    """Called on the event loop's thread; whatever is done in a call is sent by the end of its turn."""

    def on_handshake(self, kind: int, payload: bytes) -> None:
        """HELLO, WELCOME, REFUSED, RENEW or RENEWED came in."""

    def on_open(self, stream: Stream, payload: bytes, ended: bool) -> StreamEvents | None:
        """The peer opened a stream; the result becomes its owner. None: it was reset."""

    def on_going_away(self, code: int, detail: str) -> None:
        """The peer will end the session."""

    def on_lost(self, reason: str) -> None:
        """The session has ended; every stream has been told. The last event."""
