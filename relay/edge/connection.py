"""A visitor's connection as a transport: reading with one shared buffer, pausing, deadlines, and the ways to end it.

Knows no HTTP. It decides how a connection ends so that the visitor can tell an end from an abort; what is said on it is
decided by the class below it (`visitor`).
"""

from __future__ import annotations

import asyncio
import os
import socket
from abc import abstractmethod
from typing import Final, cast

from relay.edge.patience import NEVER, Patience
from relay.edge.services import Services
from relay.limits.brakes import network_of
from relay.mux.compiling import mypyc_attr
from relay.mux.paced import Paced
from relay.mux.pausing import never_read_ahead
from relay.mux.sending import LARGE
from relay.mux.tcp import is_tls, keep_alive, keep_little_unsent, reset_on_close, unconfirmed, unread

# One buffer that every connection reads into: what was read is used before the next read. An idle one holds nothing.
_READ: Final = memoryview(bytearray(256 * 1024))
READ_LEAST: Final = LARGE  # so that a full room is always a large read, after which the room may grow
# Bytes of an answer that the kernel keeps beyond what it can send. It would keep megabytes for a visitor that does not
# read, and so much looks as if it had been taken: the stream's window would grow to match.
UNSENT_MOST: Final = 128 * 1024
# Bytes that the transport holds beyond that, by TLS too, where the event loop would take 512 KiB: a visitor who does
# not read cost 1.4 MiB then.
UNWRITTEN_MOST: Final = 64 * 1024
READ_WAITING: Final = 4 * 1024
_FIRST_ROOM: Final = _READ[:READ_LEAST]
# After an answer of our own, input is thrown away this many seconds, so that a reset does not destroy the answer.
LINGER: Final = 2.0
_TCP_CLOSED: Final = 7


@mypyc_attr(allow_interpreted_subclasses=True)
class Connection(Paced, asyncio.BufferedProtocol):
    """The plumbing of one connection. Reads until told to pause; nothing is read twice, nothing is kept."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.loop = asyncio.get_running_loop()
        self.patience = Patience()
        self.address = "unknown"
        self.trusted = False
        self.excess = 0
        """More than nothing: a connection too many came (see `Crowd.enter`)."""
        self.full = False
        """The transport holds more unsent bytes than it should: what arrives meanwhile is not consumed."""
        self.discarding = False
        """What is read is thrown away: the connection is on its way out."""
        self.closed = False
        self._room = _FIRST_ROOM
        self._unsent = -1
        self._full_since = 0.0
        self._stalled_at = NEVER
        self._half_closed = False
        self._network = ""

    # ---- for the class below

    @abstractmethod
    def on_bytes(self, data: bytes) -> None:
        """Bytes came in."""

    @abstractmethod
    def on_large(self, data: memoryview) -> bool:
        """Many bytes came in, valid only during the call. False: they are wanted by `on_bytes`."""

    @abstractmethod
    def on_half_close(self) -> bool:
        """The visitor sends no more. False: so it has left."""

    @abstractmethod
    def on_drained(self) -> None:
        """The transport has room again."""

    @abstractmethod
    def on_gone(self) -> None:
        """The connection has ended."""

    @abstractmethod
    def on_overdue(self, reason: str) -> None:
        """What was expected did not happen in time."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """See `Attended.busy`."""

    @abstractmethod
    def shutdown(self) -> None:
        """See `Attended.shutdown`."""

    @abstractmethod
    def part(self) -> None:
        """See `Attended.part`."""

    @abstractmethod
    def cut(self) -> None:
        """See `Attended.cut`."""

    @abstractmethod
    def hand_over(self) -> tuple[int, bytes] | None:
        """See `Attended.hand_over`."""

    def write(self, data: bytes) -> None:
        """Sends."""
        self._transport.write(data)

    def read_small(self) -> None:
        """A new request: reads are small again, and grow only while what they bring is taken as fast."""
        self._room = _FIRST_ROOM

    def read_little(self) -> None:
        """What comes has to wait: reads are of `READ_WAITING` bytes, until `read_small`."""
        self._room = _READ[:READ_WAITING]

    def half_close(self) -> None:
        """Sends FIN behind what is written; closes if the visitor did so before, or under TLS."""
        if not self._half_closed and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._close()

    def close_after_answer(self) -> None:
        """Sends what is written, then FIN; input is thrown away for a while, then the connection is cut."""
        self.discarding = True
        self._linger()
        self.half_close()
        self.resume()

    def close(self) -> None:
        """A clean end between two exchanges."""
        self._close()

    def _close(self) -> None:
        """Closes behind what is written."""
        self._linger()
        self._transport.close()

    def _linger(self) -> None:
        """From now on what is written may be taken as slowly as any answer, and then the connection ends."""
        self._unsent = -1
        self.patience.expect("linger", self.loop.time() + LINGER)

    def break_off(self, by_close: bool) -> None:
        """An answer has begun and will not be completed: the visitor must see that.

        Where the body would end with the connection (`by_close`), FIN would look like its end: it must be a reset, or
        under TLS an end without close_notify. Elsewhere the missing end is seen, and what was sent still arrives.
        """
        self.discarding = True
        if by_close:
            if not is_tls(self._transport):
                reset_on_close(self._transport)
            self._transport.abort()
        else:
            self._close()

    # ---- asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else "unknown"
        self.trusted = self.services.trusts(self.address)
        never_read_ahead(transport)
        keep_alive(transport)
        keep_little_unsent(transport, UNSENT_MOST)
        if is_tls(transport):
            self._transport.set_write_buffer_limits(UNWRITTEN_MOST)
        self.services.visitors.add(self)
        self._network = "" if self.trusted else network_of(self.address)
        self.excess = self.services.crowd.enter(self._network)
        self.patience.expect("silence", self.loop.time() + self.services.timeouts.head)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BufferedProtocol`."""
        self.closed = True
        self.services.crowd.leave(self._network)
        self.services.left(self)
        self.on_gone()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        if self.discarding:
            return
        room = self._room
        if nbytes < LARGE:
            self.on_bytes(bytes(room[:nbytes]))
            return
        if not self.on_large(room[:nbytes]):
            self.on_bytes(bytes(room[:nbytes]))
        if nbytes == len(room) and room is self._room and not self.paused:
            self._room = _READ[: nbytes * 2]
        self.rest_after(nbytes)

    def eof_received(self) -> bool:
        """See `asyncio.BufferedProtocol`."""
        self._half_closed = True
        stays = not self.discarding and self.on_half_close()
        if not stays or is_tls(self._transport):
            self._linger()  # the transport closes by itself; by TLS it always does
        return stays

    def pause_writing(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self.full = True
        self._unsent = -1
        self._full_since = self.loop.time()

    def resume_writing(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self.full = False
        # Whatever was expected stood still: a visitor that has an answer to read is not asked for anything else.
        self.patience.deadline += self.loop.time() - self._full_since
        self.on_drained()

    # ---- deadlines, asked by the sweeper

    def check(self, now: float) -> None:
        """Ends what has taken too long."""
        if self.paused and self._reset_by_peer():
            self._transport.abort()
        elif self.full:
            self._check_stall(now)
        elif self.patience.reason == "linger" and self._left():
            self._check_stall(now)
            self.patience.expect("linger", now + LINGER)  # counts from when all of the answer is on its way
        elif now >= self.patience.deadline:
            reason, self.patience.deadline = self.patience.reason, NEVER
            if reason == "linger":
                self._transport.abort()
            else:
                self.on_overdue(reason)

    def _check_stall(self, now: float) -> None:
        """A visitor that reads nothing of its answer for the idle time is cut."""
        left = self._left()
        if left != self._unsent:
            self._unsent = left
            self._stalled_at = now + self.services.timeouts.idle
        elif now >= self._stalled_at:
            self.break_off(by_close=True)

    def _left(self) -> int:
        """Bytes that an abort would destroy, of what was written.

        By TLS the transport does not count those that the one below it still has; while there are any, the kernel has
        some too, and tells how many.
        """
        left = self._transport.get_write_buffer_size()
        return left + unconfirmed(self._transport) if is_tls(self._transport) else left

    def give_away(self) -> int | None:
        """Ends the connection here only; it lives on by the descriptor. None: it cannot, and nothing changes."""
        sock = self._transport.get_extra_info("socket")
        if sock is None or self._transport.get_write_buffer_size() or self._transport.is_closing():
            return None
        if is_tls(self._transport):  # its keys do not live on
            return None
        descriptor = os.dup(sock.fileno())
        self._transport.abort()
        return descriptor

    def has_unread(self) -> bool:
        """Whether bytes wait in the kernel: they came before whatever happens now."""
        return unread(self._transport) > 0

    def _reset_by_peer(self) -> bool:
        """Whether the peer of a connection that we do not read has reset it (Linux tells; elsewhere: unknown).

        After a FIN each way it is closed as well, and what the peer said before its own may lie unread.
        """
        sock = self._transport.get_extra_info("socket")
        if sock is None or not hasattr(socket, "TCP_INFO"):
            return False
        try:
            closed = int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]) == _TCP_CLOSED
            return closed and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        except OSError:
            return True
