"""Response heads: both parsers agree on what is good, refuse what is bad, and keep what was sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.agent.parsers import MAX_HEAD, PARSERS, HeadCutter, ResponseHeadParser
from relay.exchange.errors import MalformedHead
from relay.exchange.heads import Fields, decode_response, encode_response

both = pytest.mark.parametrize("parser", [make() for make in PARSERS.values()], ids=list(PARSERS))


@both
@pytest.mark.parametrize(
    ("block", "status", "reason", "fields"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200, b"OK", [(b"A", b"b")]),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", 404, b"Not Found", []),
        (b"HTTP/1.1 200\r\nA: b\r\n\r\n", 200, b"", [(b"A", b"b")]),
        (b"HTTP/1.1 204 \r\n\r\n", 204, b"", []),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 100, b"Continue", []),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 103, b"Early Hints", [(b"Link", b"</a>")]),
        (b"HTTP/1.1 600 Odd\r\n\r\n", 600, b"Odd", []),
        (b"HTTP/1.1 200 caf\xe9\r\nX: \xff\tz\r\n\r\n", 200, b"caf\xe9", [(b"X", b"\xff\tz")]),
        (b"HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n", 304, b"N", [(b"Content-Length", b"5")]),
    ],
)
def test_good_heads(parser: ResponseHeadParser, block: bytes, status: int, reason: bytes, fields: Fields) -> None:
    """Status, reason and fields come out as they were sent."""
    head = parser.parse(block)
    assert (head.status, head.reason, head.fields) == (status, reason, fields)


@both
def test_case_order_and_duplicates_are_kept(parser: ResponseHeadParser) -> None:
    """Fields are a list, not a dictionary; white space around a value is no part of it."""
    block = b"HTTP/1.1 200 OK\r\nseT-cooKie: a=1\r\nX:\r\nSet-Cookie: b=2\r\nx: \t v w \t\r\nseT-cooKie: a=1\r\n\r\n"
    expected = [(b"seT-cooKie", b"a=1"), (b"X", b""), (b"Set-Cookie", b"b=2"), (b"x", b"v w"), (b"seT-cooKie", b"a=1")]
    assert parser.parse(block).fields == expected


@both
def test_switching_protocols(parser: ResponseHeadParser) -> None:
    """A 101 is a head like any other."""
    block = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    head = parser.parse(block)
    assert head.status == 101
    assert head.fields == [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


@both
@pytest.mark.parametrize(
    "block",
    [
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1\t200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\x07K\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b" HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 " + b"r" * 256 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_bad_status_lines(parser: ResponseHeadParser, block: bytes) -> None:
    """A status line is HTTP/1.0 or 1.1, one space, three digits and a printable reason that the wire can carry."""
    with pytest.raises(MalformedHead):
        parser.parse(block)


@both
@pytest.mark.parametrize(
    "lines",
    [
        b"A: b\r\n c",
        b"A: b\r\n\tc",
        b" A: b",
        b"A: b\nB: c",
        b"A: b\rB: c",
        b"A: b\r\r\nB: c",
        b"A: b\n",
        b"A : b",
        b"A\t: b",
        b"no colon",
        b": x",
        b"A B: c",
        b"A(: c",
        b"A\x00: c",
        b"\xe9: c",
        *(b"A: b" + bytes((code,)) + b"c" for code in (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F)),
        b"Content-Length: 4\r\nContent-Length: 5",
        b"\r\n".join(b"A%d: b" % number for number in range(257)),
    ],
)
def test_bad_fields(parser: ResponseHeadParser, lines: bytes) -> None:
    """Control characters, folding, lines without CRLF, no tokens as names, too many fields: each has a reason."""
    with pytest.raises(MalformedHead) as caught:
        parser.parse(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n\r\n")
    assert 3 < len(str(caught.value)) < 200


@given(st.binary(max_size=80), st.sampled_from(sorted(PARSERS)))
def test_any_bytes_are_a_head_or_malformed(junk: bytes, name: str) -> None:
    """Nothing else is raised, and what is let through can be carried by the wire."""
    try:
        head = PARSERS[name]().parse(b"HTTP/1.1 200 OK\r\nA: b" + junk + b"\r\n\r\n")
    except MalformedHead:
        return
    assert decode_response(encode_response(head)) == head


def cut(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    cutter = HeadCutter()
    heads: list[bytes] = []
    rest = b""
    for piece in pieces:
        head, rest = cutter.feed(piece)
        if head:
            heads.append(head)
    return heads, rest


@given(st.data())
def test_head_is_cut_out_of_any_pieces(data: st.DataObject) -> None:
    """However the bytes are split, one head comes out whole."""
    block = b"HTTP/1.1 200 OK\r\nA: b\r\nLong: " + b"x" * 50 + b"\r\n\r\n"
    marks = sorted(data.draw(st.sets(st.integers(1, len(block) - 1), max_size=20)))
    pieces = [block[start:end] for start, end in zip([0, *marks], [*marks, len(block)], strict=True)]
    assert cut(pieces) == ([block], b"")


def test_bytes_behind_a_head_are_given_back() -> None:
    """A body that comes with its head is not lost, and the next head starts afresh."""
    assert HeadCutter().feed(b"HTTP/1.1 200 OK\r\n\r\nbody") == (b"HTTP/1.1 200 OK\r\n\r\n", b"body")
    assert cut([b"HTTP/1.1 100 C\r", b"\n\r\nHT"]) == ([b"HTTP/1.1 100 C\r\n\r\n"], b"HT")


def test_head_has_a_bound() -> None:
    """A head of exactly the bound passes; one byte more does not, and a drip of it fails as soon as it is passed."""
    start = b"HTTP/1.1 200 OK\r\nA: "
    exact = start + b"x" * (MAX_HEAD - len(start) - 4) + b"\r\n\r\n"
    assert HeadCutter().feed(exact) == (exact, b"")
    with pytest.raises(MalformedHead, match="above 65536 bytes"):
        HeadCutter().feed(start + b"x" + exact[len(start) :])
    cutter = HeadCutter()
    fed = len(start)
    cutter.feed(start)
    with pytest.raises(MalformedHead, match="above 65536 bytes"):
        while True:
            cutter.feed(b"x" * 100)
            fed += 100
    assert fed < MAX_HEAD


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"S", "not HTTP/1"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP/1"),
        (b"HTTP/2", "not HTTP/1"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "https://"),
        (b"HTTP/1.1 200 OK\n\nbody", "CRLF"),
        (b"HTTP/1.1 200 OK\r\nA: b\n", "CRLF"),
    ],
)
def test_what_cannot_become_a_head_fails_early(data: bytes, says: str) -> None:
    """Another protocol is told at its first bytes, not after a timeout."""
    with pytest.raises(MalformedHead, match=says):
        HeadCutter().feed(data)


def test_bare_lf_is_found_across_pieces() -> None:
    """CR at the end of one piece and LF at the start of the next are one line end, LF alone is none."""
    assert cut([b"HTTP/1.1 200 OK\r", b"\nA: b\r", b"\n\r", b"\n"])[0] == [b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"]
    with pytest.raises(MalformedHead, match="CRLF"):
        cut([b"HTTP/1.1 200 OK", b"\nA: b"])


def test_parsers_agree() -> None:
    """What one parser lets through the other reads the same."""
    makes: list[Callable[[], ResponseHeadParser]] = list(PARSERS.values())
    block = b'HTTP/1.1 201 Made It\r\nServer: x\r\nContent-Type: text/plain; a="b"\r\nETag: W/"1"\r\n\r\n'
    first, second = (make().parse(block) for make in makes)
    assert first == second
