"""Turns: a session that floods is read a piece at a time; and what carries nothing is counted, and ends it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mux.inbox import NOISE_MOST, OF_CARRIER, SMALL, TURN, TURN_BYTES
from relay.wire import frames
from relay.wire.errors import ResetCode
from relay.wire.frames import HEADER, MAX_MESSAGE, STREAM_WINDOW, encode, encode_going_away
from tests.mux.ends import RawPeer, Side, against, f_credit, f_data, f_end, f_head, f_ping, f_reset, settle
from tests.support.clock import run_virtual, virtual

EXTENSION = HEADER.pack(7, 0x99 << 24)

NOISES: dict[str, bytes] = {
    "pings": f_ping(),
    "pongs that answer nothing": encode(frames.PONG, 0, bytes(8)),
    "credit on the session": f_credit(0, 1),
    "credit on a stream": f_credit(1, 1),
    "empty data": f_data(1, b""),
    "extensions": EXTENSION,
    "going away": encode_going_away(0, 0, ""),
    "late data": f_data(3, b""),
    "late credit": f_credit(3),
    "late resets": f_reset(3),
    "late ends": f_end(3),
}


async def noisy() -> tuple[Side, RawPeer]:
    """A relay's session with stream 1 open and stream 3 closed."""
    side, peer = against(opener=True)
    side.open()
    side.open()
    await settle()
    await peer.send(f_reset(3))
    return side, peer


async def read(side: Side, message: bytes) -> None:
    """A message comes in, and all of it is read."""
    side.session.on_message(memoryview(bytearray(message)))
    await asyncio.sleep(0.001)


@pytest.mark.parametrize("noise", NOISES.values(), ids=list(NOISES))
@virtual
async def test_too_many_frames_that_carry_nothing_end_the_session(noise: bytes) -> None:
    """Ten thousand a second are borne, and as many in the next; more are a breach, whatever they are."""
    side, peer = await noisy()
    for _ in range(3):
        await read(side, noise * (NOISE_MOST - 100))
        assert not side.session.ended
        await asyncio.sleep(1.0)
    await read(side, noise * (2 * NOISE_MOST + 100))
    await settle()
    assert peer.blamed("frames in a second that carry nothing")


@virtual
async def test_a_carrier_may_count_as_well() -> None:
    """What is not even a message counts for more: pings of the transport's own, empty messages, tiny fragments."""
    side, peer = await noisy()
    for _ in range(NOISE_MOST // OF_CARRIER - 10):
        side.session.on_noise()
    assert not side.session.ended
    for _ in range(NOISE_MOST // OF_CARRIER + 20):
        side.session.on_noise()
    await settle()
    assert peer.blamed("frames in a second that carry nothing")


@virtual
async def test_what_was_given_cause_for_is_no_noise() -> None:
    """Each stream opened, and each KiB of data, gives leave for more: visitors that come and go cost no session."""
    side, peer = await noisy()
    rounds = NOISE_MOST // 8
    for at in range(rounds):
        number = 5 + 2 * at
        stream = side.open().stream
        assert stream is not None
        stream.reset(ResetCode.CANCEL)
        late = f_head(number) + f_data(number, b"x") + f_data(number, b"", ended=True) + f_credit(number) * 9
        side.session.on_message(memoryview(late))
    await settle()
    assert not side.session.ended, peer.verdict


@pytest.mark.parametrize("shape", ["one message", "many messages"])
@virtual
async def test_others_have_their_turn(shape: str) -> None:
    """Between two turns of a flood the loop goes round once; the carrier is not read meanwhile, and then again."""
    side, _ = await noisy()
    asked: list[str] = []
    side.carrier.pause = lambda: asked.append("pause")  # type: ignore[method-assign]
    side.carrier.resume = lambda: asked.append("resume")  # type: ignore[method-assign]
    owner = side.owners[0]
    one, count = f_data(1, b"x"), 64 * TURN
    turns = [0]
    for message in [one * count] if shape == "one message" else [one * 8] * (count // 8):
        side.session.on_message(memoryview(bytearray(message)))
    while owner.size < count:
        seen = owner.size
        await asyncio.sleep(0)
        assert owner.size - seen <= TURN + SMALL // len(one)
        turns.append(owner.size)
    assert len(turns) > 8
    await asyncio.sleep(0)
    assert (asked[0], asked[-1]) == ("pause", "resume")
    assert asked.count("pause") <= len(turns)


@virtual
async def test_bulk_lets_others_have_their_turn() -> None:
    """A few large frames are a turn as well: the loop goes round, and nothing is lost."""
    side, _ = await noisy()
    asked: list[str] = []
    side.carrier.pause = lambda: asked.append("pause")  # type: ignore[method-assign]
    side.carrier.resume = lambda: asked.append("resume")  # type: ignore[method-assign]
    owner = side.owners[0]
    piece = f_data(1, bytes(STREAM_WINDOW // 2))
    for _ in range(8):
        before = owner.size
        sent = 0
        while "pause" not in asked:
            side.session.on_message(memoryview(bytearray(piece)))
            sent += STREAM_WINDOW // 2
        assert TURN_BYTES - len(piece) <= owner.size - before == sent <= TURN_BYTES
        side.session.on_message(memoryview(bytearray(piece)))  # which the carrier had read already
        assert owner.size - before == sent
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert owner.size - before == sent + STREAM_WINDOW // 2
        assert asked == ["pause", "resume"]
        asked.clear()
    assert not side.session.ended


@virtual
async def test_small_messages_that_waited_are_read_together() -> None:
    """A turn is so many frames, in however many messages they came."""
    side, _ = await noisy()
    owner = side.owners[0]
    side.session.on_message(memoryview(bytearray(f_data(1, b"x") * TURN)))
    for _ in range(TURN // 4):
        side.session.on_message(memoryview(bytearray(f_data(1, b"y"))))
    assert owner.size == TURN
    await asyncio.sleep(0)
    assert owner.size == TURN + TURN // 4


@virtual
async def test_what_came_before_the_end_is_read_before_it() -> None:
    """A peer that answers at length and leaves at once has answered."""
    side, _ = await noisy()
    owner = side.owners[0]
    side.session.on_message(memoryview(f_data(1, b"x") * 1000 + f_data(1, b"", ended=True)))
    side.session.on_lost("it left")
    assert side.lost == []
    await asyncio.sleep(0.001)
    assert (owner.size, owner.trailers, side.lost) == (1000, b"", ["it left"])


@virtual
async def test_an_error_far_behind_is_found() -> None:
    """What stood before it had its effect, what stands behind it has none."""
    side, peer = await noisy()
    owner = side.owners[0]
    await read(side, f_data(1, b"x") * 1000 + f_data(77) + f_data(1, b"y"))
    side.session.on_message(memoryview(f_data(1, b"z")))
    await settle()
    assert peer.blamed("never opened")
    assert bytes(owner.body) == b"x" * 1000


@given(st.lists(st.integers(0, 600), min_size=1, max_size=6), st.integers(0, 40))
def test_turns_change_nothing_but_when(counts: list[int], cut: int) -> None:
    """Whatever the sizes of messages and frames, all arrives, in order, also a message that ends inside a frame."""

    async def main() -> None:
        side, peer = against(opener=True)
        side.open()
        await settle()
        expected = b""
        for number, count in enumerate(counts):
            parts = [bytes([number, at % 256]) * (1 + at % 7) for at in range(count)]
            expected += b"".join(parts)
            message = b"".join(f_data(1, part) for part in parts)
            assert len(message) <= MAX_MESSAGE
            side.session.on_message(memoryview(bytearray(message)))
        if cut:
            side.session.on_message(memoryview(bytearray((f_data(1, b"") * 200 + f_data(1, bytes(40)))[:-cut])))
        await asyncio.sleep(0.001)
        assert bytes(side.owners[0].body) == expected
        assert side.session.ended == bool(cut)
        assert peer is not None

    run_virtual(main())
