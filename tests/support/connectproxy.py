"""Small proxies that make tunnels, on a free port of 127.0.0.1, and say no as told: CONNECT (RFC 9110 §9.3.6), SOCKS 5.

    async with ConnectProxy({"relay.example:443": port}) as proxy: ... proxy.url

It reaches hosts by `routes` only, so that a test needs no name service; what is not there is a 502.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Mapping
from typing import Self

Answer = bytes


def refusal(status: int, words: str = "No", fields: str = "") -> Answer:
    """A proxy's no."""
    return f"HTTP/1.1 {status} {words}\r\n{fields}Content-Length: 2\r\n\r\nno".encode()


class ConnectProxy:
    """`asked` are the hosts with ports that it was asked for; `answer` overrules what it would say, b"" is silence."""

    def __init__(self, routes: Mapping[str, int], *, user: str = "", password: str = "") -> None:
        self.port = 0
        self.routes = dict(routes)
        self.answer: Answer | None = None
        self.asked: list[str] = []
        self.host = "127.0.0.1"
        """To listen on."""
        self.context: ssl.SSLContext | None = None
        """For TLS towards whoever connects."""
        self._wanted = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """As `HTTPS_PROXY` has it, without credentials."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, self.host, self.port, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            port = await self._asked_for(reader, writer)
            if port:
                await self._join(reader, writer, port)
            elif self.answer == b"":
                await reader.read()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    async def _asked_for(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """The port to join with; 0 when the answer was given."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        assert method == "CONNECT"
        self.asked.append(target)
        answer = self.answer
        if answer is None and self._wanted and f"Proxy-Authorization: Basic {self._wanted}\r\n" not in head:
            answer = refusal(407, "Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="x"\r\n')
        if answer is None and target not in self.routes:
            answer = refusal(502, "Bad Gateway")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n" if answer is None else answer)
        return self.routes[target] if answer is None else 0

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        ways = [
            asyncio.ensure_future(_pump(reader, far_writer)),
            asyncio.ensure_future(_pump(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            far_writer.close()  # first: the wait behind it may be cancelled
            await asyncio.gather(*ways, return_exceptions=True)


class SocksProxy(ConnectProxy):
    """The same by SOCKS 5 (RFC 1928), for names only."""

    async def _asked_for(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(b"\x05\x00")
        assert await reader.readexactly(4) == b"\x05\x01\x00\x03"
        host = await reader.readexactly((await reader.readexactly(1))[0])
        target = f"{host.decode()}:{int.from_bytes(await reader.readexactly(2), 'big')}"
        self.asked.append(target)
        port = self.routes.get(target, 0)
        writer.write(b"\x05" + (b"\x00" if port else b"\x04") + b"\x00\x01" + bytes(6))
        return port


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
