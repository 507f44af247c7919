"""What leaves next: control frames first, then one data frame per stream in turn. Bytes wait here, not in the kernel.

What one turn of the event loop queued leaves in one message; as soon as that is `EARLY` bytes it leaves before the turn
ends. Small data that its stream and the session have credit for goes straight to the message under construction;
everything else waits in its stream's own queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from relay.mux.carrier import ROOM
from relay.wire.errors import ResetCode
from relay.wire.frames import DATA, DATA_END, HEADER, HEADER_SIZE, MAX_MESSAGE, SESSION_WINDOW

# A message is closed at about this size, so that the next turn can bring control frames forward.
MESSAGE_TARGET: Final = 256 * 1024
# So much of heads and small data is sent without waiting for the end of the turn.
EARLY: Final = 8 * 1024
# One turn of a stream that is alone, and of one that has neighbours.
FRAME_ALONE: Final = 256 * 1024
FRAME_SHARED: Final = 32 * 1024
# Data up to this size may skip the turns, as long as the message holds no more than this of it.
SMALL: Final = 16 * 1024
DIRECT_MOST: Final = 64 * 1024
# More control frames than this waiting for a peer that does not read: new streams are refused, then the session ends.
CONTROL_BUSY: Final = 1024 * 1024
CONTROL_MOST = 8 * 1024 * 1024
# Between the two a head or trailers cost their own stream, so that no visitor's can cost the session.
CONTROL_STREAM: Final = 4 * 1024 * 1024
_ROOM: Final = bytes(ROOM)
_pack: Final = HEADER.pack


class Queued(Protocol):
    """The sending half of a stream, as the outbox sees it."""

    id: int
    send_credit: int
    waiting: bool

    def take(self, most: int) -> tuple[list[bytes | memoryview], int, bool]:
        """Up to `most` queued bytes: (parts, size, whether the stream's end goes with them)."""

    def has_more(self) -> bool:
        """Whether queued bytes are left."""

    def reset(self, code: ResetCode, detail: str = "", delivered: bool = False) -> None:
        """Cuts the stream."""

    def on_sent(self) -> None:
        """A turn was taken: tell the owner when there is room again."""


class Outbox:
    """The one message under construction and the streams that wait for their turn."""

    __slots__ = ("control", "credit", "moved", "ready", "size")

    def __init__(self) -> None:
        self.control: list[bytes | memoryview] = [_ROOM]
        self.size = 0
        self.ready: deque[Queued] = deque()
        self.credit = SESSION_WINDOW
        """Bytes of DATA that the peer lets the session send."""
        self.moved = 0
        """DATA bytes sent since the session began."""

    def add_small(self, stream: Queued, kind: int, data: bytes | memoryview) -> bool:
        """Small data past the turns, in a frame of `kind`: DATA, with the end or without. False: it has to wait."""
        length = len(data)
        if length > SMALL or length > stream.send_credit or length > self.credit or self.size >= DIRECT_MOST:
            return False
        self.control += (_pack(stream.id, kind << 24 | length), data)
        self.size += HEADER_SIZE + length
        self.credit -= length
        self.moved += length
        stream.send_credit -= length
        return True

    def wait(self, stream: Queued) -> None:
        """Puts a stream in line for its turn, once."""
        if not stream.waiting:
            stream.waiting = True
            self.ready.append(stream)

    def next_message(self, served: list[Queued]) -> bytearray | None:
        """The next message, behind `carrier.ROOM`; None when nothing can leave.

        Streams that took a turn are appended to `served`.
        """
        parts = self.control
        size = self.size
        self.control = [_ROOM]
        self.size = 0
        ready = self.ready
        while ready and self.credit > 0 and size < MESSAGE_TARGET:
            stream = ready.popleft()
            stream.waiting = False
            most = min(FRAME_SHARED if ready else FRAME_ALONE, self.credit, stream.send_credit)
            data, length, ends = stream.take(most)
            if length or ends:
                parts.append(_pack(stream.id, (DATA_END if ends else DATA) << 24 | length))
                parts += data
                size += HEADER_SIZE + length
                self.credit -= length
                self.moved += length
                stream.send_credit -= length
                served.append(stream)
            if stream.send_credit > 0 and stream.has_more():
                self.wait(stream)
        return bytearray().join(parts) if size else None


def split(message: bytearray) -> Iterator[bytearray]:
    """Cuts a message that grew past the bound (heads that piled up while the carrier was full) at frame borders."""
    start = at = ROOM
    while at < len(message):
        end = at + HEADER_SIZE + (HEADER.unpack_from(message, at)[1] & 0xFFFFFF)
        if end - start > MAX_MESSAGE:
            yield bytearray(ROOM) + message[start:at]
            start = at
        at = end
    yield bytearray(ROOM) + message[start:]
