"""Raw HTTP on both ends: what was sent is what is seen, and every kind of end is told apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.child import eventually
from tests.support.messages import Malformed
from tests.support.rawhttp import CLOSE, FIN, RESET, RawClient, RawServer, Request, Step, Wait, chunk, exchange, ok

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_case_order_duplicates_and_trailers_are_kept() -> None:
    """Neither end changes a byte of head, chunks or trailers."""
    raw = (
        b"pOST //a/../%7e?q=1 HTTP/1.1\r\nhOst: x\r\nX-b:1\r\nx-B:  2 \r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;ext=1\r\nabc\r\n0\r\nX-Trail: t\r\n\r\n"
    )
    answer = b"HTTP/1.1 299 Odd reason\r\nSeT-Cookie: a\r\nset-cookie: b\r\ncontent-length: 2\r\n\r\nhi"
    async with RawServer(lambda request: answer) as server:
        response = await exchange(server.port, raw)
        request = server.requests[0]
    assert request.raw == raw
    assert request.head.line == b"pOST //a/../%7e?q=1 HTTP/1.1"
    assert request.headers[:3] == [(b"hOst", b"x"), (b"X-b", b"1"), (b"x-B", b"2")]
    assert (request.body, request.trailers) == (b"abc", [(b"X-Trail", b"t")])
    assert response.raw == answer
    assert (response.status, response.body, response.ended) == (299, b"hi", "clean")
    assert response.head is not None
    assert response.head.all("Set-Cookie") == [b"a", b"b"]


async def test_interim_heads_and_chunk_sizes_are_recorded() -> None:
    """1xx heads are listed apart, chunk sizes and trailers of the answer too."""
    parts = [b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
    parts += [chunk(b"ab"), chunk(b"c"), b"0\r\nT: 1\r\n\r\n"]
    async with RawServer(lambda request: parts) as server:
        response = await exchange(server.port, GET)
    assert [head.status for head in response.interim] == [103]
    assert (response.chunk_sizes, response.body, response.trailers) == ([2, 1, 0], b"abc", [(b"T", b"1")])


@pytest.mark.parametrize(
    ("framing", "command", "ended"),
    [
        ("Content-Length: 9", CLOSE, "eof"),
        ("Content-Length: 9", RESET, "reset"),
        ("Transfer-Encoding: chunked", FIN, "eof"),
        ("Transfer-Encoding: chunked\r\n\r\nfive", FIN, "malformed"),
        ("X: close-delimited", FIN, "clean"),
        ("X: close-delimited", RESET, "reset"),
    ],
)
async def test_every_end_is_told_apart(framing: str, command: Step, ended: str) -> None:
    """A body that breaks off is never clean, unless its end is the end of the bytes."""
    arrived = asyncio.Event()

    def handler(request: Request) -> Iterator[Step]:
        yield f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + b"12345"
        yield Wait(arrived)
        yield command

    async with RawServer(handler) as server, await RawClient.connect(server.port) as client:
        client.send(GET)
        reading = asyncio.create_task(client.response())
        await eventually(lambda: client.stream.received > 20)
        arrived.set()
        response = await reading
    assert response.ended == ended
    assert response.body == (b"" if "chunked" in framing else b"12345")


async def test_pipelined_requests_are_served_in_turn() -> None:
    """Two requests in one write give two answers on one connection."""
    async with RawServer(lambda request: ok(request.target)) as server:
        async with await RawClient.connect(server.port) as client:
            client.send(GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 "))
            assert [(await client.response()).body, (await client.response()).body] == [b"/1", b"/2"]
        assert server.connections == 1


async def test_head_and_304_have_no_body() -> None:
    """A length without a body is right where HTTP says so."""
    async with RawServer(lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") as server:
        response = await exchange(server.port, GET.replace(b"GET", b"HEAD"))
    assert (response.framing, response.ended) == ("none", "clean")


async def test_expect_is_answered_before_the_body() -> None:
    """A client that waits for 100 Continue gets it, then the answer."""
    async with RawServer(lambda request: ok(request.body)) as server, await RawClient.connect(server.port) as client:
        client.send(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await client.head()).status == 100
        client.send(b"ok")
        assert (await client.response()).body == b"ok"


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_a_client_that_leaves_is_recorded_while_the_handler_works(how: str) -> None:
    """The server knows when and how a client left, in the middle of an answer."""

    async def handler(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1"
        yield Wait(asyncio.Event())

    async with RawServer(handler) as server, await RawClient.connect(server.port) as client:
        client.send(GET)
        await client.until(b"\r\n\r\n1")
        client.reset() if how == "reset" else client.close()
        departure = await server.departure()
        assert departure.how == how
        assert departure.request is server.requests[0]


async def test_early_handlers_answer_before_the_body_is_there() -> None:
    """With `early` an answer can come while the upload still runs."""

    async def handler(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        async for piece in request.reader:
            yield chunk(piece.upper())
        yield b"0\r\n\r\n"

    async with RawServer(handler, early=True) as server, await RawClient.connect(server.port) as client:
        client.send(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nab")
        await client.until(b"2\r\nAB\r\n")
        client.send(b"cd")
        assert (await client.until(b"0\r\n\r\n")).startswith(b"2\r\nCD")


async def test_deliveries_are_counted_by_nonce() -> None:
    """Each head with an X-Nonce counts, also when its body never ends."""
    async with RawServer(lambda request: ok()) as server:
        for _ in range(2):
            await exchange(server.port, b"POST / HTTP/1.1\r\nX-Nonce: n1\r\nContent-Length: 0\r\n\r\n")
        async with await RawClient.connect(server.port) as client:
            client.send(b"POST / HTTP/1.1\r\nx-nonce: n2\r\nContent-Length: 5\r\n\r\n1")
            await server.received(3)
            client.reset()
            await server.departure(index=2)
        assert server.deliveries == {b"n1": 2, b"n2": 1}
        assert server.requests[2].broken == "reset"


async def test_a_handler_that_fails_fails_the_test() -> None:
    """An exception in a handler is not lost: the client is reset and leaving the server raises it."""

    def handler(request: Request) -> bytes:
        raise Malformed("the handler's own")

    def broken(request: Request) -> bytes:
        raise KeyError("the handler's own")

    with pytest.raises(KeyError, match="own"):
        async with RawServer(broken) as server:
            assert (await exchange(server.port, GET)).ended == "reset"
    async with RawServer(handler) as server:
        assert (await exchange(server.port, GET)).ended == "eof"
