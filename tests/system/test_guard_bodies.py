"""The guard behind the head, by the front door: bodies that stop, dawdle or turn bad, and unfinished upgrades."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.child import eventually
from tests.support.local import LocalService
from tests.support.longer import CHAOS
from tests.support.pattern import Meter, pieces
from tests.support.processes import Tunnel, tunnel
from tests.support.rawhttp import RawClient, RawServer, Request, Step, Wait, ok
from tests.system.badheads import CHUNKED, SMUGGLED, WEBSOCKET, get, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

LENGTH = b"POST %b HTTP/1.1\r\nHost: t.tunnels.localhost\r\nContent-Length: %d\r\n\r\n"
CHUNKS = post(CHUNKED, target=b"/sink")
IDLE_TIMEOUT = 1.0
SLACK = 2.0


class House:
    """A tunnel and the local service behind it, which reads bodies as they come."""

    def __init__(self, tunnel: Tunnel, local: LocalService) -> None:
        self.tunnel = tunnel
        self.local = local

    async def visitor(self, timeout: float = 10.0) -> RawClient:
        return await RawClient.connect(self.tunnel.port, timeout=timeout)

    async def request(self) -> Request:
        """The one request that reached the local service since the last call of `clear`."""
        return await self.local.received(1)

    def clear(self) -> None:
        self.local.requests.clear()
        self.local.departures.clear()
        self.local.sinks.clear()
        self.local.gate.clear()

    async def cut_off(self) -> Request:
        """The one request, once its sender has left the local service, which never saw a whole body."""
        departure = await self.local.departure()
        request = await self.request()
        assert departure.request is request
        assert not request.reader.complete
        return request


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[House]:
    """One relay with a short patience for bodies, one agent, one local service for all tests here."""
    async with LocalService() as local, tunnel(local.port, "t", ["--idle-timeout", str(IDLE_TIMEOUT)]) as t:
        yield House(t, local)


@pytest.fixture
def house(started: House) -> House:
    """The same, with nothing seen yet."""
    started.clear()
    return started


# ------------------------------------------------------------------------------------------------ bodies that turn bad

BAD_CHUNKS: dict[str, bytes] = {
    "a size that is no number": b"zz\r\nabc\r\n0\r\n\r\n",
    "an empty size": b"\r\nabc\r\n0\r\n\r\n",
    "a hexadecimal prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "a negative size": b"-3\r\nabc\r\n0\r\n\r\n",
    "white space in front": b" 3\r\nabc\r\n0\r\n\r\n",
    "a size of 16 digits": b"fffffffffffffff3\r\nabc\r\n0\r\n\r\n",
    "a bare LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "a bare LF behind the data": b"3\r\nabc\n0\r\n\r\n",
    "a bare CR in the size line": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "NUL in an extension": b"3;a\0b\r\nabc\r\n0\r\n\r\n",
    "more data than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "less data than its size": b"5\r\nabc\r\n0\r\n\r\n",
    "an endless extension": b"3;" + b"a" * 2000,
    "endless trailers": b"0\r\n" + b"X: a\r\n" * 4000,
    "a trailer without a colon": b"0\r\nX\r\n\r\n",
    "NUL in a trailer": b"0\r\nX: a\0b\r\n\r\n",
    "a bare LF in the trailers": b"0\r\nX: a\nY: b\r\n\r\n",
    "a folded trailer": b"0\r\nX: a\r\n Y: b\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
async def test_a_body_that_turns_bad_is_cut_off(house: House, name: str) -> None:
    """After a good chunk a bad one: 400 and the end for the visitor, an abort for the local service."""
    async with await house.visitor() as visitor:
        visitor.send(CHUNKS + b"5\r\nfirst\r\n")
        await eventually(lambda: bool(house.local.sinks) and house.local.sinks[0].size == 5)
        visitor.send(BAD_CHUNKS[name] + SMUGGLED)
        response = await visitor.response()
        rest = await visitor.rest()
    assert response.head is not None
    assert (response.status, response.head.get("relay-error")) == (400, b"bad_request")
    assert b"request body" in response.body
    assert (response.head.get("connection"), rest) == (b"close", (b"", "eof"))
    await house.cut_off()
    assert len(house.local.requests) == 1


async def test_a_body_that_is_bad_from_its_first_byte(house: House) -> None:
    """Head and bad body in one piece: whatever of it left is cut off."""
    async with await house.visitor() as visitor:
        visitor.send(CHUNKS + b"zz\r\n" + SMUGGLED)
        assert (await visitor.response()).status == 400
    assert all(not request.reader.complete for request in house.local.requests)
    async with await house.visitor() as visitor:
        visitor.send(get(target=b"/fence"))
        assert (await visitor.response()).status == 200
    assert b"/smuggled" not in {request.target for request in house.local.requests}


async def test_a_visitor_that_ends_in_its_body(house: House) -> None:
    """An upload whose sender stops with FIN is an abort for the local service."""
    for head in (LENGTH % (b"/sink", 10), CHUNKS):
        house.clear()
        async with await house.visitor() as visitor:
            visitor.send(head + (b"5\r\nfirst\r\n" if head is CHUNKS else b"first"))
            await eventually(lambda: bool(house.local.sinks) and house.local.sinks[0].size == 5)
            visitor.fin()
            await house.cut_off()


async def test_trailers_bring_nothing_that_belongs_to_a_head(house: House) -> None:
    """Hop-by-hop, framing and forwarding fields do not pass as trailers; others do (RFC 9110 §6.5.1)."""
    async with await house.visitor() as visitor:
        bad = b"Connection: close\r\nTransfer-Encoding: gzip\r\nContent-Length: 5\r\nHost: a\r\nX-Forwarded-For: 6.6.6"
        visitor.send(post(CHUNKED, target=b"/echo") + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n" + bad + b"\r\n\r\n")
        response = await visitor.response()
    assert response.status == 200
    assert json.loads(response.body)["trailers"] == [["X-Sum", "1"]]


# ------------------------------------------------------------------------------------------------------- slow bodies


@pytest.mark.parametrize("head", [LENGTH % (b"/sink", 10), CHUNKS + b"a\r\n"], ids=["length", "chunked"])
async def test_a_body_that_stops_is_answered_in_time(house: House, head: bytes) -> None:
    """Half a body and then silence: 408, the end, and an abort for the local service."""
    began = time.monotonic()
    async with await house.visitor() as visitor:
        visitor.send(head + b"first")
        response = await visitor.response()
        taken = time.monotonic() - began
        rest = await visitor.rest()
    assert response.head is not None
    assert (response.status, response.head.get("relay-error")) == (408, b"request_timeout")
    assert IDLE_TIMEOUT * 0.9 < taken < IDLE_TIMEOUT + SLACK
    assert (response.head.get("connection"), rest) == (b"close", (b"", "eof"))
    await house.cut_off()


async def test_a_body_may_take_its_time(house: House) -> None:
    """Pieces that keep coming are never cut, however long they take in all: there is no total."""
    async with await house.visitor() as visitor:
        visitor.send(LENGTH % (b"/sink", 12))
        for _ in range(12):
            visitor.send(b"a")
            assert not await visitor.stream.left_within(IDLE_TIMEOUT / 4)
        response = await visitor.response()
    assert (response.status, json.loads(response.body)["bytes"]) == (200, 12)


async def test_an_honest_upload_to_a_slow_local_service_is_never_cut(house: House) -> None:
    """The local service reads nothing for several times the relay's patience: the visitor waits, and is served."""
    size = 48 * 2**20
    meter = Meter(hashing=True)
    async with await house.visitor(timeout=60) as visitor:
        visitor.send(LENGTH % (b"/gated", size))

        async def upload() -> None:
            for piece in pieces(size):
                meter.add(bytes(piece))
                await visitor.send_all(piece)

        sending = asyncio.create_task(upload())
        try:
            assert not await visitor.stream.left_within(IDLE_TIMEOUT * 3)
            assert not sending.done(), "the whole upload found room on the way: the test proves nothing"
            house.local.gate.set()
            await sending
            response = await visitor.response()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
    told = json.loads(response.body)
    assert (response.status, told["bytes"], told["sha256"]) == (200, size, meter.sha256)


async def test_an_upload_to_a_local_service_that_reads_slowly(house: House) -> None:
    """A reader slower than the visitor for longer than the relay's patience costs the visitor nothing but time."""
    size = 24 * 2**20
    async with await house.visitor(timeout=60) as visitor:
        visitor.send(LENGTH % (b"/sink?rate=%d" % (8 * 2**20), size))
        for piece in pieces(size):
            await visitor.send_all(piece)
        response = await visitor.response()
    assert (response.status, json.loads(response.body)["bytes"]) == (200, size)


async def test_a_visitor_that_stops_reading_is_cut_and_sees_it(house: House) -> None:
    """An answer that nobody reads for the idle time is broken off, by reset where its end would be a close."""
    size = 64 * 2**20
    for version in (b"HTTP/1.1", b"HTTP/1.0"):
        house.clear()
        async with await house.visitor(timeout=30) as visitor:
            visitor.stream.pause()
            visitor.send(get(target=b"/bytes/%d?framing=close" % size, version=version))
            await house.local.departure(timeout=IDLE_TIMEOUT + 2 * SLACK)
            response = await visitor.response()
        assert len(response.body) < size
        assert response.ended in (("reset",) if version == b"HTTP/1.0" else ("reset", "eof"))


@pytest.mark.chaos
@pytest.mark.skipif(not CHAOS, reason="takes more than a minute")
async def test_a_body_that_comes_too_slowly_is_answered(house: House) -> None:
    """Less than 64 bytes/s over a minute is too slow (408), a little more is not."""
    async with await house.visitor(timeout=90) as slow, await house.visitor(timeout=90) as steady:
        slow.send(LENGTH % (b"/sink", 10_000))
        steady.send(LENGTH % (b"/sink", 16_000))
        began = time.monotonic()
        for _ in range(160):
            slow.send(b"a" * 10)
            steady.send(b"a" * 100)
            if await slow.stream.left_within(0.5):
                break
        taken = time.monotonic() - began
        response = await slow.response()
        assert (response.status, b"too slowly" in response.body) == (408, True)
        assert 59 < taken < 65
        assert not steady.stream.left.is_set()


# -------------------------------------------------------------------------------------------------- unfinished upgrades


@contextlib.asynccontextmanager
async def upgrading(answer: bytes) -> AsyncIterator[tuple[Tunnel, RawServer, asyncio.Event]]:
    """A tunnel to a local service that answers an upgrade with these bytes once the event is set, then echoes."""
    go = asyncio.Event()

    async def serve(request: Request) -> AsyncIterator[Step]:
        if request.head.get("upgrade") is None:
            yield ok(b"plain")
            return
        yield Wait(go)
        yield answer
        while answer.startswith(b"HTTP/1.1 101") and (data := await request.stream.some()):
            yield data

    async with RawServer(serve, early=True) as local, tunnel(local.port, "t") as t:
        yield t, local, go


async def test_bytes_behind_an_unfinished_upgrade_wait() -> None:
    """They reach the local service after its 101 and not before, all of them and in order."""
    behind = bytes(range(256)) * 64
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    async with upgrading(switch) as (t, local, go), await RawClient.connect(t.port) as visitor:
        visitor.send(get(*WEBSOCKET) + behind[:5000])
        request = await local.received()
        visitor.send(behind[5000:])
        # An honest request that comes later passes by the same links: whatever was on its way has arrived.
        for _ in range(2):
            async with await RawClient.connect(t.port) as other:
                other.send(get())
                assert (await other.response()).body == b"plain"
        assert request.stream.unread() == b""
        go.set()
        head = await visitor.head()
        assert head.status == 101
        assert await visitor.exactly(len(behind)) == behind


async def test_bytes_behind_a_refused_upgrade_reach_nobody() -> None:
    """A local service that says no gets none of them; to the relay they are the next request, and refused as that."""
    refusal = ok(b"no", status="403 Forbidden")
    async with upgrading(refusal) as (t, local, go), await RawClient.connect(t.port) as visitor:
        visitor.send(get(*WEBSOCKET) + b"\x81\x85\0\0\0\0hello")
        request = await local.received()
        go.set()
        response = await visitor.response()
        assert (response.status, response.body) == (403, b"no")
        second = await visitor.response()
        assert (second.status, second.head and second.head.get("relay-error")) == (400, b"bad_request")
        assert request.stream.unread() == b""
        assert len(local.requests) == 1


async def test_refused_upgrades_leave_nothing_open() -> None:
    """With room for one stream, a refused upgrade is followed by the next request at once."""
    refusal = ok(b"no", status="403 Forbidden")
    async with (
        RawServer(lambda _: refusal) as local,
        tunnel(local.port, "t", ["--max-streams", "1"], ["--links", "1"]) as t,
        await RawClient.connect(t.port) as visitor,
    ):
        for _ in range(5):
            visitor.send(get(*WEBSOCKET))
            assert (await visitor.response()).status == 403
