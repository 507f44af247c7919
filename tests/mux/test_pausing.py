"""What is read by TLS while somebody has paused it, with the peer's end right behind: real sockets, on every loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.mux.paced import Paced
from relay.mux.pausing import never_read_ahead
from tests.agent.localside import on_every_loop, within
from tests.support.tlsfront import certificate, end_at_once

FIRST = b"first"


class Counting(Paced):
    """Pauses when the first bytes came, and counts all."""

    def __init__(self) -> None:
        self.size = 0
        self.begun = threading.Event()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        never_read_ahead(transport)

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        if not self.begun.is_set():
            self.pause()
            self.begun.set()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


class Stream(Counting, asyncio.Protocol):
    """Is given what was read."""


class Room(Counting, asyncio.BufferedProtocol):
    """Has it read into its own buffer, which is smaller than what comes."""

    def __init__(self) -> None:
        super().__init__()
        self._room = memoryview(bytearray(10_000))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._room[:nbytes]))


Kind = Callable[[], Stream | Room]


@asynccontextmanager
async def connected(folder: Path, kind: Kind) -> AsyncIterator[tuple[Counting, ssl.SSLSocket]]:
    """A reader on the loop, and the blocking socket of its peer."""
    file = certificate(folder, "localhost")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    serving.num_tickets = 0
    trusting = ssl.create_default_context(cafile=str(file))
    made: list[Counting] = []

    def make() -> Stream | Room:
        reader = kind()
        made.append(reader)
        return reader

    async with await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, ssl=serving) as server:
        wire = socket.create_connection(server.sockets[0].getsockname())
        wire.settimeout(10)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
        with await asyncio.to_thread(trusting.wrap_socket, wire, server_hostname="localhost") as sealed:
            yield made[0], sealed


def end_right_behind(wire: ssl.SSLSocket, begun: threading.Event, later: int) -> None:
    """Sends the rest once the other side has paused, and ends."""
    wire.sendall(FIRST)
    assert begun.wait(10)
    wire.sendall(bytes(later))
    end_at_once(wire)


@pytest.mark.parametrize("later", [100, 100_000, 700_000])
@pytest.mark.parametrize("kind", [Stream, Room])
@on_every_loop
async def test_nothing_is_lost(tmp_path: Path, kind: Kind, later: int) -> None:
    """The peer's end is there before the reader goes on: all that came before it is read."""
    async with connected(tmp_path, kind) as (reader, wire):
        await within(asyncio.to_thread(end_right_behind, wire, reader.begun, later))
        assert reader.size == len(FIRST)
        reader.resume()
        await within(reader.lost)
        assert reader.size == len(FIRST) + later


def take_and_close(wire: ssl.SSLSocket) -> bytes:
    """Asks, reads the answer to its end, and closes."""
    wire.sendall(FIRST)
    taken = b""
    while more := wire.recv(65536):
        taken += more
    wire.close()
    return taken


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("kind", [Stream, Room])
@on_every_loop
async def test_what_was_paused_closes_at_once(tmp_path: Path, kind: Kind, resumed: bool) -> None:
    """The peer's half of the closing is read, whatever was paused before."""
    async with connected(tmp_path, kind) as (reader, wire):
        taken = asyncio.ensure_future(asyncio.to_thread(take_and_close, wire))
        await within(asyncio.to_thread(reader.begun.wait, 10))
        reader.write(b"answer")
        if resumed:
            reader.resume()
        reader.close()
        assert await within(taken) == b"answer"
        await within(reader.lost)
