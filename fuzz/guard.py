"""Target: the guard, given heads as a visitor might send them. One that passes has one meaning, here and in h11."""

from __future__ import annotations

from collections.abc import Iterator

import atheris
import h11

from fuzz.harness import run

with atheris.instrument_imports(include=["relay.edge.guard", "relay.edge.hosts", "relay.exchange"]):
    from relay.edge.answers import Code
    from relay.edge.guard import METHODS, Body, Refusal
    from relay.edge.guard import check as judge
    from relay.exchange.headers import HOP_BY_HOP
    from relay.exchange.heads import Fields, RequestHead, decode_request, encode_request

HOST = b"Host: mcp.tunnels.localhost:8080\r\n"


def split(data: bytes) -> tuple[bytes, bytes, str, Fields]:
    """(method, target, version, fields) as a careless parser might split a head: everything odd is let through."""
    line, _, rest = data.partition(b"\r\n")
    method, _, tail = line.partition(b" ")
    target, _, version = tail.rpartition(b" HTTP/")
    fields = []
    for row in rest.split(b"\r\n"):
        name, colon, value = row.partition(b":")
        if colon:
            fields.append((name, value[1:] if value.startswith(b" ") else value))
    return method, target, version.decode("latin-1"), fields


def check(data: bytes) -> None:
    """What passes is sound, is judged the same when it is written anew, and is what h11 reads."""
    try:
        request = judge(*split(data))
    except Refusal as refusal:
        assert refusal.code in (Code.BAD_REQUEST, Code.METHOD_NOT_SUPPORTED, Code.HEAD_TOO_LARGE)
        return
    assert request.method in METHODS
    assert request.target.startswith(b"/") or request.target == b"*"
    names = [name.lower() for name, _ in request.fields]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") <= 1
    carried = {b"connection", b"upgrade"} if request.upgrade else set()
    assert {name for name in names if name in HOP_BY_HOP} == carried
    assert not (request.upgrade and request.body is not Body.NONE)
    assert (request.body is Body.LENGTH) == bool(request.length)
    head = RequestHead(request.method, request.target, request.fields, "mcp", "r", request.upgrade)
    assert decode_request(encode_request(head)) == head
    version = "1.0" if request.http10 else "1.1"
    extra = [(b"Transfer-Encoding", b"chunked")] if request.body is Body.CHUNKED else []
    again = judge(request.method, request.target, version, [*request.fields, *extra])
    assert (again.fields, again.body, again.length, again.host) == (
        request.fields, request.body, request.length, request.host,
    )  # fmt: skip
    h11_reads(request.method, request.target, [*request.fields, *extra])


def h11_reads(method: bytes, target: bytes, fields: Fields) -> None:
    """What goes on to a local service is one whole request to a strict parser, with the same fields."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    lines = b"".join([b"%b: %b\r\n" % field for field in fields])
    connection.receive_data(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, lines))
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (method, target)
    seen = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
    assert seen == [(name, value) for name, value in fields]


def seeds() -> Iterator[bytes]:
    """Heads that pass, and the tricks of DESIGN's guard."""
    for line, fields in (
        (b"GET / HTTP/1.1", b""),
        (b"POST /mcp?x=%2F HTTP/1.1", b"Content-Length: 5\r\nContent-Type: text/json\r\nExpect: 100-continue\r\n"),
        (b"POST /mcp HTTP/1.1", b"Transfer-Encoding: chunked\r\nConnection: keep-alive, x-a\r\nX-A: 1\r\n"),
        (b"GET /ws HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n"),
        (b"GET / HTTP/1.1", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"),
        (b"GET http://mcp.tunnels.localhost:8080/a HTTP/1.1", b"Accept: text/html\r\n"),
        (b"OPTIONS * HTTP/1.0", b"Origin: null\r\n"),
        (b"POST / HTTP/1.1", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        (b"POST / HTTP/1.1", b"Content-Length: 5\r\nContent-Length: 5\r\n"),
        (b"GET / HTTP/1.1", b"Connection: host, content-length\r\n"),
        (b"GET / HTTP/1.1", b"Host: [::1]:80\r\n"),
        (b"CONNECT a:443 HTTP/1.1", b""),
        (b"GET / HTTP/1.0", b"Transfer-Encoding: chunked\r\n"),
    ):
        yield line + b"\r\n" + HOST + fields + b"\r\n"


if __name__ == "__main__":
    run("guard", check, seeds())
