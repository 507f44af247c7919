"""The agents' door over real sockets: who goes to the doorway, who to the API, and what a stranger can make it hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relay.agent.link import Link, LinkFailed
from relay.api import door as door_room
from relay.api import line as line_room
from relay.api.door import MOST_BEFORE_HELLO, MOST_HEAD, door_factory
from relay.node.listeners import Listener
from relay.node.sockets import bind
from relay.settings import Address
from relay.wire import frames
from relay.wire.frames import encode
from relay.wire.hello import Hello, encode_hello
from tests.agent.localside import on_every_loop, within
from tests.agent.relayside import until
from tests.agent.running import a_link
from tests.api.world import without_registry
from tests.tunnels.agents import House

UPGRADE = (
    b"GET /agent/v1 HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
OFFER = b"Sec-WebSocket-Protocol: relay.v1\r\n\r\n"
HELLO = Hello("a", 0, 1, "good", ("demo",))


def masked(payload: bytes, kind: int = 0x82) -> bytes:
    """A WebSocket frame of a client, with a mask of zeros."""
    if len(payload) < 126:
        return struct.pack(">BB4x", kind, 0x80 | len(payload)) + payload
    return struct.pack(">BBH4x", kind, 0xFE, len(payload)) + payload


class Doors:
    """A listener with the door in front, and raw connections to it."""

    def __init__(self, house: House, port: int) -> None:
        self.house = house
        self.port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, *parts: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that has said these bytes, one part after the other."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.001)  # so that parts are read apart; together they are as good
        return reader, writer

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def doors(trusts: Callable[[str], bool] = lambda _: False, **options: Any) -> AsyncIterator[Doors]:
    house = House(**options)
    sock = bind(Address("127.0.0.1", 0), "agents")
    with sock:
        listener = Listener(sock, without_registry().app, door_factory(house.doorway, trusts))
        await listener.listen()
        open_doors = Doors(house, sock.getsockname()[1])
        try:
            yield open_doors
        finally:
            open_doors.hang_up()
            await house.doorway.aclose("the test is over")
            await listener.aclose()


async def head_of(reader: asyncio.StreamReader) -> bytes:
    head: bytes = await within(reader.readuntil(b"\r\n\r\n"))
    return head


async def at_end(reader: asyncio.StreamReader) -> bytes:
    """All that still comes before the end, a reset included."""
    data = b""
    try:
        while part := await within(reader.read(65536)):
            data += part
    except ConnectionError:
        pass
    return data


async def welcomed(reader: asyncio.StreamReader) -> None:
    """The next WebSocket message is a WELCOME."""
    first, size = await within(reader.readexactly(2))
    if size == 126:
        (size,) = struct.unpack(">H", await within(reader.readexactly(2)))
    message = await within(reader.readexactly(size))
    assert first == 0x82
    assert message[4] == frames.WELCOME


# ---- agents


@on_every_loop
async def test_an_agent_comes_in() -> None:
    """The agent's own link is welcomed, and carries streams of any size past the door."""
    async with doors() as at:
        link: Link = a_link()
        await within(link.open(f"ws://127.0.0.1:{at.port}", HELLO))
        assert list(at.house.hub.tunnels) == ["demo"]
        assert link.session is not None
        for _ in range(50):
            link.session.send(encode(frames.PING, 0, bytes(8)) * 150)
        (served,) = at.house.hub.links.values()
        assert await within(served.session.probe(5.0))
        assert not served.session.ended
        link.close("bye")
        await within(link.wait())
        await until(lambda: not at.house.hub.tunnels)


@on_every_loop
async def test_an_upgrade_in_any_pieces() -> None:
    """Head byte by byte, or head and hello in one: nothing is lost, and the answer chooses the protocol."""
    whole = UPGRADE + OFFER
    hello = masked(encode(frames.HELLO, 0, encode_hello(HELLO)))
    async with doors() as at:
        for parts in ([whole + hello], [whole[:7], whole[7:90], whole[90:] + hello[:3], hello[3:]], [whole, hello]):
            reader, writer = await at.connect(*parts)
            head = await head_of(reader)
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"sec-websocket-protocol: relay.v1\r\n" in head.lower()
            assert b"sec-websocket-extensions" not in head.lower()
            await welcomed(reader)
            writer.close()
            await until(lambda: not at.house.hub.links)


@pytest.mark.parametrize(
    "offer", [b"\r\n", b"Sec-WebSocket-Protocol: relay.v10\r\n\r\n", b"Sec-WebSocket-Protocol: x\r\n\r\n"]
)
@on_every_loop
async def test_an_agent_must_offer_the_protocol(offer: bytes) -> None:
    """Refused with a sentence; the doorway never hears of it."""
    async with doors() as at:
        reader, _ = await at.connect(UPGRADE + offer)
        answer = await at_end(reader)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"relay.v1" in answer
        assert not at.house.doorway._guests


@on_every_loop
async def test_other_offers_beside_ours_do_not_matter() -> None:
    """In any order, with any space."""
    async with doors() as at:
        reader, _ = await at.connect(UPGRADE + b"Sec-WebSocket-Protocol: relay.v2,  relay.v1 , x\r\n\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 101 ")


@on_every_loop
async def test_an_agent_behind_a_proxy_goes_by_its_own_address() -> None:
    """The last that a trusted proxy names, also where it adds a field of its own to the agent's; else the peer's."""
    named = b"X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 203.0.113.9\r\n"
    for trusted, address in (("127.0.0.1", "203.0.113.9"), ("192.0.2.1", "127.0.0.1")):
        async with doors(trusted.__eq__) as at:
            reader, _ = await at.connect(UPGRADE + named + OFFER)
            assert (await head_of(reader)).startswith(b"HTTP/1.1 101 ")
            assert [guest.address for guest in at.house.doorway._guests] == [address]


# ---- everybody else


@on_every_loop
async def test_other_requests_go_to_the_api() -> None:
    """One after the other on a connection; also the agents' path without an upgrade, and an upgrade elsewhere."""
    async with doors() as at:
        reader, _ = await at.connect(b"GET / HT", b"TP/1.1\r\nHost: relay\r\n\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200 ")
        for request, status in (
            (b"GET /agent/v1 HTTP/1.1\r\nHost: relay\r\n\r\n", b"404"),
            (b"GET /agent/v10 HTTP/1.1\r\nHost: relay\r\n\r\n", b"404"),
            (b"POST /agent/v1 HTTP/1.1\r\nHost: relay\r\nContent-Length: 2\r\n\r\nhi", b"404"),
        ):
            reader, _ = await at.connect(request)
            head = await head_of(reader)
            assert head.split()[1] == status
            length = int(head.lower().partition(b"content-length: ")[2].split()[0])
            assert json.loads(await within(reader.readexactly(length)))["status"] == 404
        assert not at.house.doorway._guests


@on_every_loop
async def test_a_request_to_the_api_is_bounded_in_bytes_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second head that drips, or a body without end: the connection is cut."""
    monkeypatch.setattr("relay.api.door.HEAD_WITHIN", 0.2)
    async with doors() as at:
        reader, writer = await at.connect(b"POST / HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            writer.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")
        await at_end(reader)
        reader, writer = await at.connect(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET / HTTP/1.1\r\nHost: ")
        await at_end(reader)


@on_every_loop
async def test_an_answer_of_the_api_must_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks again and again and reads nothing is cut."""
    monkeypatch.setattr("relay.api.door.HEAD_WITHIN", 0.2)
    async with doors() as at:
        _, writer = await at.connect(b"")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await within(flood(writer, b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: relay\r\n\r\n"))


async def flood(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Writes until the other side has had enough."""
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)


# ---- strangers


@on_every_loop
async def test_a_head_is_bounded_in_bytes_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too long or too slow: cut."""
    monkeypatch.setattr(door_room, "HEAD_WITHIN", 0.1)
    async with doors() as at:
        reader, _ = await at.connect(b"GET / HTTP/1.1\r\nA: " + b"x" * (MOST_HEAD + 1))
        assert await at_end(reader) == b""
        for said in (b"", b"GET /agent/v1 HTTP/1.1\r\n"):
            reader, _ = await at.connect(said)
            assert await at_end(reader) == b""


@on_every_loop
async def test_a_stranger_cannot_send_more_than_a_hello() -> None:
    """A message that never ends, or pings without end, before the hello: cut at the bound."""
    async with doors() as at:
        for flood in (struct.pack(">BBQ4x", 0x82, 0xFF, 1_000_000) + bytes(500_000), masked(b"", 0x89) * 20_000):
            reader, writer = await at.connect(UPGRADE + OFFER)
            assert (await head_of(reader)).startswith(b"HTTP/1.1 101 ")
            assert len(flood) > MOST_BEFORE_HELLO
            writer.write(flood)
            await at_end(reader)
            await until(lambda: not at.house.doorway._guests)
        assert not at.house.doorway._strangers


@on_every_loop
async def test_a_stranger_that_hangs_up_is_forgotten() -> None:
    """In the middle of its head, and after the upgrade."""
    async with doors() as at:
        for said in (UPGRADE, UPGRADE + OFFER):
            reader, writer = await at.connect(said)
            if said != UPGRADE:
                await head_of(reader)
                assert len(at.house.doorway._strangers) == 1
            writer.close()
            await until(lambda: not at.house.doorway._guests)
        assert not at.house.doorway._strangers


# ---- too many, and too often


PLAIN = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: relay\r\n\r\n"
FORGED = masked(encode(frames.HELLO, 0, encode_hello(Hello("a", 0, 1, "forged", ("demo",)))))


def problem_of(answer: bytes) -> tuple[int, str]:
    """(status, code) of an answer that is whole and comes with a time to come back."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.lower().partition(b"content-length: ")[2].split()[0]) == len(body)
    assert int(head.lower().partition(b"retry-after: ")[2].split()[0]) > 0
    problem = json.loads(body)
    assert problem["status"] == int(head.split()[1])
    assert problem["next_action"].startswith("Try again in")
    return problem["status"], problem["code"]


@on_every_loop
async def test_one_too_many_is_told_so_and_far_too_many_are_reset() -> None:
    """Counted from the first moment, whatever it becomes; who leaves makes room, whatever it had become."""
    async with doors(most_connections=2) as at:
        agents, commands = await at.connect(UPGRADE + OFFER), await at.connect(PLAIN)
        assert (await head_of(agents[0])).startswith(b"HTTP/1.1 101 ")
        assert (await head_of(commands[0])).startswith(b"HTTP/1.1 200 ")
        for said in (UPGRADE + OFFER, PLAIN):
            reader, _ = await at.connect(said)
            assert problem_of(await at_end(reader)) == (503, "overloaded")
        silent = [await at.connect() for _ in range(2)]
        await until(lambda: len(at.house.doorway.connections) == 4)
        with contextlib.suppress(ConnectionError):
            reader, _ = await at.connect(PLAIN)
            assert await at_end(reader) == b""
        for _, writer in (agents, commands, *silent):
            writer.transport.abort()
        await until(lambda: not at.house.doorway.connections)


@on_every_loop
async def test_an_agent_is_counted_until_its_connection_ends() -> None:
    """Past the door, too: admitted ones, and those whose session ended before."""
    async with doors() as at:
        hello = masked(encode(frames.HELLO, 0, encode_hello(HELLO)))
        for said in (UPGRADE + OFFER + hello, UPGRADE + OFFER + FORGED, UPGRADE + OFFER + masked(b"nonsense")):
            reader, writer = await at.connect(said)
            assert (await head_of(reader)).startswith(b"HTTP/1.1 101 ")
            if hello in said:
                await welcomed(reader)
                assert len(at.house.doorway.connections) == 1
            writer.transport.abort()
            await until(lambda: not at.house.doorway.connections)


@on_every_loop
async def test_one_address_has_its_own_bound_unless_it_is_a_proxy_that_is_trusted() -> None:
    """A trusted one stands for many."""
    for trusted, told in (("192.0.2.1", (503, "overloaded")), ("127.0.0.1", None)):
        async with doors(trusted.__eq__, most_connections_per_address=1) as at:
            await at.connect()
            reader, _ = await at.connect(UPGRADE + OFFER)
            if told is None:
                assert (await head_of(reader)).startswith(b"HTTP/1.1 101 ")
            else:
                assert problem_of(await at_end(reader)) == told


@on_every_loop
async def test_who_came_in_vain_too_often_is_turned_away_before_the_handshake() -> None:
    """By the address that a trusted proxy names; others, and calls of the API, are served; later it may try again."""
    async with doors("127.0.0.1".__eq__) as at:
        loop, failures = asyncio.get_running_loop(), at.house.doorway.failures

        async def knock(address: str) -> asyncio.StreamReader:
            named = b"X-Forwarded-For: 203.0.113.7, %b\r\n" % address.encode()
            reader, _ = await at.connect(UPGRADE + named + OFFER + FORGED)
            return reader

        for _ in range(20):
            assert (await head_of(await knock("198.51.100.1"))).startswith(b"HTTP/1.1 101 ")
        await until(lambda: failures.wait("198.51.100.1", loop.time()) > 0)
        assert problem_of(await at_end(await knock("198.51.100.1"))) == (429, "too_many")
        assert len(at.house.keys.asked) == 20
        assert (await head_of(await knock("198.51.100.2"))).startswith(b"HTTP/1.1 101 ")
        reader, _ = await at.connect(PLAIN.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"))
        assert (await head_of(reader)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: failures.wait("198.51.100.1", loop.time()) == 0)
        assert (await head_of(await knock("198.51.100.1"))).startswith(b"HTTP/1.1 101 ")


async def test_a_crowd_waits_in_line_and_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """More at once than one turn of the event loop takes, and one that leaves meanwhile: all others are welcomed."""
    monkeypatch.setattr(line_room, "TURN", 0.0)  # one handshake a turn
    async with doors() as open_doors:
        opening = UPGRADE + OFFER
        many = await asyncio.gather(*(open_doors.connect(opening) for _ in range(20)))
        many[3][1].transport.abort()
        for number, (reader, writer) in enumerate(many):
            if number != 3:
                await head_of(reader)
                hello = Hello(f"i{number}", 0, 1, "good", (f"demo{number}",))
                writer.write(masked(encode(frames.HELLO, 0, encode_hello(hello))))
                await welcomed(reader)
        assert len(open_doors.house.hub.links) == 19


async def test_who_finds_the_line_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the handshake, with a time to come again, which an agent keeps to."""
    monkeypatch.setattr(line_room, "MOST_WAIT", -1.0)
    async with doors() as open_doors:
        reader, _ = await open_doors.connect(UPGRADE + OFFER)
        head = await head_of(reader)
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in head
        with pytest.raises(LinkFailed) as failed:
            await a_link().open(f"ws://127.0.0.1:{open_doors.port}", HELLO)
        assert failed.value.wait == 1.0


async def test_what_comes_while_in_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger that goes on sending before it has its turn is cut at the same bound as one that has had it."""
    monkeypatch.setattr(line_room.Line, "_call", lambda *_: None)  # nobody's turn ever comes
    async with doors() as open_doors:
        reader, _ = await open_doors.connect(UPGRADE + OFFER, bytes(MOST_BEFORE_HELLO))
        assert await at_end(reader) == b""
