"""What follows from the head of an answer, read once from equal bytes."""

from __future__ import annotations

import pytest

from relay.agent.answers import MOST_REMEMBERED, AnswerHead, AnswerReader
from relay.agent.parsers import PARSERS, ResponseHeadParser
from relay.exchange.errors import MalformedHead
from relay.exchange.framing import BodyDecoder, ChunkedBody, CloseBody, LengthBody
from relay.exchange.heads import ResponseHead, decode_response

both = pytest.mark.parametrize("parser", [make() for make in PARSERS.values()], ids=list(PARSERS))


def read(block: bytes, *, bodiless: bool = False) -> AnswerHead:
    return AnswerReader(PARSERS["httptools"]().parse).read(block, bodiless)


@both
@pytest.mark.parametrize(
    ("block", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, CLOSE\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nTransfer-Encoding: chunked\r\n\r\n", False),
    ],
)
def test_which_answers_keep_the_connection(parser: ResponseHeadParser, block: bytes, kept: bool) -> None:
    """RFC 9112 §9.3: HTTP/1.1 unless it says close, HTTP/1.0 only if it says keep-alive."""
    assert AnswerReader(parser.parse).read(block, bodiless=True).keeps is kept


@pytest.mark.parametrize(
    ("head", "bodiless", "body", "whole"),
    [
        (b"200 OK\r\nContent-Length: 5\r\n", False, LengthBody, 5),
        (b"200 OK\r\nContent-Length: 5\r\n", True, None, 0),
        (b"200 OK\r\nContent-Length: 0\r\n", False, None, 0),
        (b"304 Not Modified\r\nContent-Length: 5\r\n", False, None, 0),
        (b"204 No Content\r\n", False, None, 0),
        (b"200 OK\r\nTransfer-Encoding: chunked\r\n", False, ChunkedBody, None),
        (b"200 OK\r\nTransfer-Encoding: chunked\r\n", True, None, 0),
        (b"200 OK\r\n", False, CloseBody, None),
        (b"200 OK\r\n", True, None, 0),
        (b"200 OK\r\nConnection: close\r\nContent-Length: 5\r\n", False, LengthBody, None),
        (b"103 Early Hints\r\nContent-Length: 5\r\n", False, None, None),
        (b"101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", False, None, None),
    ],
)
def test_how_long_an_answer_is(head: bytes, bodiless: bool, body: type[BodyDecoder] | None, whole: int | None) -> None:
    """Its body's framing, and the size of all of it where that is known and the connection goes on."""
    block = b"HTTP/1.1 " + head + b"\r\n"
    answer = read(block, bodiless=bodiless)
    assert answer.whole == (-1 if whole is None else len(block) + whole)
    assert (answer.decoder is None) is (body is None)
    if answer.decoder is not None and body is not None:
        decoder = answer.decoder()
        assert isinstance(decoder, body)
        assert decoder is not answer.decoder()
        assert not isinstance(decoder, LengthBody) or decoder.left == 5


def test_what_is_sent_to_the_relay() -> None:
    """Status, reason and fields but for those of one hop."""
    answer = read(
        b"HTTP/1.1 200 Fine\r\nConnection: x-h\r\nX-H: 1\r\nKeep-Alive: 5\r\nA: b\r\nContent-Length: 1\r\n\r\n"
    )
    assert decode_response(answer.payload) == ResponseHead(200, b"Fine", [(b"A", b"b"), (b"Content-Length", b"1")])


@pytest.mark.parametrize("framing", [b"Content-Length: x", b"Transfer-Encoding: gzip", b"Content-Length: 1\r\n" * 2])
def test_a_framing_that_is_none_is_malformed(framing: bytes) -> None:
    """Of a final head, whatever was asked."""
    for bodiless in (False, True):
        with pytest.raises(MalformedHead):
            read(b"HTTP/1.1 200 OK\r\n" + framing.rstrip() + b"\r\n\r\n", bodiless=bodiless)


def test_equal_small_heads_are_read_once() -> None:
    """For requests that leave room for a body and for those that do not; a large head is read again each time."""
    reader = AnswerReader(PARSERS["httptools"]().parse)
    small = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    large = small[:-2] + b"A: " + b"x" * MOST_REMEMBERED + b"\r\n\r\n"
    assert reader.read(small, False) is reader.read(bytes(bytearray(small)), False)
    assert reader.read(small, True) is not reader.read(small, False)
    assert reader.read(large, False) is not reader.read(large, False)
