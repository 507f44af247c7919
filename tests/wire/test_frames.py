"""Frames: any bytes give frames or the peer's error, and what was encoded decodes to itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire import frames
from relay.wire.errors import LocalProtocolError, RemoteProtocolError
from tests.support.framing import decode
from tests.wire.strategies import KINDS, extension_frames, good_frames, good_messages, messages

Decoded = list[tuple[int, int, bytes]]


def decoded(message: bytes) -> tuple[Decoded, bool]:
    """(the frames, whether an error ended them)."""
    found: Decoded = []
    try:
        for kind, stream, payload in decode(memoryview(message)):
            found.append((kind, stream, bytes(payload)))
    except RemoteProtocolError:
        return found, True
    return found, False


@given(st.binary(max_size=200) | messages())
def test_any_bytes_give_frames_or_the_peers_error(message: bytes) -> None:
    """Whatever arrives, nothing but frames and `RemoteProtocolError` comes out, also from what payloads say."""
    try:
        for kind, _, payload in decode(memoryview(message)):
            if kind == frames.CREDIT:
                assert 0 < frames.decode_credit(payload) <= frames.MAX_CREDIT
            elif kind == frames.RESET:
                frames.decode_reset(payload)
            elif kind == frames.GOING_AWAY:
                frames.decode_going_away(payload)
    except RemoteProtocolError as error:
        assert str(error)


@given(messages())
def test_every_frame_that_comes_out_could_have_been_sent(message: bytes) -> None:
    """A decoded frame is one that `encode` takes, and its bytes stand in the message."""
    for kind, stream, payload in decoded(message)[0]:
        assert frames.encode(kind, stream, payload) in message


@given(st.lists(good_frames(), max_size=20))
def test_what_was_encoded_decodes_to_itself(some: list[tuple[int, int, bytes]]) -> None:
    """Frames one after another in one message come out as they went in."""
    message = b"".join(frames.encode(*frame) for frame in some)
    assert decoded(message) == (some, False)


@given(good_messages, good_messages, st.lists(extension_frames, min_size=1, max_size=3))
def test_extensions_are_skipped_wherever_they_stand(before: bytes, after: bytes, extensions: list[bytes]) -> None:
    """Unknown frames from 0x80 on change nothing about their neighbours."""
    assert decoded(before + b"".join(extensions) + after) == decoded(before + after)


@given(good_frames(), st.data())
def test_a_cut_message_is_an_error(frame: tuple[int, int, bytes], data: st.DataObject) -> None:
    """A message that ends inside a frame is refused, after the whole frames before it."""
    whole = frames.encode(*frame)
    cut = data.draw(st.integers(1, len(whole) - 1))
    assert decoded(whole + whole[:cut]) == ([frame], True)


@given(
    st.sampled_from(KINDS) | st.integers(0, 0xFF),
    st.integers(-1, 2**31) | st.integers(2**31, 2**32 - 1),
    st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 515, 516, 518, 519, 16384, 16385, 65536, 65537, 131072, 131073])
    | st.sampled_from([262144, 262145]),
)
def test_encode_refuses_what_decode_refuses(kind: int, stream: int, length: int) -> None:
    """Our own frame that the peer would refuse is a `LocalProtocolError`; no other is. Extensions are never ours."""
    payload = bytes(length)
    try:
        ours = frames.encode(kind, stream, payload)
    except LocalProtocolError:
        if stream < 0 or kind >= frames.FIRST_EXTENSION:
            return
        message = frames.HEADER.pack(stream, kind << 24 | length) + payload
        assert decoded(message) == ([], True)
    else:
        assert decoded(ours) == ([(kind, stream, payload)], False)


@given(st.integers(1, frames.MAX_STREAM_ID), st.integers(0, 65535), st.text(), st.booleans())
def test_reset_keeps_what_it_says(stream: int, code: int, detail: str, delivered: bool) -> None:
    """Code and flag come back; the detail too, as far as it is text and fits."""
    ((kind, number, payload),) = decoded(frames.encode_reset(stream, code, detail, delivered))[0]
    assert (kind, number) == (frames.RESET, stream)
    back = frames.decode_reset(memoryview(payload))
    assert back[:2] == (code, delivered)
    assert back[2] == detail.encode("utf-8", "replace").decode()[: len(back[2])]


@given(st.integers(0, 65535), st.integers(0, frames.MAX_STREAM_ID), st.text(max_size=100))
def test_going_away_keeps_what_it_says(code: int, last: int, detail: str) -> None:
    """Code, last stream and detail come back."""
    ((kind, number, payload),) = decoded(frames.encode_going_away(code, last, detail))[0]
    assert (kind, number) == (frames.GOING_AWAY, 0)
    text = detail.encode("utf-8", "replace").decode()
    assert frames.decode_going_away(memoryview(payload)) == (code, last, text)


@pytest.mark.parametrize("character", ["a", "ä", "→", "\U0001f680"])
def test_a_long_detail_is_cut_between_characters(character: str) -> None:
    """A detail above 512 bytes loses whole characters, so that what arrives is valid UTF-8."""
    ((_, _, payload),) = decoded(frames.encode_reset(1, 0, "." + character * 600))[0]
    detail = payload[frames.RESET_HEAD.size :]
    assert frames.MAX_DETAIL - 4 < len(detail) <= frames.MAX_DETAIL
    assert detail.decode() == "." + character * (len(detail.decode()) - 1)


@given(st.integers(0, frames.MAX_STREAM_ID), st.integers(-1, 2**32))
def test_credit_is_ours_to_give_within_its_bounds_only(stream: int, increment: int) -> None:
    """An increment that the peer would refuse is our own error; any other comes back."""
    if 0 < increment <= frames.MAX_CREDIT:
        ((_, number, payload),) = decoded(frames.encode_credit(stream, increment))[0]
        assert (number, frames.decode_credit(memoryview(payload))) == (stream, increment)
    else:
        with pytest.raises(LocalProtocolError):
            frames.encode_credit(stream, increment)


@pytest.mark.parametrize("more", [0, 1])
def test_a_message_has_at_most_one_mebibyte(more: int) -> None:
    """A message at the bound is read, one byte more is refused before anything of it counts."""
    quarter = frames.encode(frames.DATA, 1, bytes(frames.MAX_DATA - frames.HEADER_SIZE))
    message = quarter * 4 + bytes(more)
    assert len(message) == frames.MAX_MESSAGE + more
    found, failed = decoded(message)
    assert (len(found), failed) == ((4, False) if not more else (0, True))
