"""A response as a visitor's connection wants it: framing by version and length, hygiene, heads of 1xx and 101."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.edge.response import ResponseWriter, encode_informational, encode_switch, writer_for
from relay.exchange.framing import encode_chunk, encode_last_chunk
from relay.exchange.heads import Fields, ResponseHead


def written(
    head: ResponseHead, length: int | None, *, no_body: bool = False, http10: bool = False, keep_alive: bool = True
) -> tuple[ResponseWriter, bytes]:
    writer = writer_for(keep_alive and not http10, length is not None or no_body, http10)
    return writer, writer.head(head)


def test_a_length_is_passed_on() -> None:
    """The head as it came, in order and case; the body as it is; nothing behind it."""
    fields: Fields = [(b"Content-Length", b"5"), (b"set-cookie", b"a"), (b"Set-Cookie", b"b"), (b"Date", b"now")]
    writer, head = written(ResponseHead(200, b"Very OK", fields), 5)
    assert head == (b"HTTP/1.1 200 Very OK\r\nContent-Length: 5\r\nset-cookie: a\r\nSet-Cookie: b\r\nDate: now\r\n\r\n")
    assert not writer.chunked
    assert writer.keep_alive
    assert not writer.by_close


def test_without_a_length_a_body_is_chunked() -> None:
    """Each part will leave as a chunk of its own."""
    writer, head = written(ResponseHead(200, b"", []), None)
    assert head == b"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n"
    assert writer.chunked


def test_http10_has_the_body_end_with_the_connection() -> None:
    """No chunks for a visitor that does not know them, and an abort there must not look like an end."""
    writer, head = written(ResponseHead(200, b"OK", []), None, http10=True)
    assert head == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    assert not writer.chunked
    assert writer.by_close
    writer, head = written(ResponseHead(200, b"OK", [(b"Content-Length", b"5")]), 5, http10=True)
    assert not writer.by_close


@pytest.mark.parametrize("http10", [False, True])
def test_where_no_body_follows_nothing_is_framed(http10: bool) -> None:
    """HEAD, 204, 304: fields as they came, no chunks, and the connection may go on."""
    writer, head = written(ResponseHead(304, b"", [(b"ETag", b"x")]), None, no_body=True, http10=http10)
    assert b"chunked" not in head
    assert not writer.chunked
    assert not writer.by_close


def test_an_end_of_the_connection_is_said() -> None:
    """`Connection: close`, once, and by us only."""
    _, head = written(ResponseHead(200, b"OK", [(b"Content-Length", b"0")]), 0, keep_alive=False)
    assert head.count(b"Connection: close\r\n") == 1
    _, head = written(ResponseHead(200, b"OK", [(b"Content-Length", b"0"), (b"Connection", b"close")]), 0)
    assert b"onnection" not in head


@pytest.mark.parametrize(
    "name", [b"Transfer-Encoding", b"CONNECTION", b"keep-alive", b"Upgrade", b"Proxy-Authenticate"]
)
def test_what_belongs_to_one_hop_is_dropped(name: bytes) -> None:
    """An agent is authenticated, not trusted: its hop's fields, and what its Connection lists, do not pass."""
    fields: Fields = [
        (name, b"chunked"),
        (b"X-A", b"1"),
        (b"Connection", b"x-a, content-length"),
        (b"content-length", b"3"),
    ]
    _, head = written(ResponseHead(200, b"OK", fields), 3)
    assert head == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"


def test_a_switch_and_informational_heads() -> None:
    """101 names our own upgrade, whatever the agent said; other 1xx have fields only."""
    head = ResponseHead(
        101, b"Switching", [(b"Sec-WebSocket-Accept", b"x"), (b"upgrade", b"h2c"), (b"connection", b"y")]
    )
    assert encode_switch(head) == (
        b"HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert encode_informational(ResponseHead(103, b"Early Hints", [(b"Link", b"</a>")])) == (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    )


@given(st.lists(st.binary(min_size=1, max_size=70), max_size=6), st.booleans())
def test_another_implementation_reads_what_is_written(parts: list[bytes], declared: bool) -> None:
    """h11 reads the same body from either framing."""
    length = sum(map(len, parts)) if declared else None
    fields: Fields = [] if length is None else [(b"Content-Length", b"%d" % length)]
    writer, head = written(ResponseHead(200, b"OK", fields), length)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(head + b"".join(encode_chunk(part) if writer.chunked else part for part in parts))
    if writer.chunked:
        client.receive_data(encode_last_chunk([]))
    assert isinstance(client.next_event(), h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == b"".join(parts)
