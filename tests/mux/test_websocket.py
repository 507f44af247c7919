"""The WebSocket carrier over real connections: picows at both ends on loopback, and a raw peer that says anything."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import picows
import pytest

from relay.mux.carrier import ROOM
from relay.mux.carriers import websocket
from relay.mux.carriers.websocket import WebSocketCarrier
from relay.wire.frames import MAX_MESSAGE
from tests.agent.localside import on_every_loop, within

BINARY, TEXT, CONTINUATION, CLOSE, PING, PONG = 0x2, 0x1, 0x0, 0x8, 0x9, 0xA
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Log:
    """`CarrierEvents` that remembers."""

    def __init__(self) -> None:
        self.carrier: WebSocketCarrier | None = None
        self.messages: list[bytes] = []
        self.size = 0
        self.noise = 0
        self.writable = 0
        self.lost: list[str] = []
        self._news = asyncio.Event()

    def on_message(self, message: memoryview) -> None:
        assert not self.lost
        self.messages.append(bytes(message))
        self.size += len(message)
        self._news.set()

    def on_noise(self) -> None:
        self.noise += 1
        self._news.set()

    def on_writable(self) -> None:
        self.writable += 1
        self._news.set()

    def on_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self._news.set()

    def attach(self, carrier: WebSocketCarrier) -> Log:
        """What a carrier asks for when its handshake is done."""
        self.carrier = carrier
        self._news.set()
        return self

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until something is so; looked at after every event."""

        async def wait() -> None:
            while not holds():
                self._news.clear()
                await self._news.wait()

        await within(wait())


def message(data: bytes) -> bytearray:
    """A message as the mux hands it over: behind its room."""
    return bytearray(ROOM) + data


@asynccontextmanager
async def a_server() -> AsyncIterator[tuple[Log, int]]:
    """A picows server as the relay's is made, for one connection; (its log, port)."""
    log = Log()
    server = await picows.ws_create_server(
        lambda request: WebSocketCarrier(log.attach),
        "127.0.0.1",
        0,
        enable_auto_pong=False,
        max_frame_size=MAX_MESSAGE,
        use_aiofastnet=False,
    )
    try:
        yield log, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if log.carrier is not None and not log.lost:
            log.carrier.abort()
            await log.until(lambda: log.lost)


@asynccontextmanager
async def both_ends() -> AsyncIterator[tuple[Log, Log]]:
    """(the relay's end, the agent's end) of one connection, as the product makes them."""
    async with a_server() as (relay, port):
        agent = Log()
        await picows.ws_connect(
            lambda: WebSocketCarrier(agent.attach),
            f"ws://127.0.0.1:{port}/",
            enable_auto_pong=False,
            max_frame_size=MAX_MESSAGE,
            use_aiofastnet=False,
        )
        await relay.until(lambda: relay.carrier)
        yield relay, agent
        if agent.carrier is not None and not agent.lost:
            agent.carrier.abort()
            await agent.until(lambda: agent.lost)


class Raw:
    """A WebSocket client made of a socket, which sends frames of any kind."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(
        self, kind: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, length: int | None = None
    ) -> None:
        """One frame, masked."""
        size = len(payload) if length is None else length
        head = bytes([(0x80 if fin else 0) | rsv | kind])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += struct.pack(">BH", 0x80 | 126, size)
        else:
            head += struct.pack(">BQ", 0x80 | 127, size)
        mask = os.urandom(4)
        repeated = mask * (len(payload) // 4 + 1)
        whole = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[: len(payload)], "big")
        self.writer.write(head + mask + whole.to_bytes(len(payload), "big"))

    async def receive(self) -> tuple[int, bytes]:
        """(kind, payload) of the next frame."""
        first, second = await within(self.reader.readexactly(2))
        assert first & 0x70 == 0
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", await within(self.reader.readexactly(2)))
        elif size == 127:
            (size,) = struct.unpack(">Q", await within(self.reader.readexactly(8)))
        return first & 0x0F, await within(self.reader.readexactly(size))

    async def closed_with(self) -> tuple[int, str]:
        """(code, reason) of the close frame, which is all that still comes, and then the end of the connection."""
        kind, payload = await self.receive()
        assert kind == CLOSE
        assert await self.at_end()
        return struct.unpack(">H", payload[:2])[0], payload[2:].decode()

    async def at_end(self) -> bool:
        """Whether nothing more comes but the end."""
        try:
            rest: bytes = await within(self.reader.read(1))
        except ConnectionError:
            return True
        return not rest


@asynccontextmanager
async def against_raw() -> AsyncIterator[tuple[Log, Raw]]:
    """The relay's end, and a raw client behind its handshake."""
    async with a_server() as (relay, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(HANDSHAKE)
            head = await within(reader.readuntil(b"\r\n\r\n"))
            assert b" 101 " in head
            assert b"sec-websocket-extensions" not in head.lower()
            await relay.until(lambda: relay.carrier)
            yield relay, Raw(reader, writer)
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass


@on_every_loop
async def test_messages_arrive_whole_and_in_order() -> None:
    """Any size up to the bound, both ways, with the room in front taken off."""
    sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 300_000, MAX_MESSAGE]
    async with both_ends() as (relay, agent):
        sent = [os.urandom(size) for size in sizes]
        for data in sent:
            assert relay.carrier is not None
            assert agent.carrier is not None
            relay.carrier.send(message(data))
            agent.carrier.send(message(data[::-1]))
        await agent.until(lambda: len(agent.messages) == len(sizes))
        await relay.until(lambda: len(relay.messages) == len(sizes))
        assert agent.messages == sent
        assert relay.messages == [data[::-1] for data in sent]


@on_every_loop
async def test_a_carrier_knows_where_its_peer_is() -> None:
    """`peer` is the address at the other end."""
    async with both_ends() as (relay, _):
        assert relay.carrier is not None
        assert relay.carrier.peer == "127.0.0.1"


@on_every_loop
async def test_a_full_transport_says_so_and_when_it_is_over() -> None:
    """A peer that reads nothing: `send` becomes False before much is piled up; once it reads, `on_writable` comes."""
    async with against_raw() as (relay, raw):
        assert relay.carrier is not None
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sent = 0
        while relay.carrier.send(message(bytes(65_536))):
            sent += 65_536
            await asyncio.sleep(0)
            assert sent < 64 * 1024 * 1024
        assert relay.writable == 0
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        received = 0
        while received <= sent:
            received += len((await raw.receive())[1])
        await relay.until(lambda: relay.writable)


@on_every_loop
async def test_fragments_become_one_message() -> None:
    """A message in fragments, empty ones and control frames between them, is one message; so is the next."""
    async with against_raw() as (relay, raw):
        raw.send(BINARY, b"one ", fin=False)
        raw.send(CONTINUATION, b"", fin=False)
        raw.send(PING, b"between")
        raw.send(CONTINUATION, b"message", fin=False)
        raw.send(CONTINUATION, b"", fin=True)
        raw.send(BINARY, b"", fin=False)
        raw.send(CONTINUATION, b"next")
        raw.send(BINARY, b"whole")
        await relay.until(lambda: len(relay.messages) == 3)
        assert relay.messages == [b"one message", b"next", b"whole"]
        assert await raw.receive() == (PONG, b"between")


@on_every_loop
async def test_a_ping_is_answered_and_a_pong_ignored() -> None:
    """With its own bytes, up to the longest."""
    async with against_raw() as (relay, raw):
        raw.send(PONG, b"unasked")
        for payload in (b"", b"x", bytes(125)):
            raw.send(PING, payload)
            assert await raw.receive() == (PONG, payload)
        assert relay.messages == []
        assert relay.lost == []


def two_messages(raw: Raw) -> None:
    raw.send(BINARY, b"x", fin=False)
    raw.send(BINARY, b"y")


def many_fragments(raw: Raw) -> None:
    for number in range(4):
        raw.send(CONTINUATION if number else BINARY, bytes(300_000), fin=False)


REFUSED: list[tuple[str, Callable[[Raw], None], int]] = [
    ("text", lambda raw: raw.send(TEXT, b"hello"), 1003),
    ("text in fragments", lambda raw: raw.send(TEXT, b"hello", fin=False), 1003),
    ("a reserved bit", lambda raw: raw.send(BINARY, b"x", rsv=0x40), 1002),
    ("another reserved bit", lambda raw: raw.send(BINARY, b"x", rsv=0x10), 1002),
    ("a continuation of nothing", lambda raw: raw.send(CONTINUATION, b"x"), 1002),
    ("two messages at once", two_messages, 1002),
    ("fragments beyond the bound", many_fragments, 1009),
]


@pytest.mark.parametrize(("what", "say", "code"), REFUSED, ids=[row[0] for row in REFUSED])
@on_every_loop
async def test_what_the_protocol_forbids_ends_the_connection(what: str, say: Callable[[Raw], None], code: int) -> None:
    """With a close code that says what was wrong; nothing of it becomes a message, and the owner hears the reason."""
    async with against_raw() as (relay, raw):
        raw.send(BINARY, b"before")
        say(raw)
        raw.send(BINARY, b"after")
        closed, reason = await raw.closed_with()
        assert closed == code
        await relay.until(lambda: relay.lost)
        assert relay.messages == [b"before"]
        assert relay.lost == [reason]


@on_every_loop
async def test_a_frame_above_the_bound_ends_the_connection() -> None:
    """One frame that announces more than a message may hold is refused before its bytes are read."""
    async with against_raw() as (relay, raw):
        raw.send(BINARY, bytes(1000), length=MAX_MESSAGE + 1)
        await relay.until(lambda: relay.lost)
        assert relay.messages == []
        try:
            code, _ = await raw.closed_with()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        assert code in (1002, 1009)


@on_every_loop
async def test_the_close_handshake_begun_by_the_peer() -> None:
    """A close frame is answered, the owner hears the peer's reason once, and later sends go nowhere."""
    async with against_raw() as (relay, raw):
        raw.send(CLOSE, struct.pack(">H", 1001) + "restarting – soon".encode())
        code, _ = await raw.closed_with()
        assert code == 1000
        await relay.until(lambda: relay.lost)
        assert relay.lost == ["restarting – soon"]
        assert relay.carrier is not None
        relay.carrier.send(message(b"x"))
        relay.carrier.close(1000, "again")
        relay.carrier.abort()


@on_every_loop
async def test_close_sends_what_was_said_before_and_the_reason() -> None:
    """The peer gets the messages, then code and reason; both owners hear of the end once."""
    async with both_ends() as (relay, agent):
        assert relay.carrier is not None
        relay.carrier.send(message(bytes(500_000)))
        relay.carrier.send(message(b"last"))
        relay.carrier.close(1001, "the relay stops")
        await agent.until(lambda: agent.lost)
        await relay.until(lambda: relay.lost)
        assert [len(data) for data in agent.messages] == [500_000, 4]
        assert agent.lost == ["the relay stops"]
        assert relay.lost == ["the relay stops"]


@on_every_loop
async def test_a_long_reason_is_cut_between_characters() -> None:
    """A close frame has room for 123 bytes; a reason that does not fit is still text."""
    async with against_raw() as (relay, raw):
        assert relay.carrier is not None
        relay.carrier.close(1008, "é" * 49 + "–" * 100)
        code, reason = await raw.closed_with()
        assert code == 1008
        assert reason.startswith("é" * 49)


@on_every_loop
async def test_a_peer_that_does_not_answer_a_close_is_cut() -> None:
    """The owner is told that it is over, soon, although the peer keeps its end open."""
    async with against_raw() as (relay, raw):
        assert relay.carrier is not None
        relay.carrier.close(1001, "bye")
        assert (await raw.receive())[0] == CLOSE
        await relay.until(lambda: relay.lost)
        assert relay.lost == ["bye"]


@on_every_loop
async def test_a_close_behind_bytes_that_nobody_reads_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that reads nothing cannot keep a connection that is to be closed."""
    monkeypatch.setattr(websocket, "CLOSE_WITHIN", 0.05)
    async with against_raw() as (relay, raw):
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert relay.carrier is not None
        while relay.carrier.send(message(bytes(1_000_000))):
            await asyncio.sleep(0)
        relay.carrier.close(1001, "bye")
        await relay.until(lambda: relay.lost)
        assert relay.lost == ["bye"]


@on_every_loop
async def test_abort_drops_everything() -> None:
    """The transport is cut at once, without a close frame; both owners are told once."""
    async with both_ends() as (relay, agent):
        assert relay.carrier is not None
        relay.carrier.abort()
        await agent.until(lambda: agent.lost)
        await relay.until(lambda: relay.lost)
        relay.carrier.abort()
        assert agent.lost == ["the connection broke"]
        assert relay.lost == ["the connection broke"]


@on_every_loop
async def test_a_connection_that_breaks_is_told() -> None:
    """A peer that goes without a close frame, in the middle of a message too."""
    async with against_raw() as (relay, raw):
        raw.send(BINARY, b"half", length=1000)
        await raw.writer.drain()
        raw.writer.close()
        await relay.until(lambda: relay.lost)
        assert relay.lost == ["the connection broke"]
        assert relay.messages == []


@on_every_loop
async def test_an_owner_may_close_in_the_middle_of_what_comes() -> None:
    """Closing inside `on_message` is the end: frames behind it, in the same read, are not told."""
    async with against_raw() as (relay, raw):
        carrier = relay.carrier
        assert carrier is not None
        told: list[bytes] = []

        def once(message: memoryview) -> None:
            told.append(bytes(message))
            carrier.close(1002, "enough")

        relay.on_message = once  # type: ignore[method-assign]
        for _ in range(5):
            raw.send(BINARY, b"x")
        assert (await raw.closed_with())[0] == 1002
        await relay.until(lambda: relay.lost)
        assert told == [b"x"]
