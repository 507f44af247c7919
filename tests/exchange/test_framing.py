"""Body framing: any chunking gives the same body, encoded bodies come back, garbage gives `MalformedBody` only."""

from __future__ import annotations

import time
from collections.abc import Callable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.exchange import framing
from relay.exchange.errors import MalformedBody, MalformedHead
from relay.exchange.framing import BodyDecoder, ChunkedBody, CloseBody, LengthBody
from relay.exchange.heads import MAX_FIELDS, Fields

Outcome = tuple[bytes, bytes, bool, Fields] | None
"""(body, what is behind it, done, trailers); None: malformed."""

CHUNKED = (b"Transfer-Encoding", b"chunked")
TRAILERS = st.lists(
    st.tuples(st.sampled_from([b"X-Sum", b"etag", b"A"]), st.sampled_from([b"", b"1", b"a b", b"\xe4", b"a:b"])),
    max_size=3,
)


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` as a transport might bring it: in parts, some of one byte, some empty."""
    if draw(st.booleans()):
        return [data[at : at + 1] for at in range(len(data))]
    at = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def run(decoder: BodyDecoder, parts: list[bytes]) -> Outcome:
    """Feeds `parts`; what comes after the body was complete is left over."""
    body, rest = [], b""
    try:
        for part in parts:
            if decoder.done:
                rest += part
                continue
            found, rest = decoder.feed(part)
            assert all(found)
            assert not rest or decoder.done
            body += found
    except MalformedBody as error:
        assert str(error)
        return None
    return b"".join(body), rest, decoder.done, decoder.trailers


@st.composite
def chunked_bodies(draw: st.DrawFn) -> tuple[bytes, bytes, Fields]:
    """(a valid chunked body, the bytes it stands for, its trailers), in the spellings that RFC 9112 allows."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    extension = st.sampled_from([b"", b"", b";a", b";a=b", b'; a="b c"', b";x\t"])
    size = st.sampled_from([b"%x", b"%X", b"%04x"])
    encoded = b"".join(draw(size) % len(chunk) + draw(extension) + b"\r\n" + chunk + b"\r\n" for chunk in chunks)
    trailers = draw(TRAILERS)
    last = draw(st.sampled_from([b"0", b"000"])) + draw(extension) + b"\r\n"
    return encoded + last + b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n", b"".join(chunks), trailers


def h11_reads(encoded: bytes) -> tuple[bytes, Fields, bytes]:
    """(body, trailers, rest) as h11 reads a chunked response."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + encoded)
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return body, [(bytes(n), bytes(v)) for n, v in event.headers.raw_items()], connection.trailing_data[0]
        else:
            assert isinstance(event, h11.Response)


@given(chunked_bodies(), st.binary(max_size=10), st.data())
def test_a_chunked_body_is_read_in_any_pieces(
    valid: tuple[bytes, bytes, Fields], behind: bytes, data: st.DataObject
) -> None:
    """Body, trailers and what follows are the same in any pieces."""
    encoded, body, trailers = valid
    outcome = run(ChunkedBody(), data.draw(pieces(encoded + behind)))
    assert outcome == (body, behind, True, trailers)


@given(chunked_bodies())
def test_a_chunked_body_is_read_as_h11_reads_it(valid: tuple[bytes, bytes, Fields]) -> None:
    """h11 sees the same body, the same trailers, and nothing behind."""
    encoded, _, _ = valid
    outcome = run(ChunkedBody(), [encoded])
    assert outcome is not None
    body, trailers, rest = h11_reads(encoded)
    assert outcome == (body, rest, True, trailers)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), TRAILERS, st.data())
def test_what_was_encoded_decodes_to_itself(chunks: list[bytes], trailers: Fields, data: st.DataObject) -> None:
    """Chunks and trailers come back."""
    encoded = b"".join(map(framing.encode_chunk, chunks)) + framing.encode_last_chunk(trailers)
    assert run(ChunkedBody(), data.draw(pieces(encoded))) == (b"".join(chunks), b"", True, trailers)


NOISE = st.lists(
    st.sampled_from([b"0", b"5", b"a", b"F", b"g", b"-1", b"\r\n", b"\r", b"\n", b";", b" ", b"x: y", b"\0"])
    | st.binary(max_size=6),
    max_size=14,
).map(b"".join)


@given(NOISE | st.tuples(chunked_bodies(), st.integers(0, 60), NOISE).map(lambda t: t[0][0][: t[1]] + t[2]), st.data())
def test_garbage_is_malformed_or_unfinished_however_it_is_cut(garbage: bytes, data: st.DataObject) -> None:
    """Nothing but `MalformedBody` comes out, and the same whether whole or in pieces."""
    whole = run(ChunkedBody(), [garbage])
    assert run(ChunkedBody(), data.draw(pieces(garbage))) == whole
    if whole is not None and whole[2]:
        body, rest = h11_or_none(garbage)
        assert body in (None, whole[0])
        assert rest in (None, whole[1])


def h11_or_none(encoded: bytes) -> tuple[bytes | None, bytes | None]:
    """h11's reading, or nothing where it refuses what we take (extensions beyond ASCII)."""
    try:
        body, _, rest = h11_reads(encoded)
    except h11.RemoteProtocolError:
        return None, None
    return body, rest


@pytest.mark.parametrize(
    "encoded",
    [
        b"\r\n", b"\n", b"g\r\n", b" 5\r\nhello\r\n", b"5 \r\nhello\r\n", b"+5\r\nhello\r\n", b"0x5\r\nhello\r\n",
        b"-0\r\n\r\n", b"5\nhello\r\n", b"5\r\nhello\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhelloo\r\n", b"5\r\nhello\rX",
        b"5;\x00\r\nhello\r\n", b"5;a\nb\r\nhello\r\n", b"5\rX\r\n", b"_5\r\n", "\uff15\r\n".encode(),
        b"1234567890abcdef\r\n", b"f" * 16 + b"\r\n", b"0\r\nno colon\r\n\r\n", b"0\r\na b: c\r\n\r\n",
        b"0\r\n: x\r\n\r\n", b"0\r\na: b\r\n folded\r\n\r\n", b"0\r\na: b\nc: d\r\n\r\n", b"0\r\na: \x00\r\n\r\n",
        b"0\r\na : b\r\n\r\n", b"0\r\n" + b"a: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    ],
)  # fmt: skip
def test_a_bad_chunk_is_malformed(encoded: bytes) -> None:
    """Where parsers disagree nothing is repaired, whether it comes whole or byte by byte."""
    assert run(ChunkedBody(), [encoded]) is None
    assert run(ChunkedBody(), [encoded[at : at + 1] for at in range(len(encoded))]) is None


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("step", [1, 100_000])
def test_a_chunk_line_is_bounded(over: int, step: int) -> None:
    """A chunk line of 1 KiB with its CRLF passes, one byte more does not, nor does more without end."""
    line = b"5;" + b"x" * (framing.MAX_CHUNK_LINE - 4 + over) + b"\r\n"
    encoded = line + b"hello\r\n0\r\n\r\n"
    outcome = run(ChunkedBody(), [encoded[at : at + step] for at in range(0, len(encoded), step)])
    assert outcome == (None if over else (b"hello", b"", True, []))
    assert run(ChunkedBody(), [b"5;"] + [b"x" * 100] * 20) is None


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("step", [1, 100_000])
def test_trailers_are_bounded(over: int, step: int) -> None:
    """Trailers of 16 KiB pass, one byte more does not."""
    field = b"a: " + b"x" * (framing.MAX_TRAILERS - 7 + over)
    encoded = b"0\r\n" + field + b"\r\n\r\n"
    outcome = run(ChunkedBody(), [encoded[at : at + step] for at in range(0, len(encoded), step)])
    assert outcome == (None if over else (b"", b"", True, [(b"a", field[3:])]))


def test_as_many_trailers_as_a_frame_takes() -> None:
    """As many trailer fields as fit the wire pass."""
    outcome = run(ChunkedBody(), [b"0\r\n" + b"a: b\r\n" * MAX_FIELDS + b"\r\n"])
    assert outcome is not None
    assert outcome[3] == [(b"a", b"b")] * MAX_FIELDS


def test_white_space_around_a_trailer_is_not_part_of_it() -> None:
    """Optional white space around a value goes."""
    assert framing.parse_field_lines(b"a:b\r\nc:\t d \t\r\ne:") == [(b"a", b"b"), (b"c", b"d"), (b"e", b"")]


def test_a_great_chunk_is_counted_and_not_held() -> None:
    """Bytes of a chunk leave as they come; a size of 15 digits is only a number."""
    body = ChunkedBody()
    assert body.feed(b"fffffffffffffff\r\nab") == ([b"ab"], b"")
    piece = bytes(1000)
    found, rest = body.feed(piece)
    assert found[0] is piece
    assert (rest, body.done) == (b"", False)


def test_many_small_chunks_cost_their_sum_not_their_square() -> None:
    """300,000 chunks of a byte in one piece take no time; copying the remainder for each would take minutes."""
    encoded = b"1\r\nx\r\n" * 300_000 + framing.LAST_CHUNK
    began = time.process_time()
    outcome = run(ChunkedBody(), [encoded])
    assert outcome == (b"x" * 300_000, b"", True, [])
    assert time.process_time() - began < 10


# ------------------------------------------------------------------------------------------- by length and by close


@given(st.binary(max_size=60), st.binary(max_size=10), st.data())
def test_a_body_by_length_is_read_in_any_pieces(body: bytes, behind: bytes, data: st.DataObject) -> None:
    """Exactly the declared bytes are the body, the others are behind it."""
    assert run(LengthBody(len(body)), data.draw(pieces(body + behind))) == (body, behind, True, [])


@given(st.integers(1, 100), st.integers(0, 99))
def test_a_body_by_length_that_ends_early_is_malformed(length: int, came: int) -> None:
    """A close before the last byte is no end."""
    body = LengthBody(length)
    run(body, [bytes(min(came, length - 1))])
    with pytest.raises(MalformedBody):
        body.eof()


@pytest.mark.parametrize(
    "encoded", [b"", b"5", b"5\r\nhell", b"5\r\nhello\r\n", b"0\r\n", b"0\r\na: b\r\n", b"0\r\n\r"]
)
def test_a_chunked_body_that_ends_early_is_malformed(encoded: bytes) -> None:
    """A close before the last chunk's end is no end; behind it, it is fine."""
    body = ChunkedBody()
    assert run(body, [encoded]) is not None
    with pytest.raises(MalformedBody):
        body.eof()
    complete = ChunkedBody()
    run(complete, [framing.LAST_CHUNK])
    complete.eof()


@given(st.binary(max_size=60), st.data())
def test_a_body_by_close_ends_with_the_connection_only(body: bytes, data: st.DataObject) -> None:
    """All bytes are body, and the close is its end."""
    decoder = CloseBody()
    assert run(decoder, data.draw(pieces(body))) == (body, b"", False, [])
    decoder.eof()
    assert decoder.done


def test_an_empty_piece_is_no_part_of_a_body() -> None:
    """A part that is empty would end a chunked message when it is written on."""
    decoders: list[Callable[[], BodyDecoder]] = [ChunkedBody, CloseBody, lambda: LengthBody(5), lambda: LengthBody(0)]
    for make in decoders:
        assert make().feed(b"") == ([], b"")


# ------------------------------------------------------------------------------------------- which framing it is


@pytest.mark.parametrize(
    ("values", "length"),
    [([], None), ([b"0"], 0), ([b"007"], 7), ([b"1" * 18], int("1" * 18))],
)
def test_a_content_length_is_digits(values: list[bytes], length: int | None) -> None:
    """One value of up to 18 digits is a length, in any case of the name; none is none."""
    assert framing.content_length([(b"content-LENGTH", value) for value in values] + [(b"X", b"1")]) == length


@pytest.mark.parametrize(
    "values",
    [[b""], [b"-1"], [b"+1"], [b"1 "], [b" 1"], [b"1,1"], [b"1", b"1"], [b"1", b"2"], [b"0x1"], [b"1.0"], [b"1_0"],
     [b"1" * 19], ["\u0661".encode()], [b"1\n"]],
)  # fmt: skip
def test_any_other_content_length_is_malformed(values: list[bytes]) -> None:
    """Signs, lists, repetitions, other digits and more of them are refused."""
    with pytest.raises(MalformedHead):
        framing.content_length([(b"Content-Length", value) for value in values])


@pytest.mark.parametrize("values", [[b"chunked"], [b"Chunked"]])
def test_chunked_is_the_transfer_coding(values: list[bytes]) -> None:
    """The one coding that HTTP/1.1 needs, in any case."""
    assert framing.transfer_coding([(b"TRANSFER-encoding", value) for value in values])
    assert not framing.transfer_coding([(b"Content-Encoding", b"gzip")])


@pytest.mark.parametrize(
    "values",
    [[b""], [b"gzip"], [b"gzip, chunked"], [b"chunked, chunked"], [b"chunked", b"chunked"], [b"identity"],
     [b"\x0bchunked"], [b"chunked;q=1"], [b"chunked "], [b"xchunked"]],
)  # fmt: skip
def test_any_other_transfer_coding_is_malformed(values: list[bytes]) -> None:
    """Other codings, lists and look-alikes are refused."""
    with pytest.raises(MalformedHead):
        framing.transfer_coding([(b"Transfer-Encoding", value) for value in values])


@pytest.mark.parametrize(
    ("method", "status", "fields", "kind"),
    [
        (b"GET", 200, [], CloseBody),
        (b"GET", 200, [(b"Content-Length", b"5")], LengthBody),
        (b"GET", 200, [(b"Content-Length", b"0")], None),
        (b"GET", 200, [CHUNKED], ChunkedBody),
        (b"GET", 404, [CHUNKED], ChunkedBody),
        (b"GET", 205, [], CloseBody),
        (b"HEAD", 200, [(b"Content-Length", b"5")], None),
        (b"HEAD", 200, [CHUNKED], None),
        (b"HEAD", 200, [], None),
        (b"GET", 204, [(b"Content-Length", b"5")], None),
        (b"GET", 304, [CHUNKED], None),
        (b"GET", 100, [], None),
        (b"GET", 101, [], None),
    ],
)
def test_a_responses_framing_is_that_of_the_rfc(
    method: bytes, status: int, fields: Fields, kind: type[BodyDecoder] | None
) -> None:
    """RFC 9112 §6.3, row by row."""
    body = framing.response_body(method, status, fields)
    assert type(body) is (kind or type(None))
    if isinstance(body, LengthBody):
        assert body.left == 5


@pytest.mark.parametrize(
    "fields", [[CHUNKED, (b"Content-Length", b"5")], [(b"Content-Length", b"x")], [CHUNKED, CHUNKED]]
)
def test_an_ambiguous_response_is_malformed(fields: Fields) -> None:
    """Two framings at once, or one that cannot be read, are refused."""
    with pytest.raises(MalformedHead):
        framing.response_body(b"GET", 200, fields)
