"""One head from bytes in any pieces: bounded, split off exactly, refused early, read strictly."""

from __future__ import annotations

import time

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.edge.answers import Code
from relay.edge.guard import MAX_FIELDS, MAX_HEAD, METHODS, Refusal, Request, understand
from relay.edge.reader import HeadReader, split
from relay.exchange.heads import Fields

HEAD = b"POST /a?b=%20c HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one:  2 \r\nEmpty:\r\n\r\n"


def refusal(data: bytes, *, reader: HeadReader | None = None) -> tuple[Code, str]:
    """How bytes that come at once are refused: before their end is seen, when they are split, or by the guard."""
    with pytest.raises(Refusal) as caught:
        assert (reader or HeadReader()).read(data)[1], "neither found nor refused"
    return caught.value.code, caught.value.message


def taken(reader: HeadReader, head: bytes) -> Request:
    """The request of one whole head."""
    request, end = reader.read(head)
    assert request is not None
    assert end == len(head)
    return request


def test_a_head_is_split_off_exactly() -> None:
    """The end is behind the blank line; what follows, whatever it is, is not looked at."""
    reader = HeadReader()
    for rest in (b"", b"body", b"\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n"):
        assert reader.find_end(HEAD + rest) == len(HEAD)


def test_a_head_is_split_as_it_stands() -> None:
    """Method, target untouched, version, fields in order with their case; space around values is gone."""
    method, target, version, fields = split(HEAD)
    assert (method, target, version) == (b"POST", b"/a?b=%20c", "1.1")
    assert fields == [(b"Host", b"x"), (b"X-One", b"1"), (b"x-one", b"2"), (b"Empty", b"")]


@given(st.lists(st.integers(1, len(HEAD) - 1), max_size=8))
def test_a_head_may_come_in_any_pieces(cuts: list[int]) -> None:
    """Nothing is found before all is there, and then the same as at once."""
    reader = HeadReader()
    for at in sorted(set(cuts)):
        assert reader.find_end(HEAD[:at]) == 0
    assert reader.find_end(HEAD + b"more") == len(HEAD)
    assert taken(reader, HEAD).target == b"/a?b=%20c"


def test_heads_follow_each_other_on_one_reader() -> None:
    """Behind a head of any kind, the next one is read as any."""
    reader = HeadReader()
    plain = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
    for number in range(5):
        assert taken(reader, plain % number).target == b"/%d" % number
    for extra in (
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"Connection: close\r\n",
        b"Proxy-Connection: close\r\n",
    ):
        assert taken(reader, b"POST /body HTTP/1.1\r\nHost: x\r\n" + extra + b"\r\n").method == b"POST"
        assert taken(reader, plain % 7).target == b"/7"


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_that_passes_the_guard_is_read(method: bytes) -> None:
    """Each is a token."""
    assert taken(HeadReader(), b"%b / HTTP/1.1\r\nHost: x\r\n\r\n" % method).method == method


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
    (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\n\tA: b\r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\x0bB: c\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nnothing\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\xc3\xa9: c\r\n\r\n", Code.BAD_REQUEST),
    (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET /  HTTP/1.1\r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET /\rx HTTP/1.1\r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / http/1.1\r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\t\r\n\r\n", Code.BAD_REQUEST),
    (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\t \r\n\r\n", Code.BAD_REQUEST),
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
    """Nothing of it is left."""
    reader = HeadReader()
    refusal(b"NOTAMETHOD / HTTP/1.1\r\n\r\n", reader=reader)
    refusal(b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n", reader=reader)
    assert taken(reader, HEAD).method == b"POST"


def test_a_refused_head_still_tells_how_to_refuse_it() -> None:
    """Method and the fields so far are known, for the form of the answer."""
    start = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nA: "
    for rest in (b"x" * MAX_HEAD, b"\0\r\n\r\n", b"\n", b"b\r\n\r\n"):
        reader = HeadReader()
        refusal(start + rest, reader=reader)
        assert reader.method == b"POST"
        assert reader.fields[0] == (b"Content-Type", b"application/json")


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
    assert len(split(head % (b"A: b\r\n" * MAX_FIELDS))[3]) == MAX_FIELDS
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
                if at and reader.read(whole[:at])[1]:
                    break
        except Refusal:
            pass


@pytest.mark.parametrize("bad", [b"A:" + b" " * 31_000, b"A" * 31_000, b"A: " + b"b \t" * 10_000, b":" * 31_000])
def test_a_bad_line_costs_no_square(bad: bytes) -> None:
    """However long the part of a line is that fits, it is looked at once."""
    start = time.process_time()
    for end in (b"\0", b"\r", b" ", b":"):
        refusal(b"GET / HTTP/1.1\r\n" + bad + end + b"\r\r\n\r\n")
    assert time.process_time() - start < 0.2


class Parsed:
    """What llhttp reads of a head, which it may refuse."""

    def __init__(self, head: bytes) -> None:
        self.target = b""
        self.fields: Fields = []
        self.heads = 0
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        self.method, self.version = parser.get_method(), parser.get_http_version()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.heads += 1


def means_the_same_to_another(head: bytes) -> bool:
    """Whether we take it; if so, llhttp has to read the same of it, as many local services do."""
    try:
        parts = split(head)
        understand(*parts)
    except Refusal:
        return False
    other = Parsed(head)
    assert (other.method, other.target, other.version, other.fields) == parts
    assert other.heads == 1
    return True


LINES = st.lists(
    st.sampled_from(
        [
            b"Host: x", b"A: b", b"A:", b"A:\t b \t", b"Content-Length: 5", b"Content-Length:\t5\t",
            b"content-length:0", b"Content-Length: 5, 5", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip",
            b"Transfer-Encoding:\tchunked ", b"Transfer-Encoding: chunked\t", b"Upgrade: websocket",
            b"Connection: upgrade", b"Proxy-Connection: close", b"Connection: close", b"Upgrade: h2c", b" folded: x",
            b"Expect: 100-continue", b"Host : x", b"", b"A", b": b",
        ]
    )
    | st.builds(b"%b:%b".__mod__, st.tuples(st.binary(max_size=3), st.binary(max_size=4)))
    | st.builds(b"A: %b".__mod__, st.binary(max_size=4)),
    max_size=5,
)  # fmt: skip
FIRST = st.builds(
    b"%b%b%b%bHTTP/%b".__mod__,
    st.tuples(
        st.sampled_from([b"GET", b"POST", b"M-SEARCH", b"OPTIONS", b"SOURCE", b"CONNECT", b"get"])
        | st.binary(max_size=4),
        st.sampled_from([b" ", b" ", b" ", b"  ", b"\t", b""]),
        st.sampled_from(
            [b"/", b"*", b"http://x/", b"http://x", b"http://x#a", b"http://x?a", b"/a#b#c", b"/?a?b", b"x:1"]
        )
        | st.binary(max_size=6).map(b"/".__add__)
        | st.from_regex(rb"(https?://x)?[!-~]{0,8}", fullmatch=True),
        st.sampled_from([b" ", b" ", b" ", b"  ", b""]),
        st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0", b"0.9", b"2.0", b"1.2", b"1.1 ", b"1.10", b"11"]),
    ),
)


@given(FIRST | st.just(b"GET / HTTP/1.1"), LINES, st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]))
def test_what_we_take_another_parser_reads_alike(first: bytes, lines: list[bytes], end: bytes) -> None:
    """No head passes that llhttp, in its strict mode, refuses or splits in another way."""
    head = b"\r\n".join([first, b"Host: x", end.join(lines)]) + b"\r\n\r\n"
    means_the_same_to_another(head[: head.index(b"\r\n\r\n") + 4])


@pytest.mark.parametrize("where", [b"GET%b / HTTP/1.1", b"GET /%b HTTP/1.1", b"GET / HTTP/1.1%b"])
def test_every_byte_in_the_first_line_means_the_same_to_another_parser(where: bytes) -> None:
    """Of all bytes, only visible ones of ASCII are taken in a target, and none anywhere else."""
    passed = [byte for byte in range(256) if means_the_same_to_another(where % bytes((byte,)) + b"\r\nHost: x\r\n\r\n")]
    assert passed == (list(range(0x21, 0x7F)) if b"/%b" in where else [])


def test_every_byte_in_a_field_means_the_same_to_another_parser() -> None:
    """Names are tokens; of control characters a value holds only tabs."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n"
    token = set(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    places = {b"A%bB: c": token | {0x3A}, b"%bA: c": token, b"A%b: c": token | {0x3A}}
    value = set(range(0x20, 0x100)) - {0x7F} | {0x09}
    places |= {b"A:%bc": value, b"A: b%bc": value, b"A: b%b": value}
    for place, allowed in places.items():
        passed = {byte for byte in range(256) if means_the_same_to_another(head % (place % bytes((byte,))))}
        assert passed == allowed, place


@pytest.mark.parametrize("version", [b"RTSP/1.0", b"ICE/1.0"])
def test_other_protocols_that_the_parser_knows_are_refused(version: bytes) -> None:
    """Their request lines look like ours, and some parsers know them."""
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
