"""An agent made by hand: one link that does what a test tells it to, spoken over the agents' listener.

It says hello, answers pings or leaves them unanswered, and answers every request at once with its own name, or never.
The bytes come from the wire's codec; everything else is `websockets` and this page.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from relay.exchange.heads import ResponseHead, decode_request, encode_response
from relay.wire import frames
from relay.wire.hello import (
    SUBPROTOCOL,
    Hello,
    Refused,
    Welcome,
    decode_refused,
    decode_welcome,
    encode_hello,
)
from tests.support.framing import decode

DEADLINE = 5.0


class HandAgent:
    """One link; `answer` is what the relay said to its hello, `away` the codes of GOING_AWAY that came later.

        async with HandAgent(port, Hello("instance", 0, 1, key, ("name",)), label="first") as agent: ...

    With `answers_pings` False it is as good as dead, while its connection stays open.
    """

    def __init__(self, port: int, hello: Hello, *, label: str = "", answers_pings: bool = True) -> None:
        self.answer: Welcome | Refused
        self.label = label
        self.answers_pings = answers_pings
        self.away: list[int] = []
        self.opened: list[bytes] = []
        """Targets of the requests that came."""
        self.ended = asyncio.Event()
        self._connecting: dict[str, Any] = {}
        self._port = port
        self._hello = hello
        self._connection: ClientConnection
        self._reading: asyncio.Task[None] | None = None

    def at(self, source: str) -> Self:
        """The same, from that address of this machine."""
        self._connecting["local_addr"] = (source, 0)
        return self

    def named(self, address: str) -> Self:
        """The same, through a proxy that says it comes from there; the relay has to trust 127.0.0.1 for that."""
        self._connecting["additional_headers"] = {"X-Forwarded-For": address}
        return self

    async def __aenter__(self) -> Self:
        self._connection = await connect(
            f"ws://127.0.0.1:{self._port}/agent/v1",
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            ping_interval=None,
            close_timeout=1,
            proxy=None,
            **self._connecting,
        )
        await self._send(frames.HELLO, 0, encode_hello(self._hello))
        answered: asyncio.Future[Welcome | Refused] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(answered))
        try:
            self.answer = await asyncio.wait_for(answered, DEADLINE)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._connection.close()

    async def _send(self, kind: int, stream: int, payload: bytes = b"") -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(frames.encode(kind, stream, payload))

    async def _read(self, answered: asyncio.Future[Welcome | Refused]) -> None:
        try:
            async for message in self._connection:
                assert isinstance(message, bytes)
                for kind, stream, payload in decode(memoryview(message)):
                    if kind == frames.WELCOME and not answered.done():
                        answered.set_result(decode_welcome(bytes(payload)))
                    elif kind == frames.REFUSED and not answered.done():
                        answered.set_result(decode_refused(bytes(payload)))
                    else:
                        await self._take(kind, stream, bytes(payload))
        finally:
            self.ended.set()
            if not answered.done():
                answered.set_exception(ConnectionError("the link ended without an answer to its hello"))

    async def _take(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == frames.PING:
            if self.answers_pings:
                await self._send(frames.PONG, 0, payload)
        elif kind == frames.GOING_AWAY:
            self.away.append(frames.decode_going_away(memoryview(payload))[0])
        elif kind == frames.OPEN_END:
            target = decode_request(payload).target
            self.opened.append(target)
            if target != b"/never":
                body = self.label.encode()
                head = ResponseHead(200, b"OK", [(b"Content-Length", b"%d" % len(body))])
                await self._send(frames.HEAD, stream, encode_response(head))
                await self._send(frames.DATA_END, stream, body)
