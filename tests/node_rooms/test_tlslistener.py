"""Connections that come by TLS: counted and timed before they have agreed on it, let in when the door is shut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from relay.node import tlslistener
from relay.node.certificates import Certificates
from relay.node.sockets import bind
from relay.node.tlslistener import ENDED_WITHIN, Arriving, TlsListener
from relay.settings import Address, ServeSettings
from relay.tunnels.crowds import Crowd
from tests.agent.localside import on_every_loop, within
from tests.support.authority import Authority

HOST = "tunnels.example.com"


class Echo(asyncio.Protocol):
    """Says back what it hears, and ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()


class Listening:
    """A listener by a certificate, with room for some who still agree on TLS."""

    def __init__(self, folder: Path, room: int) -> None:
        self.authority = Authority(folder)
        files = self.authority.issue(HOST, f"*.{HOST}")
        settings = ServeSettings(domain=HOST, data=folder, tls_cert=files.cert, tls_key=files.key)
        self.certificates = Certificates(settings, lambda event: None)
        self.certificates.load()
        sock = bind(Address("127.0.0.1", 0), "public")
        self.port = sock.getsockname()[1]
        arriving = Arriving(Crowd(100, room), lambda address: False)
        self.listener = TlsListener(sock, None, _echo, self.certificates, arriving, ended_within=ENDED_WITHIN)

    async def hears(self, data: bytes = b"hello") -> bytes:
        """What a visitor is told."""
        return await self.goes_on(await self.comes(), data)

    async def comes(self) -> socket.socket:
        """Somebody who has connected and said nothing yet."""
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return sock

    async def goes_on(self, sock: socket.socket, data: bytes = b"hello") -> bytes:
        """Agrees on TLS, and says something."""
        trusting = self.authority.trusting()
        reader, writer = await asyncio.open_connection(sock=sock, ssl=trusting, server_hostname=HOST)
        writer.write(data)
        heard: bytes = await within(reader.read())
        writer.close()
        return heard


def _echo(config: Any, server_state: Any, app_state: Any) -> asyncio.BaseProtocol:
    return Echo()


@asynccontextmanager
async def listening(folder: Path, room: int = 100) -> AsyncIterator[Listening]:
    one = Listening(folder, room)
    await one.listener.listen()
    try:
        yield one
    finally:
        await one.listener.aclose()


async def ended(sock: socket.socket) -> bool:
    """Whether the other side ends a connection, within the time for a test."""
    heard: bytes = await within(asyncio.get_running_loop().sock_recv(sock, 1))
    sock.close()
    return heard == b""


@on_every_loop
async def test_whoever_does_not_agree_in_time_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, as well as what is no TLS."""
    monkeypatch.setattr(tlslistener, "AGREED_WITHIN", 0.1)
    loop = asyncio.get_running_loop()
    async with listening(tmp_path) as one:
        assert await ended(await one.comes())
        loud = await one.comes()
        await loop.sock_sendall(loud, b"GET / HTTP/1.1\r\n\r\n")
        assert await ended(loud)
        assert await one.hears() == b"hello"


@on_every_loop
async def test_those_who_arrive_are_bounded(tmp_path: Path) -> None:
    """One too many from an address is turned away; as soon as one has agreed there is room again."""
    async with listening(tmp_path, room=2) as one:
        waiting = [await one.comes() for _ in range(2)]
        assert await ended(await one.comes())
        assert await one.goes_on(waiting[0]) == b"hello"
        assert await one.hears() == b"hello"
        waiting[1].close()


@on_every_loop
async def test_who_has_come_is_let_in_when_nobody_more_is(tmp_path: Path) -> None:
    """In the middle of agreeing on TLS, or still in the kernel's queue of a listener that paused."""
    async with listening(tmp_path) as one:
        early = await one.comes()
        one.listener.pause()
        queued = await one.comes()
        stopping = asyncio.ensure_future(one.listener.stop_accepting())
        heard = await asyncio.gather(one.goes_on(early), one.goes_on(queued), stopping, one.listener.arrived())
        assert heard[0] == heard[1] == b"hello"
        with pytest.raises(ConnectionRefusedError):
            await one.comes()


@on_every_loop
async def test_a_listener_that_paused_goes_on(tmp_path: Path) -> None:
    """With whoever came meanwhile, by the certificate that counts then."""
    async with listening(tmp_path) as one:
        one.listener.pause()
        early = await one.comes()
        await one.listener.resume()
        assert await one.goes_on(early) == b"hello"
