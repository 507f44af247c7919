"""Streams flow: heads leave before bodies, every piece leaves when it is there, and a stalled one stalls nobody else.

What is about order waits for events and measures nothing: the next piece is made only when the last one has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.messages import Head
from tests.support.pattern import Meter, pieces
from tests.support.rawhttp import CLOSE, RawClient, Request, Step, Wait, chunk
from tests.system.twoways import House

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("house")]

NAME = "httptools"
PIECES = 20
MOST_PER_STREAM = (64 + 16) * 1024
"""Resident bytes of the relay for a visitor's connection and its open stream."""
# How the body of an answer begins, one piece of it, and how it ends.
FRAMINGS: dict[str, bytes] = {
    "length": b"Content-Length: %d\r\n" % (PIECES * 16),
    "chunked": b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
    "close": b"Connection: close\r\n",
}


def ask(house: House, method: str = "GET", fields: str = "") -> bytes:
    """A request to the tunnel."""
    return f"{method} / HTTP/1.1\r\nHost: {house.host(NAME).decode()}\r\n{fields}\r\n".encode()


def piece(number: int) -> bytes:
    """An event of 16 bytes."""
    return b"data: %08d\n\n" % number


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_head_and_each_event_arrive_on_their_own(house: House, framing: str) -> None:
    """The head is there before the first byte of body exists, and each event before the next one is made."""
    arrived = [asyncio.Event() for _ in range(PIECES + 1)]

    async def speak(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\n" + FRAMINGS[framing] + b"\r\n"
        for number in range(PIECES):
            yield Wait(arrived[number])
            yield chunk(piece(number)) if framing == "chunked" else piece(number)
        yield Wait(arrived[PIECES])
        if framing == "chunked":
            yield b"0\r\n\r\n"
        if framing == "close":
            yield CLOSE

    house.script = speak
    async with await house.visitor() as visitor:
        visitor.send(ask(house))
        head = await visitor.head()
        assert head.status == 200
        body = aiter(visitor.body(head))
        for number in range(PIECES):
            arrived[number].set()
            async with asyncio.timeout(visitor.timeout):
                assert await anext(body) == piece(number)
        arrived[PIECES].set()
        async with asyncio.timeout(visitor.timeout):
            assert [rest async for rest in body] == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_each_piece_of_an_upload_arrives_on_its_own(house: House, framing: str) -> None:
    """The head of a request is with the local service before its body is sent, and each piece before the next."""
    came: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(request: Request) -> AsyncIterator[Step]:
        came.put_nowait(b"")
        async for data in request.reader:
            came.put_nowait(data)
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    house.script = listen
    length = f"Content-Length: {PIECES * 16}\r\n"
    async with await house.visitor() as visitor:
        visitor.send(ask(house, "POST", length if framing == "length" else "Transfer-Encoding: chunked\r\n"))
        async with asyncio.timeout(visitor.timeout):
            assert await came.get() == b""
            for number in range(PIECES):
                visitor.send(chunk(piece(number)) if framing == "chunked" else piece(number))
                assert await came.get() == piece(number)
        if framing == "chunked":
            visitor.send(b"0\r\n\r\n")
        assert (await visitor.response(b"POST")).status == 200


async def test_both_directions_of_one_exchange_flow_at_once(house: House) -> None:
    """An answer may run while its request still does: each piece sent comes back before the next is sent."""

    async def echo(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        async for data in request.reader:
            yield chunk(data)
        yield b"0\r\n\r\n"

    house.script = echo
    async with await house.visitor() as visitor:
        visitor.send(ask(house, "POST", "Transfer-Encoding: chunked\r\n"))
        body = aiter(visitor.body(await visitor.head(), b"POST"))
        for number in range(PIECES):
            visitor.send(chunk(piece(number)))
            async with asyncio.timeout(visitor.timeout):
                assert await anext(body) == piece(number)
        visitor.send(b"0\r\n\r\n")
        async with asyncio.timeout(visitor.timeout):
            assert [rest async for rest in body] == []


async def test_a_stalled_reader_does_not_stop_another(house: House) -> None:
    """While one visitor does not read, another gets all of the same; and the first one too, once it reads."""
    size = 24 * 2**20

    async def pour(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        for data in pieces(size):
            yield data

    async def take_all(visitor: RawClient, head: Head) -> Meter:
        meter = Meter()
        async with asyncio.timeout(20.0):
            async for data in visitor.body(head):
                meter.add(data)
        return meter

    house.script = pour
    async with await house.visitor() as slow, await house.visitor() as quick:
        slow.send(ask(house))
        heads = [await slow.head()]
        slow.stream.pause()
        quick.send(ask(house))
        heads.append(await quick.head())
        for visitor, head in ((quick, heads[1]), (slow, heads[0])):
            meter = await take_all(visitor, head)
            assert (meter.size, meter.intact) == (size, True)


async def test_a_thousand_streams_idle_on_one_tunnel(house: House) -> None:
    """They are open at once and cost little, a request beside them is answered, and when there is news all have it."""
    count = 1000 if house.edge == "protocol" else 200
    news = asyncio.Event()

    async def idle(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        if request.target == b"/":
            yield chunk(b"data: hello\n\n") + b"0\r\n\r\n"
            return
        yield chunk(b"data: open\n\n")
        yield Wait(news)
        yield chunk(b"data: news\n\n") + b"0\r\n\r\n"

    async def open_one(number: int) -> RawClient:
        async with turns:
            visitor = await house.visitor(timeout=30.0)
            visitor.send(ask(house).replace(b" / ", b" /idle ", 1))
            await visitor.until(b"data: open\n\n\r\n")
            return visitor

    house.script = idle
    before = house.relay.rss()
    turns = asyncio.Semaphore(100)
    async with asyncio.TaskGroup() as group:
        opened = [group.create_task(open_one(number)) for number in range(count)]
    visitors = [task.result() for task in opened]
    try:
        async with await house.visitor() as beside:
            beside.send(ask(house))
            assert (await beside.response()).body == b"data: hello\n\n"
        if house.edge == "protocol":
            assert house.relay.rss() - before <= count * MOST_PER_STREAM
        assert not any(visitor.stream.left.is_set() or visitor.stream.unread() for visitor in visitors)
        news.set()
        heard = await asyncio.gather(*(visitor.until(b"0\r\n\r\n") for visitor in visitors))
        assert all(b"data: news\n\n" in each for each in heard)
    finally:
        for visitor in visitors:
            visitor.close()
