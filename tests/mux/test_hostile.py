"""Peers that break the protocol or abuse it: the session ends with a named reason, and what it holds stays bounded."""

from __future__ import annotations

import asyncio
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mux import session as session_room
from relay.mux.errors import SessionBusy
from relay.mux.outbox import CONTROL_BUSY, CONTROL_MOST
from relay.wire import frames
from relay.wire.errors import AwayCode, ResetCode
from relay.wire.frames import HEADER, MAX_EXTENSION, MAX_MESSAGE, encode, encode_going_away
from tests.mux.ends import (
    Owner,
    RawPeer,
    Side,
    against,
    f_credit,
    f_data,
    f_end,
    f_head,
    f_open,
    f_ping,
    f_reset,
    settle,
)
from tests.support.carriers import pair
from tests.support.clock import run_virtual, virtual
from tests.wire.strategies import messages


def raw(kind: int, number: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame that `encode` would refuse."""
    return HEADER.pack(number, kind << 24 | (len(payload) if length is None else length)) + payload


# (what it is, whether it is said to the relay, to the agent, the message, words of the verdict)
BAD: list[tuple[str, bool, bool, bytes, str]] = [
    ("half a header", True, True, b"\0\0\0", "inside a frame header"),
    ("half a frame", True, True, raw(frames.DATA, 1, b"abc", length=4), "inside a frame"),
    ("an unknown type", True, True, raw(0x30, 1), "unknown frame type 0x30"),
    ("an END flag where there is none", True, True, raw(frames.RESET | 0x40, 1, b"\0\0\0"), "unknown frame type"),
    ("an extension that is too long", True, True, raw(0x80, 0, bytes(MAX_EXTENSION + 1)), "extension frame"),
    ("a message that is too long", True, True, f_data(1, bytes(262_144)) * 4, "message of"),
    ("data on the session", True, True, raw(frames.DATA, 0, b"x"), "DATA on stream 0"),
    ("a ping on a stream", True, True, raw(frames.PING, 1, bytes(8)), "PING on stream 1"),
    ("a short ping", True, True, raw(frames.PING, 0, bytes(7)), "PING of 7 bytes"),
    ("a stream number above the bound", True, True, raw(frames.DATA, 2**31, b"x"), "on stream"),
    ("OPEN from the agent", True, False, f_open(1), "OPEN"),
    ("OPEN from the agent of a number of its own", True, False, f_open(2), "OPEN of stream 2"),
    ("OPEN of an even number", False, True, f_open(4), "OPEN of stream 4"),
    ("OPEN of a stream that is open", False, True, f_open(1), "which is open"),
    ("OPEN of a number that was passed over", False, True, f_open(9) + f_open(5), "OPEN of stream 5"),
    ("HEAD from the relay", False, True, f_head(1), "HEAD from the side that opens streams"),
    ("DATA on a stream that was never opened", True, True, f_data(77), "DATA on stream 77, which was never opened"),
    ("END on a stream that was never opened", True, True, f_end(77), "END on stream 77"),
    ("HEAD on a stream that was never opened", True, True, f_head(77), "HEAD on stream 77"),
    ("RESET on a stream that was never opened", True, True, f_reset(77), "RESET on stream 77"),
    ("CREDIT on a stream that was never opened", True, True, f_credit(77), "CREDIT on stream 77"),
    ("DATA on an even number", True, True, f_data(2), "which was never opened"),
    ("END twice", True, True, f_end(1) + f_end(1), "END on stream 1, which has ended"),
    ("DATA behind END", True, True, f_end(1) + f_data(1), "DATA on stream 1, which has ended"),
    ("HEAD behind END", True, False, f_head(1, ended=True) + f_head(1), "which has ended"),
    ("DATA behind OPEN+END", False, True, f_open(3, ended=True) + f_data(3), "which has ended"),
]
CASES = [
    pytest.param(role, message, words, id=f"{what}, to the {'relay' if role else 'agent'}")
    for what, to_relay, to_agent, message, words in BAD
    for role, said in ((True, to_relay), (False, to_agent))
    if said
]


async def with_one_stream(*, relays: bool) -> tuple[Side, RawPeer, Owner]:
    """A session that is established, with stream 1 open."""
    side, peer = against(opener=relays)
    if relays:
        side.open()
        await settle()
    else:
        await peer.send(f_open(1))
    return side, peer, side.owners[0]


@pytest.mark.parametrize(("relays", "message", "words"), CASES)
@virtual
async def test_what_breaks_the_protocol_ends_the_session(relays: bool, message: bytes, words: str) -> None:
    """The peer is told what it did, the carrier is closed with 1002, every stream's owner hears of the end, and what
    stood before the bad frame had its effect."""
    side, peer, owner = await with_one_stream(relays=relays)
    await peer.send(f_data(1, b"good") if words.startswith("DATA on stream 77") else b"", message)
    assert peer.blamed(words), peer.verdict
    assert side.carrier.closed is not None
    assert side.carrier.closed[0] == 1002
    assert owner.reset is not None
    assert owner.reset[:2] == (-1, True)
    assert side.session.ended
    assert len(side.lost) == 1
    if words.startswith("DATA on stream 77"):
        assert bytes(owner.body) == b"good"


@pytest.mark.parametrize("relays", [True, False], ids=["relay", "agent"])
@virtual
async def test_frames_of_later_versions_are_passed_over(relays: bool) -> None:
    """Extensions, whatever their stream number, and an empty message mean nothing; frames around them count."""
    side, peer, owner = await with_one_stream(relays=relays)
    await peer.send(raw(0x80, 0), raw(0xFF, 2**32 - 1, bytes(MAX_EXTENSION)), f_data(1, b"x"), raw(0xC0, 77, b"y"))
    await peer.send()
    assert not side.session.ended
    assert bytes(owner.body) == b"x"


BEFORE = [
    ("OPEN", f_open(1), "OPEN before the handshake is done"),
    ("DATA", f_data(1), "never opened"),
    ("HEAD", f_head(1), "never opened"),
    ("END", f_end(1), "never opened"),
    ("RESET", f_reset(1), "never opened"),
    ("CREDIT on a stream", f_credit(1), "never opened"),
]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        *(pytest.param(frame, words, id=name) for name, frame, words in BEFORE),
        pytest.param(f_credit(0), "CREDIT", id="CREDIT on the session"),
    ],
)
@virtual
async def test_only_pings_come_before_the_handshake(frame: bytes, words: str) -> None:
    """Every other frame in front of it ends the session."""
    one, other = pair()
    side, peer = Side(one, opener=False), RawPeer(other)
    await peer.send(f_ping(b"pingping"))
    assert peer.frames == [(frames.PONG, 0, b"pingping")]
    await peer.send(frame)
    assert peer.blamed(words)
    assert side.owners == []


async def deaf(*, opener: bool, max_streams: int = 4096) -> Side:
    """A session whose peer takes not one more message."""
    side, _ = against(opener=opener, max_streams=max_streams)
    side.carrier.rate = 0.001
    await settle()
    side.session.send(f_ping())
    await settle()
    assert not side.session.writable
    return side


def held(side: Side) -> int:
    """Bytes of memory that wait to be sent as control frames."""
    return sum(map(sys.getsizeof, side.session.outbox.control)) + sys.getsizeof(side.session.outbox.control)


FLOODS = {
    "pings": lambda at: f_ping() * 6000,
    "opens beyond the bound": lambda at: b"".join(f_open(2 * (at * 9000 + n) + 1) for n in range(9000)),
}


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> int:
    """A lower bound of what may wait for a peer, which a test reaches sooner; the real one is 8 MiB."""
    assert CONTROL_MOST == 8 * 1024 * 1024
    monkeypatch.setattr(session_room, "CONTROL_MOST", 512 * 1024)
    return 512 * 1024


@pytest.mark.parametrize("flood", FLOODS)
@virtual
async def test_a_flood_from_a_peer_that_reads_nothing_ends_the_session(flood: str, bound: int) -> None:
    """What must be answered piles up to a bound, then the session is cut; the memory is a few times the bound."""
    side = await deaf(opener=False, max_streams=1)
    most = at = 0
    while not side.session.ended:
        assert at < 8, "sooner than it is taken for dead"
        side.session.on_message(memoryview(FLOODS[flood](at)))
        await asyncio.sleep(1.0)
        most = max(most, held(side))
        at += 1
    assert bound // 2 < most < 6 * bound
    await settle()
    assert side.lost == ["the peer reads nothing and too much waits for it"]


@virtual
async def test_no_stream_is_opened_for_a_peer_that_reads_nothing() -> None:
    """Visitors' requests do not pile up behind a link that is stuck: they are refused at a much lower bound."""
    side = await deaf(opener=True, max_streams=100_000)
    count = 0
    with pytest.raises(SessionBusy):
        while True:
            side.open(bytes(50_000))
            count += 1
    assert count <= CONTROL_BUSY // 50_000 + 1
    assert not side.session.ended


@virtual
async def test_a_session_that_is_cut_while_a_stream_ends_is_no_error_of_the_stream(bound: int) -> None:
    """The very frame that passes the bound may be an END: its writer is told by `on_reset`, not by an exception."""
    side, _, owner = await with_one_stream(relays=False)
    side.carrier.rate = 0.001
    side.session.send(f_ping())
    await settle()
    stream = owner.stream
    assert stream is not None
    side.session.send(bytes(bound - side.session.outbox.size))
    assert not side.session.ended
    stream.send_head(b"200", ended=True)
    assert side.session.ended
    assert owner.reset is not None


@virtual
async def test_streams_that_come_and_go_leave_nothing() -> None:
    """Thousands of streams opened and reset at once: none is kept, and their data counts as consumed."""
    side, _ = against(opener=False)
    side.make = lambda: Owner(greedy=False)
    for at in range(0, 6000, 2000):
        message = b"".join(f_open(2 * n + 1) + f_data(2 * n + 1) + f_reset(2 * n + 1) for n in range(at, at + 2000))
        side.session.on_message(memoryview(message))
        await asyncio.sleep(0.1)
        side.owners.clear()
    assert side.session.streams == {}
    assert side.session.window.held() == 0
    assert not side.session.ended
    assert side.session.outbox.size < 100


@virtual
async def test_frames_that_mean_nothing_leave_nothing() -> None:
    """Empty data, credit for closed streams, answers that nobody asked for: legal, and without a trace."""
    side, _, owner = await with_one_stream(relays=True)
    noise = f_data(1, b"") + encode(frames.PONG, 0, bytes(8)) + raw(0x99, 5)
    for _ in range(4):
        side.session.on_message(memoryview(noise * 400))
    await asyncio.sleep(0.1)
    assert owner.size == 0
    assert owner.stream is not None
    owner.stream.reset(ResetCode.CANCEL)
    for _ in range(4):
        side.session.on_message(memoryview((f_credit(1, 2**30) + f_data(1, b"") + f_reset(1)) * 400))
    await asyncio.sleep(0.1)
    assert not side.session.ended
    assert side.session.outbox.size == 0


@virtual
async def test_going_away_again_and_again_is_heard() -> None:
    """It may be said more than once, with any code."""
    side, peer, _ = await with_one_stream(relays=True)
    for code in (0, 2, 77, 65535):
        await peer.send(encode_going_away(code, 0, "bye"))
    assert side.away == [(code, "bye") for code in (0, 2, 77, 65535)]
    assert not side.session.ended


@given(st.lists(messages(), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_no_bytes_do_anything_but_events_or_an_end(some: list[bytes], relays: bool, established: bool) -> None:
    """Any messages, to either side, before or after the handshake: nothing is raised, and if the session ends the
    peer was told that it broke the protocol. No owner is told anything after its end."""

    async def main() -> None:
        troubles: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        side, peer = against(opener=relays)
        side.session.established = established
        if relays and established:
            side.open()
            side.open(ended=True)
        await settle()
        for message in some:
            await peer.send(message)
            assert len(message) <= MAX_MESSAGE
        if side.session.ended:
            assert peer.verdict is not None
            assert peer.verdict[0] == AwayCode.PROTOCOL_ERROR
            assert side.session.streams == {}
        assert side.session.outbox.credit >= 0
        assert troubles == []

    run_virtual(main())
