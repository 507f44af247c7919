"""Frames out of a message: the same rules whatever streams are open, and when a head is alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mux.reading import FrameReader
from relay.mux.receivers import ACCEPTOR, OPENER, Receiver
from relay.mux.stream import Stream
from relay.wire import frames
from relay.wire.errors import RemoteProtocolError
from tests.mux.ends import against, f_credit, f_data, f_end, f_head, f_ping, settle, watched
from tests.support.clock import virtual
from tests.support.framing import decode
from tests.wire.strategies import messages

Frame = tuple[int, int, bytes]


class Open(Stream):
    """A stream that is given frames and forgets them."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.owner = None


class Streams(dict[int, Stream]):
    """Every stream that there may be is open."""

    def get(self, number: int, default: object = None) -> Stream | None:  # type: ignore[override]
        return Open(number) if 0 < number <= frames.MAX_STREAM_ID else None


class Reader(FrameReader):
    """Keeps what it reads, be it for a stream or not."""

    def __init__(self, receivers: dict[int, Receiver]) -> None:
        self.streams = Streams()
        self.receivers = {kind: (lengths, self._receiver(kind)) for kind, (lengths, _) in receivers.items()}
        self.ended = False
        self.found: list[Frame] = []

    def _receiver(self, kind: int) -> Callable[[Stream, memoryview], None]:
        return lambda stream, payload: self.found.append((kind, stream.id, bytes(payload)))

    def on_strange(self, kind: int, number: int, payload: memoryview) -> None:
        self.found.append((kind, number, bytes(payload)))

    def on_empty(self) -> None:
        """An extension was passed over."""


def read(reader: Reader, message: bytes) -> tuple[list[Frame], str]:
    """(the frames, the error that ended them)."""
    try:
        reader.read(memoryview(message), len(message))
    except RemoteProtocolError as error:
        return reader.found, str(error)
    return reader.found, ""


@given(st.binary(max_size=200) | messages(), st.sampled_from([OPENER, ACCEPTOR]))
def test_which_frames_come_out_does_not_hang_on_what_is_open(message: bytes, receivers: dict[int, Receiver]) -> None:
    """Any bytes give the same frames, or the same error of the peer's, for open streams as for none."""
    found: list[Frame] = []
    failed = ""
    try:
        for kind, number, payload in decode(memoryview(message)):
            found.append((kind, number, bytes(payload)))
    except RemoteProtocolError as error:
        failed = str(error)
    assert read(Reader(receivers), message) == (found, failed)


def test_a_message_counts_one_and_one_for_each_frame() -> None:
    """Extensions count as well, and what comes behind the end of the session does not."""
    reader = Reader(OPENER)
    message = f_head(1) + extension(1) + f_data(3)
    assert reader.read(memoryview(message), len(message)) == 4
    reader.ended = True
    assert reader.read(memoryview(message), len(message)) == 1


# ---- a head that nothing follows


def extension(number: int) -> bytes:
    return frames.HEADER.pack(number, frames.FIRST_EXTENSION << 24 | 3) + b"abc"


@pytest.mark.parametrize(
    ("parts", "lulls"),
    [
        ([f_head(1)], 1),
        ([f_head(1), f_credit(1)], 1),
        ([f_head(1), f_credit(0)], 1),
        ([f_head(1), f_ping()], 1),
        ([f_head(1), extension(1)], 1),
        ([f_head(1), f_data(3)], 1),
        ([f_head(1), f_head(3), f_data(1)], 1),
        ([f_head(1), f_data(1)], 0),
        ([f_head(1), f_data(1), f_credit(1)], 0),
        ([f_head(1), f_data(1, ended=True)], 0),
        ([f_head(1), f_end(1)], 0),
        ([f_head(1, ended=True)], 0),
        ([f_data(3), f_head(1), f_data(1)], 0),
    ],
)
@virtual
async def test_a_head_is_alone_unless_its_body_or_its_end_follows_at_once(parts: list[bytes], lulls: int) -> None:
    """Its owner is told once, so that the head need not wait; whatever else stands behind it is no reason to wait."""
    side, peer = against(opener=True)
    owner, _ = side.open(ended=True), side.open(ended=True)
    await settle()
    await peer.send(*parts)
    assert not side.session.ended
    assert owner.heads == [b"head"]
    assert owner.lulls == lulls


@virtual
async def test_an_owner_that_fails_in_a_lull_costs_its_stream_only() -> None:
    """The frames behind it are read."""
    side, peer = against(opener=True)
    owner, other = side.open(ended=True), side.open(ended=True)
    await settle()
    troubles = watched()

    def fail() -> None:
        raise ValueError("a defect")

    owner.on_lull = fail  # type: ignore[method-assign]
    await peer.send(f_head(1), f_head(3), f_data(3, ended=True))
    assert [one["message"] for one in troubles] == ["an exchange failed"]
    assert peer.kinds(1)[-1] == "RESET"
    assert other.trailers == b""
