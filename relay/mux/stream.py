"""One stream: its state, its two windows, its queue. Written with `write/end/reset`, read by events.

`write` takes everything and says whether to go on; an owner that is told to wait stops reading its own source, so a
stream's queue never holds more than one read beyond `QUEUE_FULL`. Received bytes count as consumed only when the
owner says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from relay.mux.keepalive import Keepalive
from relay.mux.outbox import CONTROL_STREAM, Outbox
from relay.wire.errors import LocalProtocolError, RemoteProtocolError, ResetCode
from relay.wire.frames import (
    END,
    HEAD,
    HEAD_END,
    HEADER_SIZE,
    MAX_CREDIT,
    STREAM_WINDOW,
    encode,
    encode_credit,
    encode_head,
    encode_reset,
)
from relay.wire.states import TRANSITIONS, Signal, State
from relay.wire.window import ReceiveWindow, SessionWindow

# Members of an enum are slow to look up, and these are looked up for every frame.
_RECV_DATA = Signal.RECV_DATA
_RECV_END = Signal.RECV_END
_SEND_DATA = Signal.SEND_DATA
_SEND_END = Signal.SEND_END
_CLOSED = State.CLOSED
_LOCAL_ENDED = State.LOCAL_ENDED
_OPEN = State.OPEN

# A writer is told to wait once this many bytes are queued, and to go on once no more than a quarter of it is. A stream
# whose peer has taken `BULK_FROM` bytes may queue more: bulk goes in large pieces, and a stalled stream holds little.
QUEUE_FULL = 64 * 1024
QUEUE_FULL_BULK = 256 * 1024
BULK_FROM = 16 * 1024 * 1024
_TOO_MUCH = "too much waits for the link"


class StreamEvents(Protocol):
    """What a stream tells its owner. After `on_end` of both sides, `on_reset` or `reset()`, nothing more comes."""

    def on_head(self, payload: bytes) -> None:
        """A response head arrived (opener's side only)."""

    def on_data(self, data: memoryview) -> None:
        """Bytes arrived; valid only during the call. Answer with `stream.consumed(n)`, now or later."""

    def on_end(self, trailers: bytes) -> None:
        """The peer sends no more; `trailers` is b"" without."""

    def on_reset(self, code: int, delivered: bool, detail: str) -> None:
        """The stream was cut, by the peer or because its session ended (then `code` is -1)."""

    def on_writable(self) -> None:
        """There is room again after `write` returned False."""


class StreamHost(Protocol):
    """What a stream asks of the session that made it."""

    outbox: Outbox
    window: SessionWindow
    keepalive: Keepalive
    writable: bool
    deferred: list[Callable[[], None]]
    """Called, and forgotten, when the message that is being read has been dispatched."""

    def now(self) -> float:
        """Loop time, in seconds."""

    def send(self, frame: bytes) -> None:
        """Queues a frame."""

    def schedule(self) -> None:
        """Sends at the end of this turn of the loop."""

    def grant(self) -> None:
        """Gives the peer credit on the session where that is worth a frame."""

    def forget(self, stream: Stream) -> None:
        """The stream has ended."""


class Stream:
    """Made by `Session`; `owner` is set before the first event."""

    __slots__ = (
        "_blocked",
        "_ending",
        "_full",
        "_queue",
        "_queued",
        "_taken",
        "id",
        "owner",
        "send_credit",
        "session",
        "state",
        "waiting",
        "window",
    )

    def __init__(self, session: StreamHost, number: int, window_most: int) -> None:
        self.session = session
        self.id = number
        self.owner: StreamEvents | None = None
        self.state = _OPEN
        self.window = ReceiveWindow(STREAM_WINDOW, window_most)
        self.send_credit = STREAM_WINDOW
        self.waiting = False
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._blocked = False
        self._full = QUEUE_FULL
        self._taken = 0
        self._ending: bytes | None = None

    # ---- sending

    def send_head(self, payload: bytes, ended: bool = False) -> None:
        """A response head; with `ended` there is no body."""
        self._step(_SEND_DATA)
        if self._send_block(encode_head(HEAD_END if ended else HEAD, self.id, payload)) and ended:
            self._close_local()

    def write(self, data: bytes) -> bool:
        """Sends or queues `data` (not empty). False: wait for `on_writable` before writing more."""
        self._step(_SEND_DATA)
        session = self.session
        length = len(data)
        if not self._queued and length <= self.send_credit and session.writable and session.outbox.takes_small(length):
            session.outbox.add_small(self, data)
            session.schedule()
            return True
        self._queue.append(data)
        self._queued += length
        if self.send_credit > 0:
            session.outbox.wait(self)
            session.schedule()
        if self._queued >= self._full:
            self._blocked = True
        return not self._blocked

    def end(self, trailers: bytes = b"") -> None:
        """Half-closes: nothing more will be written."""
        self._step(_SEND_DATA)
        if self._queued:
            self._ending = trailers
            return
        if self._send_block(encode_head(END, self.id, trailers)):
            self._close_local()

    def sent_all(self) -> None:
        """The OPEN frame said that no body follows."""
        self.state = TRANSITIONS[self.state][_SEND_END]

    def received_all(self) -> None:
        """The peer's OPEN frame said that no body follows."""
        self.state = TRANSITIONS[self.state][_RECV_END]

    @property
    def pending(self) -> int:
        """Bytes queued and not yet sent."""
        return self._queued

    def reset(self, code: ResetCode, detail: str = "", delivered: bool = False) -> None:
        """Cuts the stream, both ways, at once. Does nothing on a closed stream."""
        if self.state is _CLOSED:
            return
        self.session.send(encode_reset(self.id, code, detail, delivered))
        self.release()

    # ---- turns, called by the outbox

    def take(self, most: int) -> tuple[list[bytes | memoryview], int, bool]:
        """See `outbox.Queued.take`."""
        parts: list[bytes | memoryview] = []
        size = 0
        queue = self._queue
        while queue and size < most:
            part = queue[0]
            room = most - size
            if len(part) <= room:
                queue.popleft()
                parts.append(part)
                size += len(part)
            else:
                view = memoryview(part)
                parts.append(view[:room])
                queue[0] = view[room:]
                size += room
        self._queued -= size
        self._taken += size
        return parts, size, self._ending == b"" and not self._queued

    def has_more(self) -> bool:
        """See `outbox.Queued.has_more`."""
        return self._queued > 0

    def on_sent(self) -> None:
        """See `outbox.Queued.on_sent`."""
        if self._ending is not None and not self._queued:
            trailers, self._ending = self._ending, None
            if not trailers or self._send_block(encode(END, self.id, trailers)):
                self._close_local()
        elif self._blocked and self._queued <= self._full // 4:
            self._blocked = False
            if self.owner is not None and self.state is not _CLOSED:
                self.owner.on_writable()

    # ---- receiving, called by the session

    def receive_data(self, data: memoryview) -> None:
        """DATA came in."""
        self._remote(_RECV_DATA)
        self.window.on_received(len(data))
        if self.owner is not None:
            self.owner.on_data(data)

    def receive_head(self, payload: bytes) -> None:
        """HEAD came in."""
        self._remote(_RECV_DATA)
        if self.owner is not None:
            self.owner.on_head(payload)

    def receive_end(self, trailers: bytes) -> None:
        """The peer ended."""
        if self.state is _CLOSED:
            return  # the owner cut the stream while handling the data of this very frame
        self._remote(_RECV_END)
        owner = self.owner
        if self._closed():
            self.release()
        if owner is not None:
            owner.on_end(trailers)

    def receive_reset(self, code: int, delivered: bool, detail: str) -> None:
        """The peer cut the stream."""
        owner = self.owner
        self.release()
        if owner is not None:
            owner.on_reset(code, delivered, detail)

    def receive_credit(self, increment: int) -> None:
        """The peer lets us send more. Raises `RemoteProtocolError` when the sum passes the bound."""
        self.send_credit += increment
        if self.send_credit > MAX_CREDIT:
            raise RemoteProtocolError("more credit than 2^31-1 bytes on a stream")
        if self._taken >= BULK_FROM:
            self._full = QUEUE_FULL_BULK
        if self._queued:
            self.session.outbox.wait(self)
            self.session.schedule()

    def consumed(self, amount: int) -> None:
        """The owner has passed `amount` received bytes on: the peer may send that much more."""
        window = self.window
        # What a stream held when it was released has been counted: a late word about it is worth nothing.
        amount = min(amount, window.received - window.consumed)
        window.consumed += amount
        session = self.session
        self._give_back(amount)
        if window.granted - window.consumed <= window.size * 7 // 8 and self.state in (_OPEN, _LOCAL_ENDED):
            increment = window.grant(window.consumed, session.now(), session.keepalive.trips)
            if increment:
                session.send(encode_credit(self.id, increment))

    def release(self) -> None:
        """Forgets the stream; what it held counts as consumed on the session."""
        self.state = _CLOSED
        self._queue.clear()
        self._queued = 0
        self._ending = None
        self.owner = None
        held = self.window.held()
        self.window.consumed = self.window.received
        self.session.forget(self)
        self._give_back(held)

    def _give_back(self, amount: int) -> None:
        """Counts consumed bytes on the session as well, whose bound on what is held may have kept credit back."""
        window = self.session.window
        window.consumed += amount
        if window.granted - window.received <= window.size // 2:
            self.session.grant()

    def _send_block(self, frame: bytes) -> bool:
        """Sends a head or an end, which no credit holds back. False: too much waits already, and the stream was cut."""
        if len(frame) <= HEADER_SIZE or self.session.outbox.size <= CONTROL_STREAM:
            self.session.send(frame)
            return True
        owner = self.owner
        self.reset(ResetCode.INTERNAL, _TOO_MUCH, delivered=True)
        if owner is not None:
            owner.on_reset(ResetCode.INTERNAL, True, _TOO_MUCH)
        return False

    def _close_local(self) -> None:
        if self._closed():
            return  # the session was cut while the end was being sent
        self._step(_SEND_END)
        if self._closed():
            self.release()

    def _closed(self) -> bool:
        return self.state is _CLOSED

    def _step(self, signal: Signal) -> None:
        state = TRANSITIONS[self.state].get(signal)
        if state is None or (self._ending is not None and signal is _SEND_DATA):
            raise LocalProtocolError(f"{signal.name} on a stream that is {self.state.name}")
        self.state = state

    def _remote(self, signal: Signal) -> None:
        state = TRANSITIONS[self.state].get(signal)
        if state is None:
            raise RemoteProtocolError(f"{signal.name[5:]} on stream {self.id}, which has ended")
        self.state = state
