"""WebSocket through a tunnel: two libraries on both ends in all pairs, and the bytes that no library shows.

After 101 the relay carries bytes and nothing else, so everything that two ends agree on must work, and what an end
sees around the handshake must be what a direct connection shows.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import pytest
import pytest_asyncio
from websockets.exceptions import InvalidStatus
from websockets.utils import accept_key

from tests.support.child import eventually
from tests.support.processes import DOMAIN, AgentProcess, RelayProcess
from tests.support.rawhttp import CLOSE, FIN, RESET, RawClient, RawServer, Request, Step, chunk, exchange, ok
from tests.system import wspeers
from tests.system.numbers import nothing_left
from tests.system.wspeers import FRAGMENTS, Library, LocalWebSocket, Visitor, dial, local_service

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("websocket")]

LIBRARIES: tuple[Library, ...] = ("websockets", "aiohttp")
pairs = pytest.mark.parametrize(("near", "far"), [(near, far) for near in LIBRARIES for far in LIBRARIES])

RAW_HOST = f"raw.{DOMAIN}"
MAX_STREAMS = 16
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
HELLO = b"\x81\x05hello"  # a text message in one frame, as servers send it
REFUSALS = {
    "401": ok(b"who are you?", ("WWW-Authenticate", 'Bearer realm="x"'), status="401 Unauthorized"),
    "403": ok(b"", status="403 Forbidden"),
    "404-chunked": b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"no such") + b"0\r\n\r\n",
    "426": ok(b"newer, please", ("Sec-WebSocket-Version", "13, 99"), status="426 Upgrade Required"),
    "302": ok(b"", ("Location", "/elsewhere"), status="302 Found"),
    "500-large": ok(b"x" * 300_000, status="500 Internal Server Error"),
    "200": ok(b"I speak no WebSocket"),
}


@dataclass
class RawService:
    """A local service that shows the bytes around a handshake; the path says what it does."""

    received: list[bytes] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    before: bytes | None = None

    async def serve(self, request: Request) -> AsyncIterator[Step]:
        """Answer as the path says; echo after a switch, and say bye to whoever ends first."""
        stream, name = request.stream, request.target.decode().removeprefix("/")
        if name in REFUSALS:
            yield REFUSALS[name]
            return
        if name == "waits":
            await self.go_on.wait()
            self.before = stream.unread()
        switch = SWITCH % accept_key((request.head.get("sec-websocket-key") or b"").decode()).encode()
        yield switch + HELLO if name == "greets" else switch
        if name.startswith("ends-first"):
            yield b"last words"
            yield FIN
        if name == "ends-first-reads-later":
            stream.pause()
            await self.go_on.wait()
        if name == "resets":
            await stream.exactly(4)
            yield RESET
        got = b""
        while piece := await stream.some():
            got += piece
            if not name.startswith("ends-first"):
                yield piece
        self.received.append(got)
        if not name.startswith("ends-first"):
            yield b"bye"
        yield CLOSE


@dataclass
class House:
    """One relay and one agent with three names: an echo by each library, and a raw service."""

    relay: RelayProcess
    agent: AgentProcess
    echoes: dict[Library, LocalWebSocket]
    raw: RawService
    raw_server: RawServer

    def dial(
        self, near: Library, far: Library, *subprotocols: str, deflate: bool = False
    ) -> AbstractAsyncContextManager[Visitor]:
        """A visitor of one library at the echo of the other."""
        return dial(near, self.relay.public_port, f"{far}.{DOMAIN}", subprotocols, deflate=deflate)

    async def knock(self, path: str, then: bytes = b"") -> RawClient:
        """A raw visitor that has sent a handshake to the raw service, and `then` in the same write."""
        client = await RawClient.connect(self.relay.public_port)
        client.send(HANDSHAKE.format(path=path, host=RAW_HOST).encode() + then)
        return client

    async def pipe(self, path: str) -> RawClient:
        """A raw visitor whose handshake was answered 101."""
        client = await self.knock(path)
        assert (await client.head()).status == 101
        return client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """Started once for all tests here; the relay allows few streams, so that one that is never closed is noticed."""
    async with AsyncExitStack() as stack:
        echoes = {name: await stack.enter_async_context(local_service(name)) for name in LIBRARIES}
        raw = RawService()
        server = await stack.enter_async_context(RawServer(raw.serve, early=True))
        relay = await stack.enter_async_context(RelayProcess(args=["--max-streams", str(MAX_STREAMS)]))
        names = [f"{name}={echo.port}" for name, echo in echoes.items()] + [f"raw={server.port}"]
        agent = AgentProcess(None, relay_port=relay.agents_port, key_file=relay.key_file, subdomain=names)
        await stack.enter_async_context(agent)
        await agent.established()
        yield House(relay, agent, echoes, raw, server)
        await nothing_left(relay)


# ---- two libraries ---------------------------------------------------------------------------------------------------


@pairs
async def test_messages_subprotocol_and_compression(house: House, near: Library, far: Library) -> None:
    """The subprotocol and permessage-deflate are agreed on through the tunnel, and messages come back as they were."""
    async with house.dial(near, far, "unknown", "chat.v2", deflate=True) as visitor:
        assert visitor.subprotocol == "chat.v2"
        assert "permessage-deflate" in visitor.extensions
        for message in ("", "plain ✓ text", b"", b"\x00\xff" * 500, "squeezable " * 10_000):
            await visitor.send(message)
            assert await visitor.receive() == message
    async with house.dial(near, far) as visitor:
        assert (visitor.subprotocol, visitor.extensions) == (None, "")


@pairs
async def test_pings_both_ways(house: House, near: Library, far: Library) -> None:
    """A ping from either end is answered by the other end itself, payload and all."""
    async with house.dial(near, far) as visitor:
        await visitor.ping(b"from the visitor")
        await visitor.send("ping")
        assert await visitor.receive() == "ponged"


@pairs
async def test_close_codes_and_reasons_both_ways(house: House, near: Library, far: Library) -> None:
    """Who is closed sees the code and the reason of who closes."""
    seen = house.echoes[far].closed
    async with house.dial(near, far) as visitor:
        await visitor.send("close")
        assert await visitor.closed() == wspeers.CLOSE
    for how in ((1000, ""), (1001, "leaving"), (3999, "ünïcode"), (4999, "x" * 123)):
        before = seen.count(how)
        async with house.dial(near, far) as visitor:
            await visitor.close(*how)
        await eventually(partial(_grew, seen, how, before))


@pairs
async def test_a_message_of_16_mib_each_way(house: House, near: Library, far: Library) -> None:
    """A large message arrives whole, and whole again back."""
    message = random.Random(16).randbytes(16 * 2**20)
    async with house.dial(near, far) as visitor:
        await visitor.send(message)
        assert await visitor.receive() == message


@pairs
async def test_echo_of_random_sizes(house: House, near: Library, far: Library) -> None:
    """Binary messages of random sizes, sent without waiting, come back in order and unchanged."""
    chance = random.Random(f"{near}/{far}")
    sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537]
    sizes += [int(2 ** chance.uniform(0, 18)) for _ in range(60)]
    messages = [chance.randbytes(size) for size in chance.sample(sizes, len(sizes))]
    async with house.dial(near, far, deflate=True) as visitor:

        async def send() -> None:
            for message in messages:
                await visitor.send(message)

        sending = asyncio.create_task(send())
        for message in messages:
            assert await visitor.receive() == message
        await sending


@pytest.mark.parametrize("near", LIBRARIES)
async def test_fragments_from_the_local_service(house: House, near: Library) -> None:
    """A message in many frames, empty ones among them, is one message to the visitor."""
    async with house.dial(near, "websockets") as visitor:
        await visitor.send("fragments")
        assert await visitor.receive() == b"".join(FRAGMENTS)


@pytest.mark.parametrize("far", LIBRARIES)
async def test_fragments_from_the_visitor(house: House, far: Library) -> None:
    """And the other way round."""
    async with house.dial("websockets", far) as visitor:
        await visitor.send_fragments(FRAGMENTS)
        assert await visitor.receive() == b"".join(FRAGMENTS)


# ---- around the handshake --------------------------------------------------------------------------------------------


async def test_bytes_in_the_same_write_as_the_switch(house: House) -> None:
    """A local service that speaks in the same write as its 101 is heard, by a raw visitor and by both libraries."""
    for _round in range(10):
        async with await house.pipe("/greets") as client:
            assert await client.exactly(len(HELLO)) == HELLO

    async def greeted(library: Library) -> None:
        async with dial(library, house.relay.public_port, RAW_HOST, path="/greets") as visitor:
            assert await visitor.receive() == "hello"

    await asyncio.gather(*map(greeted, LIBRARIES))


async def test_first_bytes_of_the_visitor_after_the_switch(house: House) -> None:
    """What a visitor sends right after it read the 101 arrives, in one piece or in two."""
    async with await house.pipe("/pipe") as client:
        client.send(b"first")
        assert await client.exactly(5) == b"first"
        client.send(b"sec")
        client.send(b"ond")
        assert await client.exactly(6) == b"second"


@pytest.mark.parametrize("size", [6, 200_000])
async def test_bytes_behind_an_unanswered_handshake_wait_for_the_switch(house: House, size: int) -> None:
    """A visitor that does not wait is held back: its bytes reach the local service after the 101, all of them."""
    early = random.Random(size).randbytes(size)
    house.raw.go_on.clear()
    count = len(house.raw_server.requests)
    async with await house.knock("/waits", early) as client:
        await house.raw_server.received(count + 1)
        # Another exchange through the same link, in full: had the early bytes been passed on, they were there by now.
        assert (await exchange(house.relay.public_port, _get("/200"))).status == 200
        house.raw.go_on.set()
        assert (await client.head()).status == 101
        assert await client.exactly(size) == early
    assert house.raw.before == b""


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_upgrade_reaches_the_visitor_as_it_is(house: House, name: str) -> None:
    """Status, fields and body of a refusal are those of the local service, and the connection goes on."""
    handshake = HANDSHAKE.format(path=f"/{name}", host=RAW_HOST).encode()
    direct = await exchange(house.raw_server.port, handshake)
    async with await house.knock(f"/{name}") as client:
        response = await client.response()
        assert response.ended == direct.ended == "clean"
        assert (response.head and response.head.line, response.headers, response.body) == (
            direct.head and direct.head.line,
            direct.headers,
            direct.body,
        )
        client.send(_get("/200"))
        assert (await client.response()).body == b"I speak no WebSocket"


async def test_libraries_see_a_refusal(house: House) -> None:
    """Both libraries report the status, one of them with the body."""
    port = house.relay.public_port
    with pytest.raises(InvalidStatus) as refused:
        await dial("websockets", port, RAW_HOST, path="/401").__aenter__()
    assert (refused.value.response.status_code, refused.value.response.body) == (401, b"who are you?")
    with pytest.raises(aiohttp.WSServerHandshakeError) as denied:
        await dial("aiohttp", port, RAW_HOST, path="/403").__aenter__()
    assert denied.value.status == 403


async def test_refused_upgrades_leave_nothing_behind(house: House) -> None:
    """More refusals than there may be streams at once, on one connection and on many: the next request is served."""
    async with await RawClient.connect(house.relay.public_port) as client:
        for _ in range(2 * MAX_STREAMS + 1):
            client.send(HANDSHAKE.format(path="/401", host=RAW_HOST).encode())
            assert (await client.response()).status == 401
    for _ in range(2 * MAX_STREAMS + 1):
        async with await house.knock("/403") as client:
            assert (await client.response()).status == 403
    assert (await exchange(house.relay.public_port, _get("/200"))).status == 200


# ---- ends of a pipe --------------------------------------------------------------------------------------------------


async def test_the_visitor_ends_first(house: House) -> None:
    """The local service sees the end, still answers, and its end is the visitor's end."""
    async with await house.pipe("/pipe") as client:
        client.send(b"x" * 100_000)
        client.fin()
        assert await client.rest() == (b"x" * 100_000 + b"bye", "eof")
    assert house.raw.received[-1] == b"x" * 100_000


async def test_the_local_service_ends_first(house: House) -> None:
    """The visitor sees the end, still sends, and all of it arrives before its own end."""
    seen = len(house.raw.received)
    async with await house.pipe("/ends-first") as client:
        assert await client.rest() == (b"last words", "eof")
        await client.send_all(b"y" * 100_000)
        client.fin()
        await eventually(lambda: len(house.raw.received) > seen)
    assert house.raw.received[-1] == b"y" * 100_000


async def test_the_last_bytes_to_a_slow_reader_are_not_lost(house: House) -> None:
    """Both have ended, while much of what the visitor said still waits for a local service that reads later."""
    said = random.Random(20).randbytes(20_000_000)
    for _round in range(3):
        house.raw.go_on.clear()
        seen = len(house.raw.received)
        async with await house.pipe("/ends-first-reads-later") as client:
            assert await client.rest() == (b"last words", "eof")
            client.send(said)
            client.fin()
            house.raw.go_on.set()
            await eventually(lambda seen=seen: len(house.raw.received) > seen, 10.0)  # type: ignore[misc]
        assert house.raw.received[-1] == said


async def test_a_local_service_that_resets_is_seen_as_a_reset(house: House) -> None:
    """In a pipe an abort must not look like an end."""
    async with await house.pipe("/resets") as client:
        client.send(b"ping")
        assert await client.rest() == (b"", "reset")


@pytest.mark.parametrize("path", ["/pipe", "/ends-first"])
async def test_closed_pipes_leave_no_descriptor(house: House, path: str) -> None:
    """When both halves have ended the connections are closed on both sides of the tunnel, and so are the streams."""
    relay, agent, rounds = house.relay.fds(), house.agent.fds(), 2 * MAX_STREAMS
    for _ in range(rounds):
        client = await house.pipe(path)
        client.fin()
        assert (await client.rest())[1] == "eof"
        client.close()
    await eventually(lambda: house.relay.fds() < relay + rounds // 2)
    await eventually(lambda: house.agent.fds() < agent + rounds // 2)


async def test_a_service_that_is_gone_before_the_switch(house: House) -> None:
    """A handshake that is not answered is the relay's 502, not a broken connection."""
    async with RawServer(lambda _: [RESET]) as local:
        agent = AgentProcess(
            local.port, relay_port=house.relay.agents_port, key_file=house.relay.key_file, subdomain="gone"
        )
        async with agent:
            await agent.established()
            handshake = HANDSHAKE.format(path="/", host=f"gone.{DOMAIN}").encode()
            response = await exchange(house.relay.public_port, handshake)
            assert (response.status, response.head and response.head.get("Relay-Error")) == (502, b"local_reset")


def _grew(seen: list[wspeers.Closed], how: wspeers.Closed, before: int) -> bool:
    return seen.count(how) == before + 1


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {RAW_HOST}\r\n\r\n".encode()
