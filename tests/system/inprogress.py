"""Exchanges caught in the middle: each kind is begun through a tunnel, stays as it is, and shows how it ended.

`Holding` is the local service that keeps them there, `begin` the visitor. A kind is in progress once `begin` returns:
the local service has the request, and the visitor whatever the local service has said so far.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import Literal, get_args

from tests.support.child import eventually
from tests.support.messages import read_response
from tests.support.rawhttp import RawClient, RawServer, Request, Steps, chunk

Kind = Literal["head", "length", "chunked", "close", "events", "upload", "pipe"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNANSWERED: tuple[Kind, ...] = ("head", "upload")
"""Kinds whose local service has said nothing yet: the relay can still answer by itself."""

PIECE = b"x" * 1000
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
_BEGUN: dict[str, bytes] = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + PIECE,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(PIECE),
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + PIECE,
    "events": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(b"data: 1\n\n"),
    "pipe": SWITCH + b"welcome",
}
_ASKED: dict[str, str] = {
    "head": "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\nbody",
    "upload": "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n" + PIECE.decode(),
    "close": "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n",
    "pipe": "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}
_LAST = {"length": PIECE, "close": PIECE, "chunked": PIECE, "events": b"data: 1\n\n", "pipe": b"welcome"}
_numbers = itertools.count(1)


class Holding(RawServer):
    """`/KIND/N` begins that kind of answer and says no more until the other side has left; else it says ok."""

    def __init__(self) -> None:
        super().__init__(self._hold, early=True)

    async def _hold(self, request: Request) -> Steps:
        kind = request.target.decode().split("/")[1]
        if kind not in KINDS:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        if kind == "upload":
            await request.stream.exactly(len(PIECE))
        if kind in _BEGUN:
            await request.stream.send(_BEGUN[kind])
        await request.left.wait()
        request.stream.reset()
        return b""

    async def arrived(self, path: str, timeout: float = 5.0) -> Request:
        """The request for this path, once it is there."""

        def found() -> list[Request]:
            return [request for request in self.requests if request.target == path.encode()]

        await eventually(lambda: bool(found()), timeout)
        return found()[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a visitor saw: a status of the relay's own answer (0: none) with its code, whether it ended well, when."""

    status: int
    code: bytes | None
    clean: bool
    """The answer was complete by its framing, or its end could be taken for it."""
    at: float


@dataclass(slots=True)
class InProgress:
    """One exchange in the middle."""

    kind: Kind
    client: RawClient
    request: Request
    """As the local service has it."""

    async def outcome(self, timeout: float) -> Outcome:
        """Read to the end; raises TimeoutError after so many seconds."""
        stream = self.client.stream
        async with asyncio.timeout(timeout):
            if self.kind in UNANSWERED:
                response = await read_response(stream, b"POST")
                code = response.head.get("Relay-Error") if response.head else None
                return Outcome(response.status, code, response.ended == "clean", time.monotonic())
            rest, how = await stream.rest()
        ended = b"0\r\n\r\n" in rest if self.kind in ("chunked", "events") else how == "eof" and self.kind != "length"
        return Outcome(0, None, ended, stream.ended_at)


class Begun:
    """Begins exchanges at a public port, and closes what is left of them."""

    def __init__(self, local: Holding, port: int) -> None:
        self.local = local
        self.port = port
        self._clients: list[RawClient] = []

    async def begin(self, kind: Kind, host: str) -> InProgress:
        """One exchange of this kind, in progress."""
        path = f"/{kind}/{next(_numbers)}"
        client = await RawClient.connect(self.port)
        self._clients.append(client)
        asked = _ASKED.get(kind, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
        client.send(asked.format(path=path, host=host).encode())
        request = await self.local.arrived(path)
        if kind in _LAST:
            assert (await client.head()).status in (101, 200)
            await client.until(_LAST[kind] + (b"\r\n" if kind in ("chunked", "events") else b""))
        return InProgress(kind, client, request)

    async def begin_all(self, host: str) -> list[InProgress]:
        """One of each kind, begun at the same time."""
        return list(await asyncio.gather(*(self.begin(kind, host) for kind in KINDS)))

    def close(self) -> None:
        """Close every visitor."""
        while self._clients:
            self._clients.pop().close()
