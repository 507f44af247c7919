"""Visitors that take their time, from a process and eight addresses of their own: what each kind was told, and when.

    head      a byte of its head now and then, for ever
    body      a byte of its body now and then
    halt      half its body, and no more
    unread    asks for more than fits anywhere and reads nothing of it
    silent    says nothing
    kept      one request, answered, and no more

The process prints `ready` when all have connected, and for every kind one event when the last of it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
import time
from typing import Literal, cast, get_args

from tests.support.child import Child, Event
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.system.noise import nice

Kind = Literal["head", "body", "halt", "unread", "silent", "kept"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ADDRESSES = 8
# They come so many at a time, with a pause of so many seconds in between.
AT_ONCE, PAUSE = 20, 0.05
TCP_CLOSED = 7
LOOK_EVERY = 0.1
RECEIVE_BUFFER = 16 * 1024
_SAID: dict[Kind, str] = {
    "head": "GET / HTTP/1.1\r\nHost: {host}\r\nX-Slow: ",
    "body": "POST /sink?hash=none HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n",
    "halt": "POST /sink?hash=none HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n" + "a" * 500,
    "unread": "GET /bytes/1000000000 HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "silent": "",
    "kept": "GET /count HTTP/1.1\r\nHost: {host}\r\n\r\n",
}


class SlowCrowd(Child):
    """`count` visitors, as many of each kind; those that drip send a byte each `every` seconds."""

    def __init__(self, port: int, host: str, count: int, every: float) -> None:
        argv = [sys.executable, "-m", "tests.system.slowcrowd", str(port), host, str(count), str(every)]
        super().__init__(argv, name="slow crowd")

    async def gathered(self) -> None:
        """All of them have come."""
        await self.wait_event("ready", 60.0)

    async def gone(self, kind: Kind, within: float) -> Event:
        """All of this kind are gone: `first` and `last` are the seconds from what they said last to their end, `told`
        the statuses that they were told; raises ChildError after `within` seconds.
        """
        return await self.wait_event(lambda event: event.get("kind") == kind, within)


# ---- in the process


class _Visitor(asyncio.Protocol):
    """Says what its kind says, and keeps when it was sent away."""

    def __init__(self, kind: Kind, host: str) -> None:
        self.kind = kind
        self.host = host
        self.since = time.monotonic()
        self.heard = b""
        self.gone: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.since = time.monotonic()
        self.transport.write(_SAID[self.kind].format(host=self.host).encode())

    def data_received(self, data: bytes) -> None:
        if self.kind == "kept" and not self.heard:
            self.since = time.monotonic()
        self.heard = (self.heard + data)[-4096:] if self.kind == "kept" else (self.heard + data)[:64]

    def eof_received(self) -> None:
        self._ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()

    def drip(self) -> None:
        """One more byte."""
        if not self.gone.done():
            self.transport.write(b"a")

    def look(self) -> None:
        """Whether a connection that is not read was reset."""
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_CLOSED:
                return
        self._ended()

    def told(self) -> str:
        """The status that it was told last, if any."""
        return self.heard[9:12].decode() if self.heard.startswith(b"HTTP/1.1 ") else ""

    def _ended(self) -> None:
        if not self.gone.done():
            self.gone.set_result(time.monotonic() - self.since)


async def _connect(visitor: _Visitor, number: int, port: int) -> None:
    sock = socket.socket()
    sock.setblocking(False)
    if visitor.kind == "unread":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.bind((f"127.0.0.{1 + number % ADDRESSES}", 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.create_connection(lambda: visitor, sock=sock)
    if visitor.kind == "unread":
        visitor.transport.pause_reading()


async def _tell(kind: Kind, visitors: list[_Visitor]) -> None:
    times = [await visitor.gone for visitor in visitors]
    told = sorted({visitor.told() for visitor in visitors})
    say(kind=kind, first=min(times), last=max(times), told=told, count=len(visitors))


async def _attend(visitors: list[_Visitor], every: float) -> None:
    """Each dripping one sends a byte each `every` seconds, spread over that time; and the unread ones are looked at."""
    parts = max(round(every / LOOK_EVERY), 1)
    for turn in itertools.count():
        for number, visitor in enumerate(visitors):
            if visitor.kind == "unread":
                visitor.look()
            elif visitor.kind in ("head", "body") and (number + turn) % parts == 0:
                visitor.drip()
        await asyncio.sleep(LOOK_EVERY)


async def _main(port: int, host: str, count: int, every: float) -> None:
    visitors = [_Visitor(KINDS[number % len(KINDS)], host) for number in range(count)]
    come: list[_Visitor] = []
    attending = asyncio.create_task(_attend(come, every))
    for start in range(0, count, AT_ONCE):
        group = range(start, min(start + AT_ONCE, count))
        await asyncio.gather(*(_connect(visitors[number], number, port) for number in group))
        come += visitors[start : start + AT_ONCE]
        await asyncio.sleep(PAUSE)
    say(event="ready")
    telling = [asyncio.create_task(_tell(kind, [one for one in visitors if one.kind == kind])) for kind in KINDS]
    await (await stdin_lines()).read()
    for task in (attending, *telling):
        task.cancel()


if __name__ == "__main__":
    nice(os.getpid())
    run_loop(_main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
