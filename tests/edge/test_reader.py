"""One head from bytes in any pieces: bounded, split off exactly, refused early, parsed strictly."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.edge.answers import Code
from relay.edge.guard import MAX_FIELDS, MAX_HEAD, METHODS, Refusal, check
from relay.edge.reader import HeadReader

HEAD = b"POST /a?b=%20c HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one:  2 \r\nEmpty:\r\n\r\n"


def refusal(data: bytes, *, reader: HeadReader | None = None) -> tuple[Code, str]:
    """How bytes that come at once are refused: by finding, by parsing, or by the guard behind it."""
    reader = reader or HeadReader()
    with pytest.raises(Refusal) as caught:
        end = reader.find_end(data)
        assert end, "neither found nor refused"
        check(*reader.parse(data[:end]))
    return caught.value.code, caught.value.message


def test_a_head_is_split_off_exactly() -> None:
    """The end is behind the blank line; what follows, whatever it is, is not looked at."""
    reader = HeadReader()
    for rest in (b"", b"body", b"\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n"):
        assert reader.find_end(HEAD + rest) == len(HEAD)


def test_a_head_is_parsed_as_it_stands() -> None:
    """Method, target untouched, version, fields in order with their case; space around values is gone."""
    method, target, version, fields = HeadReader().parse(HEAD)
    assert (method, target, version) == (b"POST", b"/a?b=%20c", "1.1")
    assert fields == [(b"Host", b"x"), (b"X-One", b"1"), (b"x-one", b"2"), (b"Empty", b"")]


@given(st.lists(st.integers(1, len(HEAD) - 1), max_size=8))
def test_a_head_may_come_in_any_pieces(cuts: list[int]) -> None:
    """Nothing is found before all is there, and then the same as at once."""
    reader = HeadReader()
    for at in sorted(set(cuts)):
        assert reader.find_end(HEAD[:at]) == 0
    assert reader.find_end(HEAD + b"more") == len(HEAD)
    assert reader.parse(HEAD)[1] == b"/a?b=%20c"


def test_heads_follow_each_other_on_one_reader() -> None:
    """Requests without a body use one parser; behind one with a body, or an upgrade, it is forgotten."""
    reader = HeadReader()
    plain = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
    for number in range(5):
        head = plain % number
        assert reader.find_end(head) == len(head)
        assert reader.parse(head)[1] == b"/%d" % number
    for extra in (
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
    ):
        head = b"POST /body HTTP/1.1\r\nHost: x\r\n" + extra + b"\r\n"
        assert reader.parse(head)[0] == b"POST"
        reader.forget()
        assert reader.parse(plain % 7)[1] == b"/7"


@pytest.mark.parametrize("upgrade", [b"h2c", b"TLS/1.0, websocket", b"foo"])
def test_an_upgrade_that_is_passed_over_does_not_stop_the_parser(upgrade: bytes) -> None:
    """The connection goes on as HTTP/1.1: the next head is read as any."""
    reader = HeadReader()
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n\r\n" % upgrade
    assert reader.parse(head)[0] == b"GET"
    method, target, _, fields = reader.parse(b"PUT /next HTTP/1.1\r\nHost: y\r\n\r\n")
    assert (method, target, fields) == (b"PUT", b"/next", [(b"Host", b"y")])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_that_passes_the_guard_is_parsed(method: bytes) -> None:
    """llhttp knows them all."""
    assert HeadReader().parse(b"%b / HTTP/1.1\r\nHost: x\r\n\r\n" % method)[0] == method


BAD = [
    (b"NOTAMETHOD / HTTP/1.1\r\nHost: x\r\n\r\n", Code.METHOD_NOT_SUPPORTED),
    (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", Code.METHOD_NOT_SUPPORTED),
    (b"GET /\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\nHost: x\n\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Code.BAD_REQUEST),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Code.BAD_REQUEST),
    (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", Code.METHOD_NOT_SUPPORTED),
    (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", Code.METHOD_NOT_SUPPORTED),
    (b"\x16\x03\x01\x02\x00\x01", Code.BAD_REQUEST),
    (b"\0\0\0\0", Code.BAD_REQUEST),
]


@pytest.mark.parametrize(("data", "code"), BAD)
def test_what_is_no_request_is_refused(data: bytes, code: Code) -> None:
    """By one of the guard's codes, never by another exception."""
    assert refusal(data)[0] is code


@pytest.mark.parametrize(
    "data", [b"GET /\r\n", b"GET / HTTP/0.9\n", b"HELLO\r\n", b"\x16", b"{", b"GET / HTTP/1.1\r\nA: b\n"]
)
def test_what_can_never_be_a_head_is_refused_before_its_end(data: bytes) -> None:
    """Without waiting for a blank line that will not come."""
    with pytest.raises(Refusal):
        HeadReader().find_end(data)


def test_a_refused_head_leaves_a_reader_that_works() -> None:
    """The parser that failed is not used again."""
    reader = HeadReader()
    refusal(b"NOTAMETHOD / HTTP/1.1\r\n\r\n", reader=reader)
    refusal(b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n", reader=reader)
    assert reader.parse(HEAD)[0] == b"POST"


def test_a_refused_head_still_tells_how_to_refuse_it() -> None:
    """Method and the fields so far are known, for the form of the answer."""
    reader = HeadReader()
    start = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nA: "
    with pytest.raises(Refusal):
        reader.find_end(start + b"x" * MAX_HEAD)
    assert reader.method == b"POST"
    assert (b"Content-Type", b"application/json") in reader.fields


def test_a_head_is_bounded_in_bytes() -> None:
    """A head of the bound passes; one byte more is too large, whether or not its end is in sight."""
    start = b"GET / HTTP/1.1\r\nHost: x\r\nA: "
    fits = start + b"x" * (MAX_HEAD - len(start) - 4) + b"\r\n\r\n"
    assert HeadReader().find_end(fits) == MAX_HEAD
    for data in (fits[:-4] + b"x\r\n\r\n", fits[:-4] + b"x" * 4):
        assert refusal(data)[0] is Code.HEAD_TOO_LARGE
    reader = HeadReader()
    assert reader.find_end(fits[: MAX_HEAD - 1]) == 0
    assert refusal(fits[: MAX_HEAD - 1] + b"x", reader=reader)[0] is Code.HEAD_TOO_LARGE


def test_fields_are_bounded_in_number() -> None:
    """One too many is refused by its own code."""
    head = b"GET / HTTP/1.1\r\n%b\r\n"
    assert len(HeadReader().parse(head % (b"A: b\r\n" * MAX_FIELDS))[3]) == MAX_FIELDS
    assert refusal(head % (b"A: b\r\n" * (MAX_FIELDS + 1)))[0] is Code.HEAD_TOO_LARGE


def test_a_dripping_head_costs_no_square() -> None:
    """A head that comes byte by byte costs little more than its length."""
    data = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 90 + b"B: " + b"x" * 31_000
    reader = HeadReader()
    start = time.process_time()
    for at in range(1, len(data) + 1):
        assert reader.find_end(data[:at]) == 0
    assert time.process_time() - start < 1.0


@given(st.binary(max_size=200))
def test_any_bytes_are_found_refused_or_waited_for(data: bytes) -> None:
    """Nothing but a `Refusal` is raised, however they come."""
    for prefix in (b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: "):
        reader = HeadReader()
        whole = prefix + data
        try:
            for at in (len(whole) // 2, len(whole)):
                end = reader.find_end(whole[:at]) if at else 0
                if end:
                    reader.parse(whole[:end])
                    break
        except Refusal:
            pass


def test_a_connection_goes_on_after_a_head_that_the_parser_takes_for_its_last() -> None:
    """llhttp takes `Proxy-Connection: close` for the end of the connection; to us it is a field of one hop."""
    reader = HeadReader()
    for number in range(3):
        head = b"GET /%d HTTP/1.1\r\nHost: x\r\nProxy-Connection: close\r\n\r\n" % number
        request, end = reader.read(head)
        assert request is not None
        assert (request.target, end) == (b"/%d" % number, len(head))


@pytest.mark.parametrize("version", [b"RTSP/1.0", b"ICE/1.0"])
def test_other_protocols_that_the_parser_knows_are_refused(version: bytes) -> None:
    """Their request lines look like ours."""
    code, _ = refusal(b"GET / " + version + b"\r\nHost: x\r\n\r\n")
    assert code is Code.BAD_REQUEST


def test_the_same_head_again_means_the_same() -> None:
    """Byte by byte equal heads are read once; one that only begins alike is another."""
    reader = HeadReader()
    first, _ = reader.read(HEAD)
    again, end = reader.read(HEAD + b"body")
    assert again is first
    assert end == len(HEAD)
    other, _ = reader.read(HEAD[:-2] + b"More: 1\r\n\r\n")
    assert other is not None
    assert other is not first
    assert other.fields[-1] == (b"More", b"1")
