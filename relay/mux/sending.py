"""The sending half of a stream: what may still be sent, what waits for its turn, the end behind it.

`write` takes everything and says whether to go on; an owner that is told to wait stops reading its own source, so a
queue never holds more than one read beyond `QUEUE_FULL`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import Any, Final, NoReturn, Protocol

from relay.mux.keepalive import Keepalive
from relay.mux.outbox import CONTROL_STREAM, Outbox
from relay.mux.streamevents import StreamEvents
from relay.wire.errors import LocalProtocolError, ResetCode
from relay.wire.frames import DATA, DATA_END, END, HEAD, HEAD_END, encode_reset
from relay.wire.states import State
from relay.wire.window import SessionWindow

# The table of `wire.states`, written out: it is asked for every frame, and members of an enum are slow to look up.
_OPEN: Final[State] = State.OPEN
_LOCAL_ENDED: Final[State] = State.LOCAL_ENDED
_REMOTE_ENDED: Final[State] = State.REMOTE_ENDED
_CLOSED: Final[State] = State.CLOSED

# A writer is told to wait once this many bytes are queued, and to go on once no more than a quarter of it is. A stream
# whose peer has taken `BULK_FROM` bytes may queue more: bulk goes in large pieces, and a stalled stream holds little.
QUEUE_FULL: Final = 64 * 1024
QUEUE_FULL_BULK: Final = 256 * 1024
BULK_FROM: Final = 16 * 1024 * 1024
# So much of a stream that has the link to itself is sent at once: its source need not be told to wait and to go on.
LARGE: Final = 64 * 1024
_TOO_MUCH: Final = "too much waits for the link"


class StreamHost(Protocol):
    """What a stream asks of the session that made it."""

    outbox: Outbox
    window: SessionWindow
    keepalive: Keepalive
    writable: bool
    streams: dict[int, Any]  # of streams, of which this room knows one half

    def now(self) -> float:
        """Loop time, in seconds."""

    def send(self, frame: bytes) -> None:
        """Queues a frame."""

    def send_block(self, kind: int, number: int, payload: bytes) -> None:
        """Queues a head, or an end."""

    def schedule(self) -> None:
        """Sends at the end of this turn of the loop, or now if much is queued."""

    def send_large(self) -> None:
        """Sends now what a stream has queued, if no other has anything; else as `schedule`."""

    def grant(self) -> None:
        """Gives the peer credit on the session where that is worth a frame."""

    def on_empty(self) -> None:
        """A frame brought nothing."""


class SendingHalf:
    """See `Stream`, which makes it whole."""

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
    )

    session: StreamHost
    id: int
    owner: StreamEvents | None
    state: State
    send_credit: int
    waiting: bool
    """Whether it stands in line for a turn."""
    _queue: deque[bytes | memoryview] | None
    """Made when something has to wait for the first time."""
    _queued: int
    _blocked: bool
    _full: int
    _taken: int
    _ending: bytes | None
    """Trailers of an end that waits behind what is queued; b"" without."""

    @abstractmethod
    def release(self) -> None:
        """Forgets the stream."""

    # ---- sending

    def send_head(self, payload: bytes, ended: bool = False) -> None:
        """A response head; with `ended` there is no body."""
        if self.state is not _OPEN and self.state is not _REMOTE_ENDED:
            self._too_late("a head")
        if self._send_block(HEAD_END if ended else HEAD, payload) and ended:
            self._close_local()

    def write(self, data: bytes | memoryview) -> bool:
        """Sends or queues `data` (not empty). False: wait for `on_writable` before writing more."""
        if (self.state is not _OPEN and self.state is not _REMOTE_ENDED) or self._ending is not None:
            self._too_late("data")
        session = self.session
        if not self._queued and session.writable and session.outbox.add_small(self, DATA, data):
            session.schedule()
            return True
        queue = self._queue
        if queue is None:
            queue = self._queue = deque()
        queue.append(data)
        self._queued += len(data)
        if self.send_credit > 0:
            session.outbox.wait(self)
            if self._queued >= LARGE:
                session.send_large()
            else:
                session.schedule()
        if self._queued >= self._full:
            self._blocked = True
        return not self._blocked

    def write_view(self, data: memoryview) -> bool:
        """As `write`, of bytes that are there only during the call: what has to wait is copied."""
        if len(data) < LARGE or self._queued:
            return self.write(bytes(data))
        go_on = self.write(data)
        if self._queue and self._queued:
            self._queue[-1] = bytes(self._queue[-1])
        return go_on

    def finish(self, data: bytes) -> None:
        """The last bytes (not empty), and the end behind them: in one frame, where they need not wait."""
        if (self.state is not _OPEN and self.state is not _REMOTE_ENDED) or self._ending is not None:
            self._too_late("data")
        session = self.session
        if not self._queued and session.writable and session.outbox.add_small(self, DATA_END, data):
            session.schedule()
            self._close_local()
        else:
            self.write(data)
            self.end()

    def end(self, trailers: bytes = b"") -> None:
        """Half-closes: nothing more will be written."""
        if (self.state is not _OPEN and self.state is not _REMOTE_ENDED) or self._ending is not None:
            self._too_late("an end")
        if self._queued:
            self._ending = trailers
            return
        if self._send_block(END, trailers):
            self._close_local()

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
            if not trailers or self._send_block(END, trailers):
                self._close_local()
        elif self._blocked and self._queued <= self._full // 4:
            self._blocked = False
            if self.owner is not None and self.state is not _CLOSED:
                self.owner.on_writable()

    def _send_block(self, kind: int, payload: bytes) -> bool:
        """Sends a head or an end, which no credit holds back. False: too much waits already, and the stream was cut."""
        if not payload or self.session.outbox.size <= CONTROL_STREAM:
            self.session.send_block(kind, self.id, payload)
            return True
        owner = self.owner
        self.reset(ResetCode.INTERNAL, _TOO_MUCH, delivered=True)
        if owner is not None:
            owner.on_reset(ResetCode.INTERNAL, True, _TOO_MUCH)
        return False

    def _close_local(self) -> None:
        if self.state is _REMOTE_ENDED:
            self.release()
        elif self.state is _OPEN:  # else the session was cut while the end was being sent
            self.state = _LOCAL_ENDED

    def _too_late(self, what: str) -> NoReturn:
        raise LocalProtocolError(f"{what} on a stream that is {self.state.name}, or has an end waiting")
