"""WebSocket echoes of two libraries, for tests that put real peers behind a tunnel: each yields its port.

`websockets_echo` and `aiohttp_echo` send back every message as it came (text as text, bytes as bytes), choose the
first of `subprotocols` that the visitor offers, and close with 4321 "as you wish" when told "close".
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import aiohttp
import websockets.asyncio.server
from aiohttp import web
from websockets.typing import Subprotocol

MAX_MESSAGE = 32 * 2**20
CLOSE_CODE, CLOSE_REASON = 4321, "as you wish"


@contextlib.asynccontextmanager
async def websockets_echo(subprotocols: Sequence[str] = (), *, deflate: bool = True) -> AsyncIterator[int]:
    """An echo by `websockets`; with `deflate` it takes part in permessage-deflate."""

    async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            if message == "close":
                await connection.close(CLOSE_CODE, CLOSE_REASON)
                return
            await connection.send(message)

    def choose(
        connection: websockets.asyncio.server.ServerConnection, offered: Sequence[Subprotocol]
    ) -> Subprotocol | None:
        return next((name for name in offered if name in subprotocols), None)

    server = await websockets.asyncio.server.serve(
        echo,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        select_subprotocol=choose,
        compression="deflate" if deflate else None,
        max_size=MAX_MESSAGE,
        close_timeout=1,
    )
    async with server:
        yield next(iter(server.sockets)).getsockname()[1]


@contextlib.asynccontextmanager
async def aiohttp_echo(subprotocols: Sequence[str] = (), *, deflate: bool = True) -> AsyncIterator[int]:
    """An echo by `aiohttp`, on any path."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(
            protocols=tuple(subprotocols), compress=deflate, max_msg_size=MAX_MESSAGE, timeout=1.0
        )
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data == "close":
                await socket.close(code=CLOSE_CODE, message=CLOSE_REASON.encode())
            else:
                await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
