"""The guard by the front door: a head that does not pass is answered, its connection ends, and it reaches nobody."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.local import LocalService
from tests.support.processes import Tunnel, tunnel
from tests.support.rawhttp import RawClient
from tests.support.rawstream import EndOfBytes
from tests.system.badheads import CHUNKED, HOST, REFUSED, SMUGGLED, WEBSOCKET, get, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Deadlines of this relay (seconds), and how much later than at its deadline a connection may end: it asks every 0.25 s.
HEAD_TIMEOUT = 1.0
SLACK = 2.0


@dataclass(frozen=True, slots=True)
class House:
    """A tunnel and the local service behind it."""

    tunnel: Tunnel
    local: LocalService

    async def visitor(self) -> RawClient:
        return await RawClient.connect(self.tunnel.port)

    async def ask(self, request: bytes) -> tuple[int, dict[str, object]]:
        """Status, and the body as JSON, of a request on a connection of its own."""
        async with await self.visitor() as visitor:
            visitor.send(request)
            response = await visitor.response(request.partition(b" ")[0])
        return response.status, json.loads(response.body or b"{}")

    async def arrived(self) -> list[bytes]:
        """Request lines that reached the local service since the last call, those of this method's own apart.

        An honest request goes after whatever was sent before, by the same way; twice, since two links take turns.
        """
        for _ in range(2):
            assert (await self.ask(get(target=b"/fence")))[0] == 200
        lines = [request.head.line for request in self.local.requests if request.target != b"/fence"]
        self.local.requests.clear()
        return lines


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """One relay with a short deadline for heads, one agent, one local service for all tests here."""
    args = ["--head-timeout", str(HEAD_TIMEOUT), "--idle-timeout", "1"]
    async with LocalService() as local, tunnel(local.port, "t", args) as t:
        yield House(t, local)


# --------------------------------------------------------------------------------------------- heads that do not pass


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refused_head_reaches_nobody(house: House, name: str) -> None:
    """It is answered with its code, the connection ends at once, and the local service sees nothing of it."""
    status, code, head = REFUSED[name]
    async with await house.visitor() as visitor:
        visitor.send(head)
        response = await visitor.response()
        rest = await visitor.rest()
    assert response.head is not None
    assert (response.status, response.head.get("relay-error"), response.ended) == (status, code.encode(), "clean")
    assert response.head.get("connection") == b"close"
    assert json.loads(response.body)["error"] == code
    assert rest == (b"", "eof")
    assert await house.arrived() == []


@pytest.mark.parametrize("cut", ["one piece", "byte by byte"])
@pytest.mark.parametrize(
    "name", ["a bare LF behind a field", "HTTP/0.9", "two Hosts", "chunked twice", "NUL in a name"]
)
async def test_a_bad_head_is_refused_however_it_comes(house: House, name: str, cut: str) -> None:
    """Behind an answered request on the same connection, in one piece or in many."""
    status, code, head = REFUSED[name]
    async with await house.visitor() as visitor:
        visitor.send(get(target=b"/first"))
        assert (await visitor.response()).status == 200
        for piece in [head] if cut == "one piece" else [head[at : at + 1] for at in range(len(head))]:
            visitor.send(piece)
            await asyncio.sleep(0)
        response = await visitor.response()
    assert response.head is not None
    assert (response.status, response.head.get("relay-error")) == (status, code.encode())
    assert await house.arrived() == [b"GET /first HTTP/1.1"]


@pytest.mark.parametrize("flood", ["one endless field", "endless fields", "an endless target", "endless empty lines"])
async def test_a_flood_is_stopped(house: House, flood: str) -> None:
    """Whoever sends without end is answered or cut within the deadline for heads, after a fraction of what it sent."""
    start, more = {
        "one endless field": (get()[:-2] + b"X: ", b"a" * 16384),
        "endless fields": (get()[:-2], b"X: a\r\n" * 2048),
        "an endless target": (b"GET /", b"a" * 16384),
        "endless empty lines": (b"\r\n", b"\r\n" * 8192),
    }[flood]
    began = time.monotonic()
    async with await house.visitor() as visitor:
        visitor.send(start)
        ended = False
        while not ended and time.monotonic() < began + 30:
            try:
                await visitor.send_all(more)
                ended = await visitor.stream.left_within(0.001)
            except EndOfBytes:
                ended = True
        assert ended
    assert time.monotonic() - began < HEAD_TIMEOUT + 2 * SLACK + 1
    assert await house.arrived() == []


@pytest.mark.parametrize("flood", ["one field in many pieces", "empty lines"])
async def test_a_flood_costs_little(house: House, flood: str) -> None:
    """What a visitor sends before a head is complete costs the relay time by its length, not by its square."""
    relay = house.tunnel.relay
    async with await house.visitor() as visitor:
        before = relay.cpu_seconds()
        if flood == "empty lines":
            for _ in range(16):
                await visitor.send_all(b"\r\n" * 32 * 1024)
        else:
            visitor.send(get()[:-2] + b"X: " + b"a" * 24_000)
            for _ in range(4000):
                visitor.send(b"a")
                await asyncio.sleep(0)
        assert await visitor.stream.left_within(HEAD_TIMEOUT + 2 * SLACK)
    assert relay.cpu_seconds() - before < 0.4
    assert await house.arrived() == []


async def test_a_large_head_within_the_bounds_passes(house: House) -> None:
    """One hundred fields and nearly 32 KiB arrive whole, also when they come byte by byte."""
    head = get(*(b"X-%d: %b" % (number, b"a" * 300) for number in range(99)), target=b"/large")
    assert 30_000 < len(head) < 32 * 1024
    assert (await house.ask(head))[0] == 200
    async with await house.visitor() as visitor:
        for at in range(0, len(head), 16):
            visitor.send(head[at : at + 16])
            await asyncio.sleep(0)
        assert (await visitor.response()).status == 200
    assert await house.arrived() == [b"GET /large HTTP/1.1"] * 2


# --------------------------------------------------------------------------------------------------- taking one's time


async def test_a_dripping_head_is_answered_in_time(house: House) -> None:
    """A byte now and then does not prolong the time for a head: 408, then the end, and nobody hears of it."""
    began = time.monotonic()
    async with await house.visitor() as visitor:
        answer = asyncio.create_task(visitor.response())
        for byte in get(target=b"/drip")[:-2] + b"X: " + b"a" * 1000:
            visitor.send(bytes([byte]))
            if (await asyncio.wait([answer], timeout=0.05))[0]:
                break
        response = await answer
        taken = time.monotonic() - began
        rest = await visitor.rest()
    assert response.head is not None
    assert (response.status, response.head.get("relay-error")) == (408, b"request_timeout")
    assert response.head.get("connection") == b"close"
    assert HEAD_TIMEOUT * 0.9 < taken < HEAD_TIMEOUT + SLACK
    assert rest == (b"", "eof")
    assert await house.arrived() == []


@pytest.mark.parametrize("sent", [b"", b"\r\n", get()], ids=["new", "CRLF", "used"])
async def test_a_silent_connection_ends_in_time(house: House, sent: bytes) -> None:
    """A connection that says nothing, or nothing more, is closed."""
    async with await house.visitor() as visitor:
        visitor.send(sent)
        if len(sent) > 2:
            assert (await visitor.response()).status == 200
        began = time.monotonic()
        rest, how = await visitor.rest()
        assert HEAD_TIMEOUT * 0.5 < time.monotonic() - began < HEAD_TIMEOUT + SLACK
    assert how == "eof"
    assert rest.startswith(b"HTTP/1.1 408 ") or not rest
    await house.arrived()


async def test_the_time_for_a_head_begins_anew(house: House) -> None:
    """Requests one after the other on one connection, for longer than one head may take, are all served."""
    began = time.monotonic()
    async with await house.visitor() as visitor:
        while time.monotonic() < began + HEAD_TIMEOUT + 1:
            for piece in (b"GET /again HTTP/1.1\r\n", HOST, b"\r\n\r\n"):
                visitor.send(piece)
                assert not await visitor.stream.left_within(0.1)
            assert (await visitor.response()).status == 200
    assert len(await house.arrived()) > 3


# ------------------------------------------------------------------------------------------------ heads made harmless


async def seen(house: House, request: bytes) -> list[tuple[str, str]]:
    """The fields (names in lower case) with which a request that passes arrives at the local service."""
    status, told = await house.ask(request)
    assert status == 200, told
    headers = told["headers"]
    assert isinstance(headers, list)
    return [(name.lower(), value) for name, value in headers]


async def test_an_absolute_target_of_the_same_host_arrives_as_a_path(house: House) -> None:
    """Proxies' form of the target is understood, and the local service sees origin-form."""
    for target, meant in [
        (b"http://t.tunnels.localhost/a//b?c=%20", b"/a//b?c=%20"),
        (b"HTTP://T.tunnels.localhost:80", b"/"),
        (b"http://t.tunnels.localhost?q", b"/?q"),
    ]:
        assert (await house.ask(get(target=target)))[0] == 200
        assert await house.arrived() == [b"GET " + meant + b" HTTP/1.1"]


@pytest.mark.parametrize(
    "named", [b"Host", b"host , Content-Length", b"close,HOST,authorization", b"X-Forwarded-For, cookie,mcp-session-id"]
)
@pytest.mark.parametrize("field", [b"Connection", b"Proxy-Connection", b"cONNECTION"])
async def test_what_a_request_means_cannot_be_listed_away(house: House, field: bytes, named: bytes) -> None:
    """Naming Host, the length, credentials or the relay's own fields in Connection removes none of them."""
    fields = [
        b"Content-Length: 3",
        b"Authorization: Bearer x",
        b"Cookie: a=b",
        b"Mcp-Session-Id: s",
        b"X-Forwarded-For: 1.2.3.4",
    ]
    request = post(field + b": " + named, *fields) + b"abc"
    status, told = await house.ask(request)
    headers = told["headers"]
    assert isinstance(headers, list)
    arrived = {name.lower(): value for name, value in headers}
    assert (status, told["length"]) == (200, 3)
    assert arrived["authorization"] == "Bearer x"
    assert (arrived["cookie"], arrived["mcp-session-id"]) == ("a=b", "s")
    assert arrived["x-forwarded-for"] == "127.0.0.1"
    assert arrived["host"] == f"127.0.0.1:{house.local.port}"
    assert arrived["x-forwarded-host"] == "t.tunnels.localhost"
    assert "connection" not in arrived
    await house.arrived()


async def test_what_connection_lists_ends_here(house: House) -> None:
    """Hop-by-hop fields and whatever Connection names, in any spelling and in several fields, do not go on."""
    gone = [
        b"X-ONE: 1",
        b"x-Two: 2",
        b"X-Three: 3",
        b"Keep-Alive: timeout=5",
        b"TE: trailers",
        b"Proxy-Authorization: Basic x",
    ]
    lists = [b"Connection: keep-alive, X-One", b"connection:\tx-two ,,", b"Proxy-Connection: x-three"]
    fields = await seen(house, get(*lists, *gone, b"HTTP2-Settings: AAMAAABk", b"X-Kept: yes"))
    names = {name for name, _ in fields}
    expected = {"host", "x-kept", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"}
    assert names == expected
    await house.arrived()


async def test_nobody_can_pretend_to_be_elsewhere(house: House) -> None:
    """Forwarding fields of a visitor, in any case and number, are replaced by the relay's own."""
    addresses = [b"x-forwarded-FOR: 6.6.6.6", b"X-Forwarded-For: 7.7.7.7", b"Forwarded: for=6.6.6.6"]
    others = [b"X-Forwarded-Proto: https", b"X-Forwarded-Host: elsewhere", b"X-Forwarded-Port: 443"]
    fields = await seen(house, get(*addresses, *others))
    told = [(name, value) for name, value in fields if "forwarded" in name]
    assert told == [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "t.tunnels.localhost"),
        ("forwarded", 'for=127.0.0.1;proto=http;host="t.tunnels.localhost"'),
    ]
    await house.arrived()


@pytest.mark.parametrize(
    "request_",
    [
        get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
        post(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3") + b"abc",
        post(b"Connection: upgrade", b"Upgrade: TLS/1.0", CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n",
        get(b"Upgrade: websocket"),
    ],
    ids=["h2c", "h2c with a body", "another protocol", "not connected"],
)
async def test_other_upgrades_are_served_as_http(house: House, request_: bytes) -> None:
    """h2c and the like are answered as plain HTTP/1.1, the body read by its framing, and no Upgrade goes on."""
    async with await house.visitor() as visitor:
        visitor.send(request_ + get(target=b"/next"))
        first, second = await visitor.response(), await visitor.response()
    told = json.loads(first.body)
    assert (first.status, first.head and first.head.get("upgrade")) == (200, None)
    assert told["length"] == (3 if request_.startswith(b"POST") else 0)
    assert not {name.lower() for name, _ in told["headers"]} & {"upgrade", "connection", "http2-settings"}
    assert (second.status, json.loads(second.body)["target"]) == (200, "/next")
    await house.arrived()


async def test_http_1_0_is_served_and_closed(house: House) -> None:
    """Its Upgrade and Expect mean nothing, and no request follows on the connection."""
    old = get(*WEBSOCKET, b"Expect: 100-continue", target=b"/old", version=b"HTTP/1.0")
    async with await house.visitor() as visitor:
        visitor.send(old + SMUGGLED)
        response = await visitor.response()
        rest = await visitor.rest()
    names = {name.lower() for name, _ in json.loads(response.body)["headers"]}
    assert (response.status, response.interim, rest) == (200, [], (b"", "eof"))
    assert not names & {"upgrade", "connection", "expect"}
    assert await house.arrived() == [b"GET /old HTTP/1.1"]
