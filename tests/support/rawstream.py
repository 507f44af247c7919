"""One TCP connection as bytes: read until, read exactly, write, half-close, reset, and how it ended and when.

This room knows no HTTP. It keeps apart what asyncio's streams blur: an end of the peer's bytes (`eof`), a reset
(`reset`), and an end of our own making (`closed`). One task reads at a time; flow control is real: beyond `limit`
unread bytes the socket is not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, cast

End = Literal["eof", "reset", "closed"]

LIMIT = 4 * 2**20
HIGH_WATER = 1 * 2**20
TAPE_LIMIT = 4 * 2**20
LINGER_ZERO = struct.pack("ii", 1, 0)


class EndOfBytes(Exception):
    """The connection ended (`how`) before what was asked for; `partial` is what had come."""

    def __init__(self, how: End, partial: bytes) -> None:
        super().__init__(f"{how} after {len(partial)} bytes: {partial[:200]!r}")
        self.how = how
        self.partial = partial


class RawStream(asyncio.Protocol):
    """A connection; `tape` keeps what was taken from it since `start_tape`, exactly as it came (at most 4 MiB)."""

    def __init__(self, on_connected: Callable[[RawStream], None] | None = None, limit: int = LIMIT) -> None:
        self.ended: End | None = None
        self.ended_at = 0.0
        self.lost_reason: str | None = None
        self.left = asyncio.Event()
        self.tape = bytearray()
        self.received = 0
        self._on_connected = on_connected
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._unread = 0
        self._reading = True
        self._news: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """The transport; only once connected."""
        assert self._transport is not None
        return self._transport

    # ---- asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._writable.set()
        if self._on_connected is not None:
            self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._unread += len(data)
        self.received += len(data)
        if self._reading and self._unread > self._limit:
            self._reading = False
            self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._end("eof", "eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        how: End = "closed" if exc is None else "reset"
        self._end(how, "closed by us" if exc is None else f"{type(exc).__name__}: {exc}")
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self, how: End, reason: str) -> None:
        # A reset after the end of bytes is news; our own close after it is not.
        if self.ended is None or (self.ended == "eof" and how == "reset"):
            self.ended, self.ended_at, self.lost_reason = how, time.monotonic(), reason
        self.left.set()
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # ---- reading -------------------------------------------------------------------------------------------------

    async def some(self, limit: int = LIMIT) -> bytes:
        """What is there, 1 to `limit` bytes, waiting for the first; b"" at a clean end.

        Raises EndOfBytes for any other end.
        """
        while not self._pieces:
            if self.ended == "eof":
                return b""
            if self.ended is not None:
                raise EndOfBytes(self.ended, b"")
            await self._more()
        piece = self._pieces.popleft()
        if len(piece) > limit:
            self._pieces.appendleft(piece[limit:])
            piece = piece[:limit]
        self._took(piece)
        return piece

    async def exactly(self, count: int) -> bytes:
        """`count` bytes; raises EndOfBytes."""
        while self._unread < count:
            await self._more_or_end()
        return self._take(count)

    async def until(self, mark: bytes, limit: int = 2**20) -> bytes:
        """Bytes up to and with `mark`; raises EndOfBytes, or ValueError when `limit` bytes hold none."""
        searched = 0
        while True:
            self._join()
            whole = self._pieces[0] if self._pieces else b""
            found = whole.find(mark, max(0, searched - len(mark) + 1))
            if found >= 0:
                return self._take(found + len(mark))
            searched = len(whole)
            if searched > limit:
                raise ValueError(f"no {mark!r} within {limit} bytes: {whole[:200]!r}")
            await self._more_or_end()

    async def rest(self) -> tuple[bytes, End]:
        """Everything until the end, and how it ended."""
        got: list[bytes] = []
        try:
            while piece := await self.some():
                got.append(piece)
        except EndOfBytes as end:
            return b"".join(got), end.how
        return b"".join(got), "eof"

    def unread(self) -> bytes:
        """What has come and was not taken yet."""
        self._join()
        return self._pieces[0] if self._pieces else b""

    def start_tape(self) -> None:
        """Forget the tape."""
        self.tape = bytearray()

    def _join(self) -> None:
        if len(self._pieces) > 1:
            whole = b"".join(self._pieces)
            self._pieces.clear()
            self._pieces.append(whole)

    def _take(self, count: int) -> bytes:
        if count == 0:
            return b""
        self._join()
        whole = self._pieces.popleft()
        if len(whole) > count:
            self._pieces.append(whole[count:])
            whole = whole[:count]
        self._took(whole)
        return whole

    def _took(self, piece: bytes) -> None:
        self._unread -= len(piece)
        if len(self.tape) < TAPE_LIMIT:
            self.tape += piece[: TAPE_LIMIT - len(self.tape)]
        if not self._reading and self._unread <= self._limit // 2 and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    async def _more_or_end(self) -> None:
        if self.ended is not None:
            partial = self.unread()
            raise EndOfBytes(self.ended, partial)
        await self._more()

    async def _more(self) -> None:
        assert self._news is None, "one task reads at a time"
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None

    # ---- writing and ending --------------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        """Hand bytes to the transport; nothing happens once the connection ended."""
        if not self.transport.is_closing():
            self.transport.write(data)

    async def send(self, data: bytes | memoryview) -> None:
        """Write and wait until the transport takes more; raises EndOfBytes when the peer is gone."""
        if self.transport.is_closing():
            raise EndOfBytes(self.ended or "closed", b"")
        self.transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    def fin(self) -> None:
        """End our bytes; the peer's may still come."""
        if not self.transport.is_closing():
            self.transport.write_eof()

    def reset(self) -> None:
        """Close with a TCP reset, dropping what was not sent."""
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            self.transport.abort()

    def close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()

    def pause(self) -> None:
        """Stop reading the socket until the next read asks for bytes that are not there: a slow reader."""
        self._reading = False
        self.transport.pause_reading()

    async def left_within(self, seconds: float) -> bool:
        """Whether the peer left within this time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.left.wait(), seconds)
        return self.left.is_set()
