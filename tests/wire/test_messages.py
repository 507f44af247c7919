"""Fragments: however a message was cut, it is one message, and it stays within its bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.errors import RemoteProtocolError
from relay.wire.frames import MAX_MESSAGE
from relay.wire.messages import Assembler
from tests.wire.golden import Vector, interpret
from tests.wire.strategies import cuts, good_messages, messages


def assemble(assembler: Assembler, fragments: list[bytes]) -> bytes | None:
    """Feeds all fragments of one message; the buffers are wiped behind it, as a transport reuses them."""
    for number, fragment in enumerate(fragments, 1):
        buffer = bytearray(fragment)
        whole = assembler.feed(memoryview(buffer), number == len(fragments))
        result = None if whole is None else bytes(whole)
        if whole is None:
            buffer[:] = bytes(len(buffer))
            assert number < len(fragments)
            assert assembler.pending
    return result


def interpret_all(cut: list[list[bytes]]) -> list[tuple[list[Vector], str | None]]:
    """What a session would see of messages in fragments: it ends at the first error."""
    assembler = Assembler()
    seen: list[tuple[list[Vector], str | None]] = []
    for fragments in cut:
        whole = assemble(assembler, fragments)
        assert whole is not None
        seen.append(interpret(whole))
        if seen[-1][1] is not None:
            break
    return seen


@given(st.lists(messages() | good_messages | st.binary(max_size=50), max_size=5), st.data())
def test_pieces_mean_what_the_whole_means(whole: list[bytes], data: st.DataObject) -> None:
    """Any bytes in any chunking give the same frames and the same error as uncut."""
    pieces = [data.draw(cuts(message)) for message in whole]
    assert interpret_all(pieces) == interpret_all([[message] for message in whole])


def test_an_uncut_message_is_not_copied() -> None:
    """A message in one fragment is handed on as the view that came in."""
    fragment = memoryview(b"whole")
    assert Assembler().feed(fragment, True) is fragment


def test_nothing_is_pending_between_messages() -> None:
    """`pending` tells an unfinished message from none, also when its fragments are empty."""
    assembler = Assembler()
    assert not assembler.pending
    assert assembler.feed(memoryview(b""), False) is None
    assert assembler.pending
    assert assembler.feed(memoryview(b"a"), True) == b"a"
    assert not assembler.pending


@pytest.mark.parametrize("size", [1, 4096, MAX_MESSAGE])
def test_a_message_at_the_bound_passes(size: int) -> None:
    """1 MiB is allowed, in fragments of any size, and so is the next message."""
    assembler = Assembler()
    fragments = [bytes(size)] * (MAX_MESSAGE // size) if size > 1 else [bytes(MAX_MESSAGE - 1), b"x"]
    for _ in range(2):
        whole = assemble(assembler, fragments)
        assert whole is not None
        assert len(whole) == MAX_MESSAGE


@pytest.mark.parametrize("last", [False, True])
def test_one_byte_more_is_refused_at_once(last: bool) -> None:
    """The fragment that passes the bound is refused, whether the message would have ended there or not."""
    assembler = Assembler()
    assembler.feed(memoryview(bytes(MAX_MESSAGE)), False)
    with pytest.raises(RemoteProtocolError):
        assembler.feed(memoryview(b"x"), last)


def test_one_fragment_above_the_bound_is_refused() -> None:
    """A message too long is refused when it comes in one piece as well."""
    with pytest.raises(RemoteProtocolError):
        Assembler().feed(memoryview(bytes(MAX_MESSAGE + 1)), True)


def test_tiny_fragments_cost_no_more_than_their_bytes() -> None:
    """A hundred thousand fragments of a byte or none are kept as few pieces and come out in order."""
    assembler = Assembler()
    for number in range(100_000):
        assembler.feed(memoryview(b"x" if number % 2 else b""), False)
        assert len(assembler._parts) <= 4096 + 1
    whole = assembler.feed(memoryview(b"."), True)
    assert whole is not None
    assert bytes(whole) == b"x" * 50_000 + b"."
