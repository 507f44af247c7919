"""One stream: its state and its two halves. Written with `write/end/reset` (see `sending`), read by events.

Received bytes count as consumed only when the owner says so.
"""

from __future__ import annotations

from typing import Final, NoReturn

from relay.mux.sending import BULK_FROM, QUEUE_FULL, QUEUE_FULL_BULK, SendingHalf, StreamHost
from relay.wire.errors import RemoteProtocolError
from relay.wire.frames import MAX_CREDIT, STREAM_WINDOW, decode_credit, decode_reset, encode_credit
from relay.wire.states import State
from relay.wire.window import ReceiveWindow

_OPEN: Final[State] = State.OPEN
_LOCAL_ENDED: Final[State] = State.LOCAL_ENDED
_REMOTE_ENDED: Final[State] = State.REMOTE_ENDED
_CLOSED: Final[State] = State.CLOSED
_UNUSED: Final = ReceiveWindow(STREAM_WINDOW, STREAM_WINDOW)


class Stream(SendingHalf):
    """Made by `Session`; `owner` is set before the first event."""

    __slots__ = ("_window", "_window_most")

    def __init__(self, session: StreamHost, number: int, window_most: int) -> None:
        self.session = session
        self.id = number
        self.owner = None
        self.state = _OPEN
        self.send_credit = STREAM_WINDOW
        self.waiting = False
        self._queue = None
        self._queued = 0
        self._blocked = False
        self._full = QUEUE_FULL
        self._taken = 0
        self._ending = None
        self._window: ReceiveWindow | None = None
        self._window_most = window_most

    @property
    def window(self) -> ReceiveWindow:
        """What was received; made when it is asked for, since most streams need none."""
        if self._window is None:
            self._window = ReceiveWindow(STREAM_WINDOW, self._window_most)
        return self._window

    @property
    def seen(self) -> ReceiveWindow:
        """The same for who only looks: streams that have none share one, of which nothing was used."""
        return self._window or _UNUSED

    # ---- receiving, called by the session

    def receive_data(self, data: memoryview) -> None:
        """DATA came in."""
        if self.state is not _OPEN and self.state is not _LOCAL_ENDED:
            self._breach("DATA")
        length = len(data)
        session, window = self.session, self._window or self.window
        total = session.window
        total.received += length
        window.received += length
        if total.received > total.granted:
            total.overrun()
        if window.received > window.granted:
            window.overrun()
        if not length:
            session.on_empty()
        if self.owner is not None and self.owner.on_data(data):
            self.consumed(length)

    def receive_only(self, data: memoryview) -> None:
        """DATA came in, and the peer's end with it: most answers are not longer, and need no window."""
        length, owner = len(data), self.owner
        if self.state is not _LOCAL_ENDED or self._window is not None or owner is None or length > STREAM_WINDOW:
            self.receive_last(data)
            return
        session = self.session
        total = session.window
        total.received += length
        if total.received > total.granted:
            total.overrun()
        total.consumed += length  # as if released
        self.state = _CLOSED
        self.owner = None
        session.streams.pop(self.id, None)
        owner.on_last(data)

    def receive_last(self, data: memoryview) -> None:
        """DATA came in, and the peer's end with it."""
        if data:
            self.receive_data(data)
            if self.state is _CLOSED:
                return  # the owner cut the stream while handling the data
        self.receive_end(b"")

    def receive_head(self, payload: memoryview) -> None:
        """HEAD came in."""
        if self.state is not _OPEN and self.state is not _LOCAL_ENDED:
            self._breach("HEAD")
        if self.owner is not None:
            self.owner.on_head(bytes(payload))

    def receive_only_head(self, payload: memoryview) -> None:
        """HEAD came in, and the peer's end with it."""
        self.receive_head(payload)
        if self.state is not _CLOSED:
            self.receive_end(b"")

    def receive_end(self, trailers: bytes | memoryview) -> None:
        """The peer ended."""
        owner = self.owner
        if self.state is _LOCAL_ENDED:
            self.release()
        elif self.state is _OPEN:
            self.state = _REMOTE_ENDED
        else:
            self._breach("END")
        if owner is not None:
            owner.on_end(bytes(trailers))

    def receive_reset(self, payload: memoryview) -> None:
        """The peer cut the stream."""
        self.cut(*decode_reset(payload))

    def cut(self, code: int, delivered: bool, detail: str) -> None:
        """The stream has ended, since the peer, or the end of the session, cut it: its owner is told."""
        owner = self.owner
        self.release()
        if owner is not None:
            owner.on_reset(code, delivered, detail)

    def receive_credit(self, payload: memoryview) -> None:
        """The peer lets us send more. Raises `RemoteProtocolError` when the sum passes the bound."""
        self.session.on_empty()
        self.send_credit += decode_credit(payload)
        if self.send_credit > MAX_CREDIT:
            raise RemoteProtocolError("more credit than 2^31-1 bytes on a stream")
        if self._taken >= BULK_FROM:
            self._full = QUEUE_FULL_BULK
        if self._queued:
            self.session.outbox.wait(self)
            self.session.schedule()

    def consumed(self, amount: int) -> None:
        """The owner has passed `amount` received bytes on: the peer may send that much more."""
        session, window = self.session, self._window
        if window is None:
            return
        held = window.received - window.consumed
        if amount > held:
            amount = held  # what a stream held when it was released has been counted: a late word is worth nothing
        window.consumed += amount
        total = session.window
        total.consumed += amount
        if total.granted - total.received <= total.size // 2:
            session.grant()
        if window.granted - window.consumed <= window.size * 7 // 8 and (
            self.state is _OPEN or self.state is _LOCAL_ENDED
        ):
            increment = window.grant(window.consumed, session.now(), session.keepalive.trips)
            if increment:
                session.send(encode_credit(self.id, increment))

    def release(self) -> None:
        """Forgets the stream; what it held counts as consumed on the session."""
        self.state = _CLOSED
        self._queue = None
        self._queued = 0
        self._ending = None
        self.owner = None
        session, window = self.session, self._window
        session.streams.pop(self.id, None)
        if window is not None:
            total = session.window
            total.consumed += window.received - window.consumed
            window.consumed = window.received
            # The bound on what is held may have kept credit back.
            if total.granted - total.received <= total.size // 2:
                session.grant()

    def _breach(self, what: str) -> NoReturn:
        raise RemoteProtocolError(f"{what} on stream {self.id}, which has ended")
