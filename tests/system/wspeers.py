"""WebSocket peers of two libraries behind one face: `dial` is a visitor, `local_service` what an agent forwards to.

Both libraries are used as their users do. The local services echo every message as it came, do what a few words ask
for ("ping", "fragments", "close"), choose the first offered subprotocol that they know, and remember how each
connection was closed. This room knows no tunnel.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import aiohttp
import websockets.asyncio.client
import websockets.asyncio.server
from aiohttp import web
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

Library = Literal["websockets", "aiohttp"]
Message = str | bytes
Closed = tuple[int, str]

KNOWN_SUBPROTOCOLS = ("mcp", "chat.v2")
MAX_MESSAGE = 32 * 2**20
FRAGMENTS = (b"", b"a", b"b" * 125, b"c" * 65_536, b"", b"d" * 200_000)
CLOSE: Closed = (4321, "as you wish ✓")
DEADLINE = 20.0


@dataclass(slots=True)
class LocalWebSocket:
    """A local service: its port, and the close code and reason of each connection that its visitor closed."""

    port: int = 0
    closed: list[Closed] = field(default_factory=list)


class Visitor(Protocol):
    """A WebSocket connection, from the visitor's side. Each wait is bounded by `DEADLINE`."""

    subprotocol: str | None
    extensions: str
    """`Sec-WebSocket-Extensions` of the answer."""

    async def send(self, message: Message) -> None:
        """Send a message in one frame."""

    async def send_fragments(self, fragments: Sequence[bytes]) -> None:
        """Send one message in so many frames (`websockets` only)."""

    async def receive(self) -> Message:
        """The next message."""

    async def ping(self, payload: bytes) -> None:
        """Ping, and wait for the pong with the same payload."""

    async def close(self, code: int, reason: str) -> None:
        """Close, and wait for the other side's close."""

    async def closed(self) -> Closed:
        """How the other side closed; what still came before it is an error."""


# ---- visitors --------------------------------------------------------------------------------------------------------


class _WebsocketsVisitor:
    def __init__(self, connection: websockets.asyncio.client.ClientConnection) -> None:
        self.connection = connection
        self.subprotocol: str | None = connection.subprotocol
        assert connection.response is not None
        self.extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "")

    async def send(self, message: Message) -> None:
        await asyncio.wait_for(self.connection.send(message), DEADLINE)

    async def send_fragments(self, fragments: Sequence[bytes]) -> None:
        await asyncio.wait_for(self.connection.send(list(fragments)), DEADLINE)

    async def receive(self) -> Message:
        return await asyncio.wait_for(self.connection.recv(), DEADLINE)

    async def ping(self, payload: bytes) -> None:
        await asyncio.wait_for(await self.connection.ping(payload), DEADLINE)

    async def close(self, code: int, reason: str) -> None:
        await asyncio.wait_for(self.connection.close(code, reason), DEADLINE)

    async def closed(self) -> Closed:
        try:
            message = await self.receive()
        except ConnectionClosed as end:
            return (end.rcvd.code, end.rcvd.reason) if end.rcvd else (1006, "")
        raise AssertionError(f"a message instead of a close: {message[:100]!r}")


class _AiohttpVisitor:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, extensions: str) -> None:
        self.socket = socket
        self.subprotocol: str | None = socket.protocol
        self.extensions = extensions

    async def send(self, message: Message) -> None:
        sending = self.socket.send_str(message) if isinstance(message, str) else self.socket.send_bytes(message)
        await asyncio.wait_for(sending, DEADLINE)

    async def send_fragments(self, fragments: Sequence[bytes]) -> None:
        raise NotImplementedError("aiohttp sends whole messages only")

    async def receive(self) -> Message:
        while True:
            got = await self.socket.receive(DEADLINE)
            if got.type is aiohttp.WSMsgType.PING:
                await self.socket.pong(got.data)
            elif got.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                data: Message = got.data
                return data
            else:
                raise AssertionError(f"no message but {got}")

    async def ping(self, payload: bytes) -> None:
        await self.socket.ping(payload)
        got = await self.socket.receive(DEADLINE)
        assert (got.type, bytes(got.data)) == (aiohttp.WSMsgType.PONG, payload)

    async def close(self, code: int, reason: str) -> None:
        await asyncio.wait_for(self.socket.close(code=code, message=reason.encode()), DEADLINE)

    async def closed(self) -> Closed:
        got = await self.socket.receive(DEADLINE)
        if got.type is aiohttp.WSMsgType.CLOSE:
            return int(got.data), str(got.extra or "")
        assert got.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR), got
        return 1006, ""


@contextlib.asynccontextmanager
async def dial(
    library: Library,
    port: int,
    host: str,
    subprotocols: Sequence[str] = (),
    *,
    deflate: bool = False,
    path: str = "/ws",
) -> AsyncIterator[Visitor]:
    """Connect to 127.0.0.1:`port` with `Host: host:port` and upgrade. The library's own errors are raised."""
    if library == "websockets":
        connecting = websockets.asyncio.client.connect(
            f"ws://{host}:{port}{path}",
            host="127.0.0.1",
            port=port,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            compression="deflate" if deflate else None,
            max_size=MAX_MESSAGE,
            close_timeout=2,
            ping_interval=None,
            proxy=None,
        )
        async with connecting as connection:
            yield _WebsocketsVisitor(connection)
        return
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"http://127.0.0.1:{port}{path}",
            headers={"Host": f"{host}:{port}"},
            protocols=tuple(subprotocols),
            compress=15 if deflate else 0,
            max_msg_size=MAX_MESSAGE,
            autoping=False,
            autoclose=True,
            timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
        ) as socket,
    ):
        yield _AiohttpVisitor(socket, socket._response.headers.get("Sec-WebSocket-Extensions", ""))


# ---- local services --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def local_service(library: Library) -> AsyncIterator[LocalWebSocket]:
    """A WebSocket server of this library on a free port of 127.0.0.1, taking part in permessage-deflate."""
    serving = _websockets_service if library == "websockets" else _aiohttp_service
    async with serving() as local:
        yield local


@contextlib.asynccontextmanager
async def _websockets_service() -> AsyncIterator[LocalWebSocket]:
    local = LocalWebSocket()

    async def serve(connection: websockets.asyncio.server.ServerConnection) -> None:
        try:
            async for message in connection:
                if message == "ping":
                    await asyncio.wait_for(await connection.ping(b"from the local service"), DEADLINE)
                    await connection.send("ponged")
                elif message == "fragments":
                    await connection.send(list(FRAGMENTS))
                elif message == "close":
                    await connection.close(*CLOSE)
                    return
                else:
                    await connection.send(message)
        except ConnectionClosed:
            pass
        await connection.wait_closed()
        local.closed.append((connection.close_code or 0, connection.close_reason or ""))

    def choose(_: Any, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((name for name in offered if name in KNOWN_SUBPROTOCOLS), None)

    server = await websockets.asyncio.server.serve(
        serve,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(name) for name in KNOWN_SUBPROTOCOLS],
        select_subprotocol=choose,
        max_size=MAX_MESSAGE,
        ping_interval=None,
        close_timeout=1,
    )
    async with server:
        local.port = next(iter(server.sockets)).getsockname()[1]
        yield local


@contextlib.asynccontextmanager
async def _aiohttp_service() -> AsyncIterator[LocalWebSocket]:
    local = LocalWebSocket()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            protocols=KNOWN_SUBPROTOCOLS, max_msg_size=MAX_MESSAGE, timeout=1.0, autoping=False
        )
        await socket.prepare(request)
        ended: Closed | None = None
        while ended is None:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                await socket.send_str("ponged")
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.type is aiohttp.WSMsgType.CLOSE:
                ended = (int(message.data), str(message.extra or ""))
            elif message.type is not aiohttp.WSMsgType.TEXT:
                ended = (1006, "")
            elif message.data == "ping":
                await socket.ping(b"from the local service")
            elif message.data == "close":
                await socket.close(code=CLOSE[0], message=CLOSE[1].encode())
                return socket
            else:
                await socket.send_str(message.data)
        local.closed.append(ended)
        return socket

    app = web.Application()
    app.router.add_get("/ws", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        local.port = runner.addresses[0][1]
        yield local
    finally:
        await runner.cleanup()
