"""Borders of WebSocket frames, found in any chunking; a last word between two frames."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from relay.edge.websocketframes import GOING_AWAY, RESTARTING, Pipe, Way, close_frame

FAREWELL = b"\x88\x02\x03\xf4"


def frame(kind: int, payload: bytes, masked: bool, final: bool = True, reserved: int = 0) -> bytes:
    """A frame as RFC 6455 §5.2 draws it."""
    size = len(payload)
    first = (0x80 if final else 0) | reserved << 4 | kind
    if size < 126:
        length = bytes([size])
    else:
        length = b"\x7e" + size.to_bytes(2, "big") if size <= 0xFFFF else b"\x7f" + size.to_bytes(8, "big")
    head = bytes([first, length[0] | (0x80 if masked else 0)]) + length[1:]
    return head + (b"mask" if masked else b"") + payload


def parsed(data: bytes, mask: bool) -> Frame:
    """One frame, read by another library."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=mask)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    read: Frame = done.value.value
    return read


SIZES = st.sampled_from([0, 1, 4, 125, 126, 127, 300, 65_535, 65_536])
# (kind, size, whether it is final, reserved bits)
DATA = st.tuples(st.integers(0, 2), SIZES, st.booleans(), st.integers(0, 7))
CONTROL = st.tuples(st.sampled_from([9, 10]), st.integers(0, 125), st.just(True), st.just(0))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data`, cut at these places."""
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    return [data[one:two] for one, two in itertools.pairwise(places)]


@example([(0, 65_536, False, 0)], True, 5, [])
@given(
    st.lists(DATA | CONTROL, min_size=1, max_size=6),
    st.booleans(),
    st.integers(0, 500_000),
    st.lists(st.integers(0, 500_000), max_size=8),
)
def test_the_last_word_stands_between_two_frames(
    told: list[tuple[int, int, bool, int]], masked: bool, when: int, cuts: list[int]
) -> None:
    """Whatever the frames and the chunks: all passes unchanged until then, the frame in hand is finished, then the
    farewell, then nothing."""
    frames = [frame(kind, bytes(size), masked, final, reserved) for kind, size, final, reserved in told]
    whole = b"".join(frames)
    borders = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    way = Way(masked)
    when %= len(whole) + 1
    for piece in pieces(whole[:when], cuts):
        assert way.pass_on(piece) == piece
    assert not way.lost
    passed = whole[:when] + way.part(FAREWELL)
    for piece in pieces(whole[when:], cuts):
        passed += way.pass_on(piece)
    assert passed == whole[: next(border for border in borders if border >= when)] + FAREWELL
    assert way.over
    assert way.pass_on(b"late") == way.part(FAREWELL) == b""


@pytest.mark.parametrize("masked", [True, False])
def test_who_has_closed_already_is_not_closed_again(masked: bool) -> None:
    """Behind a close frame of the sender's there must be no other."""
    for said in (b"", b"\x03\xe8bye"):
        way = Way(masked)
        whole = frame(8, said, masked)
        assert way.pass_on(whole) == whole
        assert way.part(FAREWELL) == b""
        assert (way.over, way.pass_on(b"late")) == (True, b"")
        way = Way(masked)
        way.pass_on(whole[:1])
        assert way.part(FAREWELL) == b""
        assert way.pass_on(whole[1:]) == whole[1:]
        assert way.over


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    "strange",
    [
        pytest.param(lambda masked: frame(3, b"", masked), id="a kind that is kept for later"),
        pytest.param(lambda masked: frame(11, b"", masked), id="a control frame that is kept for later"),
        pytest.param(lambda masked: frame(9, bytes(126), masked), id="a control frame that is too long"),
        pytest.param(lambda masked: frame(9, b"", masked, final=False), id="a control frame in pieces"),
        pytest.param(lambda masked: frame(1, b"hello", not masked), id="a mask where none may be, or none"),
        pytest.param(lambda masked: b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
    ],
)
def test_what_is_no_websocket_passes_and_is_never_spoken_into(strange: object, masked: bool) -> None:
    """Bytes are bytes; but no frame of ours stands among them."""
    assert callable(strange)
    told = strange(masked)
    pipe = Pipe()
    way = pipe.to_local if masked else pipe.to_visitor
    assert way.pass_on(told) == told
    assert way.pass_on(told) == told
    assert not pipe.known
    assert way.part(FAREWELL) == way.pass_on(b"x") == b""


def test_what_was_never_used_is_known() -> None:
    """A WebSocket without a message yet."""
    pipe = Pipe()
    assert pipe.known
    assert pipe.to_visitor.part(close_frame(RESTARTING)) == close_frame(RESTARTING)


def test_close_frames_as_another_library_reads_them() -> None:
    """From the relay to a visitor without a mask, to the local service with one."""
    for code, mask in ((RESTARTING, b""), (GOING_AWAY, b"\x01\xff\x00\x80")):
        read = parsed(close_frame(code, mask), bool(mask))
        assert read.opcode is Opcode.CLOSE
        assert Close.parse(read.data) == Close(code, "the relay restarts")
