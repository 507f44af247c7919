"""What is read by TLS while somebody has paused it, with the peer's end right behind: real sockets, on every loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.mux.paced import Paced
from tests.agent.localside import on_every_loop, within
from tests.support.tlsfront import certificate

FIRST = b"first"


class Counting(Paced):
    """Pauses when the first bytes came, and counts all."""

    def __init__(self) -> None:
        self.size = 0
        self.begun = threading.Event()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        if not self.begun.is_set():
            self.pause()
            self.begun.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


class Stream(Counting, asyncio.Protocol):
    """Is given what was read."""


class Room(Counting, asyncio.BufferedProtocol):
    """Has it read into its own buffer."""

    def __init__(self) -> None:
        super().__init__()
        self._room = memoryview(b"")

    def get_buffer(self, sizehint: int) -> memoryview:
        self._room = memoryview(bytearray(sizehint + 20_000))
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._room[:nbytes]))


def end_right_behind(wire: ssl.SSLSocket, begun: threading.Event, later: int) -> None:
    """Sends the rest once the other side has paused, and closes, waiting for nobody (as nginx does)."""
    with wire:
        wire.sendall(FIRST)
        assert begun.wait(10)
        wire.sendall(bytes(later))
        wire.settimeout(0)
        with contextlib.suppress(OSError):
            wire.unwrap()


@pytest.mark.parametrize("later", [100, 100_000, 700_000])
@pytest.mark.parametrize("kind", [Stream, Room])
@on_every_loop
async def test_nothing_is_lost(tmp_path: Path, kind: Callable[[], Stream | Room], later: int) -> None:
    """All of what came before the end is read when the reader goes on."""
    file = certificate(tmp_path, "localhost")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    serving.num_tickets = 0
    trusting = ssl.create_default_context(cafile=str(file))
    loop = asyncio.get_running_loop()
    made: list[Stream | Room] = []

    def make() -> Stream | Room:
        made.append(kind())
        return made[-1]

    async with await loop.create_server(make, "127.0.0.1", 0, ssl=serving) as server:
        wire = socket.create_connection(server.sockets[0].getsockname())
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        sealed = await asyncio.to_thread(trusting.wrap_socket, wire, server_hostname="localhost")
        (reader,) = made
        # The client's end is behind its bytes before the reader goes on.
        await within(asyncio.to_thread(end_right_behind, sealed, reader.begun, later))
        assert reader.size == len(FIRST)
        reader.resume()
        await within(reader.lost)
        assert reader.size == len(FIRST) + later
