"""Bytes arrive as they were sent, both ways: every exchange here is seen direct as well, and must not differ.

What may differ is `differences`' list and nothing else; a test states beside it what it is about, so that two equal
mistakes do not pass for a success.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import pytest

from tests.support.child import eventually
from tests.support.pattern import whole
from tests.support.rawhttp import CLOSE, CONTINUE, Request, Step, Wait, chunk, ok
from tests.system.differences import Way, observed, predict
from tests.system.edges import needs, remembered
from tests.system.twoways import OK, PARSERS, House, Script, Seen

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("house")]

# What llhttp knows, without CONNECT, TRACE and HTTP/2's PRI.
METHODS = (
    b"DELETE GET HEAD POST PUT OPTIONS COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL"
    b" REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK SOURCE"
    b" QUERY"
).split()
TARGETS = (
    "/a%2Fb%2f%00%C3%A9/%zz/%",
    "//a//b///",
    "/a/../b/./c/..",
    "/..%2f..//",
    "/?",
    "/?a=1&a=2&b=%26+%20;c",
    "/a?b?c#d",
    "/~!$&'()*+,;=:@-._",
    "/" + "x" * 8000,
)
TEXT = 'Text in latin-1: \xe9\xff "quoted"\tand tabbed'.encode("latin-1")
T = TypeVar("T")
SIZES = (0, 1, 70_001)


def ask(
    house: House, *lines: str | bytes, line: str = "GET / HTTP/1.1", name: str = "httptools", body: bytes = b""
) -> bytes:
    """A request to the tunnel `name`."""
    encoded = [each if isinstance(each, bytes) else each.encode("latin-1") for each in lines]
    return b"\r\n".join([line.encode(), b"Host: " + house.host(name), *encoded, b"", body])


async def alike(house: House, request: bytes, script: Script = OK, name: str = "httptools") -> Seen:
    """What was seen through the tunnel, which is what was seen direct but for the list."""
    direct, tunnelled = await house.both(request, script)
    way = Way(house.host(name), house.local_authority, request.partition(b"\r\n")[0])
    assert remembered(observed(tunnelled), house.edge) == remembered(predict(direct, way), house.edge)
    return tunnelled


def either(house: House, kept: T, lost: T) -> T:
    """What is kept by our own edge, or what an ASGI server leaves of it."""
    return kept if house.edge == "protocol" else lost


def pairs(house: House, lines: Sequence[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Fields of these lines as they arrive."""
    split = [line.split(b":", 1) for line in lines]
    return tuple((either(house, name, name.lower()), value.strip(b" \t")) for name, value in split)


def answer(line: str, *fields: str | bytes, body: Sequence[bytes] = (), close: bool = False) -> Script:
    """An answer of these lines and pieces."""
    lines = [each if isinstance(each, bytes) else each.encode("latin-1") for each in (line, *fields)]
    return Script(b"\r\n".join([*lines, b"", b""]), body, close=close)


# ---- requests --------------------------------------------------------------------------------------------------------


async def test_every_method(house: House) -> None:
    """All methods that llhttp knows arrive, with and without a body."""
    for method in METHODS:
        line = f"{method.decode()} /m HTTP/1.1"
        script = OK if method != b"HEAD" else answer("HTTP/1.1 200 OK", "Content-Length: 2")
        assert (await alike(house, ask(house, line=line), script)).arrived.method == method
        seen = await alike(house, ask(house, "Content-Length: 4", line=line, body=b"body"), script)
        assert (seen.arrived.method, seen.arrived.body) == (method, b"body")


async def test_targets_are_not_touched(house: House) -> None:
    """Escapes, empty and dotted segments and queries arrive as they were sent, `*` too."""
    for target in TARGETS:
        seen = await alike(house, ask(house, line=f"GET {target} HTTP/1.1"))
        assert seen.arrived.target == either(house, target, target.removesuffix("?")).encode()
    assert (await alike(house, ask(house, line="OPTIONS * HTTP/1.1"))).arrived.target == b"*"
    absolute = f"GET http://{house.host('httptools').decode()}/a%2F?b HTTP/1.1"
    assert (await alike(house, ask(house, line=absolute))).arrived.target == b"/a%2F?b"


async def test_request_fields_keep_order_case_and_duplicates(house: House) -> None:
    """Names keep their case, fields their order, repeated ones are not joined, values keep every byte."""
    fields = [b"X-B: 1", b"x-a: 2", b"X-b: 3", b"Cookie: a=b", b"COOKIE: c=d", b"X-Empty:", b"!#$%&'*+-.^_`|~: odd"]
    fields += [b"X-Text: " + TEXT, b"Accept: a", b"Accept: b", b"Mcp-Session-Id: S", b"Authorization: Bearer x=="]
    seen = await alike(house, ask(house, *fields))
    assert seen.arrived.headers[1 : len(fields) + 1] == pairs(house, fields)


async def test_request_bodies(house: House) -> None:
    """By length and chunked; empty, one byte, more than a window; the trailers of a chunked one."""
    for size in SIZES:
        body = whole(size)
        seen = await alike(house, ask(house, f"Content-Length: {size}", line="PUT / HTTP/1.1", body=body))
        assert (seen.arrived.framing, seen.arrived.body) == ("length", body)
        chunks = b"".join(chunk(piece) for piece in (body[:1], body[1:]) if piece)
        trailed = chunks + b"0;last\r\nX-Sum: 1\r\nx-sum: 2\r\nContent-Length: 7\r\n\r\n"
        request = ask(house, "Transfer-Encoding: chunked", "Trailer: X-Sum", line="PUT / HTTP/1.1", body=trailed)
        seen = await alike(house, request)
        assert (seen.arrived.framing, seen.arrived.body) == ("chunked", body)
        assert seen.arrived.trailers == either(house, ((b"X-Sum", b"1"), (b"x-sum", b"2")), ())


async def test_an_origin_is_rewritten_only_where_it_is_the_tunnels_own(house: House) -> None:
    """The tunnel's own origin becomes the local service's; another, also of another port or scheme, stays."""
    own = b"http://" + house.host("httptools")
    for origin in (own, b"http://evil.example", b"https" + own[4:], own.rpartition(b":")[0] + b":1", b"null"):
        seen = await alike(house, ask(house, b"Origin: " + origin))
        expected = b"http://" + house.local_authority if origin == own else origin
        assert dict(seen.arrived.headers)[either(house, b"Origin", b"origin")] == expected


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARSERS)
async def test_answer_fields_keep_order_case_and_duplicates(house: House, name: str) -> None:
    """As for requests, with either parser of the agent: `Set-Cookie` above all."""
    fields = [b"Set-Cookie: a=1; Path=/", b"X-B: 1", b"SET-cookie: b=2, c", b"x-b: 3", b"X-Text: " + TEXT, b"Vary:"]
    fields += [b"WWW-Authenticate: A", b"www-authenticate: B"]
    seen = await alike(house, ask(house, name=name), answer("HTTP/1.1 200 OK", *fields, "Content-Length: 0"), name)
    kept = remembered(seen, house.edge).answered.headers
    assert kept[: len(fields)] == pairs(house, fields)


@pytest.mark.parametrize("name", PARSERS)
async def test_answer_bodies(house: House, name: str) -> None:
    """By length, chunked and until close; empty, one byte, more than a window; trailers."""
    ask_it = ask(house, name=name)
    for size in SIZES:
        body = whole(size)
        seen = await alike(house, ask_it, answer("HTTP/1.1 200 OK", f"Content-Length: {size}", body=[body]), name)
        assert (seen.answered.framing, seen.answered.body) == ("length", body)
        chunks = [chunk(body[:1]), chunk(body[1:])] if size > 1 else [chunk(body)] if size else []
        chunks.append(b"0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n")
        seen = await alike(house, ask_it, answer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=chunks), name)
        assert seen.answered.body == body
        assert seen.answered.trailers == either(house, ((b"X-Sum", b"1"), (b"x-sum", b"2")), ())
        for version in ("HTTP/1.1", "HTTP/1.0"):
            seen = await alike(house, ask_it, answer(f"{version} 200 OK", body=[body], close=True), name)
            assert (seen.answered.framing, seen.answered.body, seen.answered.ended) == ("chunked", body, "clean")


@pytest.mark.parametrize("name", PARSERS)
async def test_answers_without_a_body(house: House, name: str) -> None:
    """HEAD, 204 and 304 have none whatever their fields say, and the connection goes on to the next request."""
    heads = {
        "HEAD": ["HTTP/1.1 200 OK", "Content-Length: 1000"],
        "GET": ["HTTP/1.1 204 No Content"],
        "PUT": ["HTTP/1.1 304 Not Modified", "Content-Length: 1000", 'ETag: "x"'],
        "POST": ["HTTP/1.1 304 Not Modified", "Transfer-Encoding: chunked"],
    }
    for method, lines in heads.items():
        seen = await alike(house, ask(house, name=name, line=f"{method} / HTTP/1.1"), answer(*lines), name)
        assert (seen.answered.framing, seen.answered.body) == ("none", b"")
    async with await house.visitor() as visitor:
        for method, lines in heads.items():
            house.play(answer(*lines))
            visitor.send(ask(house, name=name, line=f"{method} / HTTP/1.1"))
            response = await visitor.response(method.encode())
            assert response.status == int(lines[0].split()[1])


@pytest.mark.parametrize("name", PARSERS)
async def test_status_lines(house: House, name: str) -> None:
    """Any status from 200 to 999 and any reason, none too."""
    lines = ["200 ", "207 Multi-Status", "299 x", "418 I'm a  teapot: \xe9", "599 Custom"]
    for line in lines + either(house, ["999 Far"], []):
        seen = await alike(house, ask(house, name=name), answer(f"HTTP/1.1 {line}", "Content-Length: 0"), name)
        whole_line = f"HTTP/1.1 {line}".encode("latin-1")
        assert seen.answered.line.startswith(either(house, whole_line, whole_line[:12]))


@pytest.mark.parametrize("name", PARSERS)
async def test_interim_answers_come_before_the_final_one(house: House, name: str) -> None:
    """A 103 with its fields is there while the local service still thinks about the final head."""
    needs(house.edge, "interim")
    go_on = asyncio.Event()

    async def think(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n"
        yield Wait(go_on)
        yield b"HTTP/1.1 102 Processing\r\n\r\n" + ok(b"done")

    house.script = think
    async with await house.visitor() as visitor:
        visitor.send(ask(house, name=name))
        hints = await visitor.head()
        assert (hints.status, hints.all("link")) == (103, [b"</a.css>; rel=preload", b"</b.js>"])
        go_on.set()
        response = await visitor.response()
        assert [head.status for head in response.interim] == [102]
        assert response.body == b"done"


# ---- both ways at once -----------------------------------------------------------------------------------------------


async def test_expectation_is_met_by_the_local_service(house: House) -> None:
    """The head alone arrives, `100 Continue` comes from the local service, and only then the body is sent."""
    house.play(OK)
    house.local.requests.clear()
    async with await house.visitor() as visitor:
        visitor.send(ask(house, "Expect: 100-continue", "Content-Length: 4", line="POST / HTTP/1.1"))
        interim = await visitor.head()
        if house.edge == "protocol":
            assert interim.raw == CONTINUE
            assert house.local.requests[-1].body == b""
        assert interim.status == 100
        visitor.send(b"body")
        assert (await visitor.response(b"POST")).status == 200
        assert house.local.requests[-1].body == b"body"


async def test_expectation_that_fails(house: House) -> None:
    """A local service that refuses at the head: the visitor sees that answer and no `100`, and sends no body."""
    needs(house.edge, "continue")

    async def refuse(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"
        yield CLOSE

    house.script = refuse
    async with await house.visitor() as visitor:
        visitor.send(ask(house, "Expect: 100-continue", "Content-Length: 4", line="POST / HTTP/1.1"))
        response = await visitor.response(b"POST")
        assert (response.interim, response.status, response.body) == ([], 417, b"no")


@pytest.mark.parametrize("framing", ["Content-Length: 2000000", "Transfer-Encoding: chunked"])
async def test_an_answer_that_comes_while_the_upload_still_runs(house: House, framing: str) -> None:
    """A final answer leaves at once, whole, and the rest of the upload still arrives; then the connection serves on."""
    needs(house.edge, "early")
    half = whole(1_000_000)
    wire = chunk(half) if "chunked" in framing else half

    async def early(request: Request) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"
        await request.read()

    house.script = early
    house.local.requests.clear()
    async with await house.visitor() as visitor:
        visitor.send(ask(house, framing, line="POST / HTTP/1.1"))
        await visitor.send_all(wire)
        response = await visitor.response(b"POST")
        assert (response.status, response.body, response.ended) == (200, b"early", "clean")
        await visitor.send_all(wire + (b"0\r\n\r\n" if "chunked" in framing else b""))
        house.play(OK)
        visitor.send(ask(house, line="GET /next HTTP/1.1"))
        assert (await visitor.response()).body == b"ok"
    # On another connection than the request behind it, and maybe read to its end later.
    await eventually(lambda: house.local.requests[0].body == half + half)


async def test_an_upload_that_is_refused_at_its_head(house: House) -> None:
    """A local service that answers and closes without reading: its answer is seen whole all the same."""

    async def refuse(request: Request) -> AsyncIterator[Step]:
        await request.stream.exactly(1000)
        yield b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much"
        yield CLOSE

    needs(house.edge, "early")
    house.script = refuse
    for _ in range(10):
        async with await house.visitor() as visitor:
            visitor.send(ask(house, "Content-Length: 8000000", line="POST / HTTP/1.1"))
            pushing = asyncio.create_task(visitor.send_all(whole(8_000_000)))
            response = await visitor.response(b"POST")
            assert (response.status, response.body, response.ended) == (413, b"too much", "clean")
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    """A hundred requests in one write, every second one with a body: the answers come in order, each its own."""

    async def echo(request: Request) -> AsyncIterator[Step]:
        yield ok(request.target + b" " + await request.read())

    house.script = echo
    requests = []
    for number in range(100):
        lines = ["Content-Length: 3"] if number % 2 else ["Transfer-Encoding: chunked"] if number % 4 == 2 else []
        body = b"odd" if number % 2 else b"1\r\nx\r\n0\r\n\r\n" if number % 4 == 2 else b""
        line = f"{'POST' if lines else 'GET'} /{number} HTTP/1.1"
        requests.append((ask(house, *lines, line=line, body=body), b"odd" if number % 2 else b"x" if lines else b""))
    async with await house.visitor() as visitor:
        visitor.send(b"".join(request for request, _ in requests))
        for number, (_, body) in enumerate(requests):
            assert (await visitor.response()).body == b"/%d %b" % (number, body)


@pytest.mark.parametrize("name", PARSERS)
async def test_a_visitor_in_http10(house: House, name: str) -> None:
    """It gets no chunks, no `1xx` and no trailers; what has no length ends with the connection, which closes."""
    chunked = [chunk(b"abc"), b"0\r\nX-Sum: 1\r\n\r\n"]
    scripts = (
        (answer("HTTP/1.1 200 OK", "Content-Length: 2", body=[b"ok"]), "length", b"ok"),
        (answer("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=chunked), "close", b"abc"),
        (answer("HTTP/1.1 200 OK", body=[b"abc"], close=True), "close", b"abc"),
    )
    for script, framing, body in scripts:
        script.interim = [b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"]
        for fields in ([], ["Expect: 100-continue"], ["Connection: keep-alive"]):
            request = ask(house, *fields, "Content-Length: 1", line="POST / HTTP/1.0", name=name, body=b"x")
            seen = await alike(house, request, script, name)
            assert (seen.answered.framing, seen.answered.body, seen.answered.ended) == (framing, body, "clean")
            assert seen.answered.interim == ()
            house.play(script)
            async with await house.visitor() as visitor:
                visitor.send(request)
                await visitor.response(b"POST")
                assert await visitor.rest() == (b"", "eof")
