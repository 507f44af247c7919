"""Flow control: every byte is counted twice, on its stream and on the session, and credit follows consumption."""

from __future__ import annotations

import asyncio
import random

import pytest

from relay.wire import frames
from relay.wire.errors import ResetCode
from relay.wire.frames import MAX_CREDIT, SESSION_WINDOW, STREAM_WINDOW, encode_credit
from tests.mux.ends import Owner, Side, against, f_credit, f_data, f_open, joined, settle
from tests.support.clock import virtual

MIB = 1024 * 1024


class Pump:
    """Writes `size` bytes of a known pattern to an owner's stream as fast as `write` lets it, then ends it."""

    def __init__(self, owner: Owner, data: bytes, piece: int) -> None:
        self.owner = owner
        self.data = data
        self.piece = piece
        self.at = 0
        owner.react = self.react

    def react(self, name: str) -> None:
        if name == "writable":
            self.go()

    def go(self) -> None:
        stream = self.owner.stream
        assert stream is not None
        while self.at < len(self.data):
            part = self.data[self.at : self.at + self.piece]
            self.at += len(part)
            if not stream.write(part):
                return
        stream.end()


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_what_goes_in_comes_out_and_no_credit_is_negative(seed: int) -> None:
    """Eight streams of random pieces both ways: all bytes arrive; credit was never below 0; the books are balanced."""
    chance = random.Random(seed)
    ends = joined(delay=0.005, rate=chance.choice([None, 20e6]))
    lowest = [0]

    def audit(side: Side) -> None:
        lowest.append(side.session.outbox.credit)
        lowest.extend(stream.send_credit for stream in side.session.streams.values())

    pumps: list[tuple[Pump, Owner]] = []
    for _ in range(8):
        relay, agent = await ends.opened()
        for mine, theirs in ((relay, agent), (agent, relay)):
            data = chance.randbytes(chance.choice([1, 1000, 70_000, 600_000]))
            pumps.append((Pump(mine, data, chance.choice([1 + len(data) // 50, 16_384, 300_000])), theirs))
    for pump, _ in pumps:
        pump.go()
    for _ in range(400):
        await asyncio.sleep(0.01)
        audit(ends.relay)
        audit(ends.agent)
        if not ends.relay.session.streams and not ends.agent.session.streams:
            break
    for pump, theirs in pumps:
        assert bytes(theirs.body) == pump.data
        assert theirs.trailers == b""
    assert min(lowest) >= 0
    for sender, receiver in ((ends.relay, ends.agent), (ends.agent, ends.relay)):
        window = receiver.session.window
        assert window.received == window.consumed == sender.session.outbox.moved
        assert sender.session.outbox.credit == window.granted - window.received


@virtual
async def test_a_reader_that_stops_stops_only_its_own_stream() -> None:
    """One stream's receiver consumes nothing: its sender is held at the first window, its neighbour moves 10 MB."""
    ends = joined(delay=0.001)
    stuck, stuck_agent = await ends.opened()
    stuck_agent.greedy = False
    free, free_agent = await ends.opened()
    free_agent.keep = False
    Pump(stuck, bytes(MIB), 65_536).go()
    Pump(free, bytes(10_000_000), 65_536).go()
    await asyncio.sleep(1.0)
    assert (free_agent.size, free_agent.trailers) == (10_000_000, b"")
    assert stuck_agent.size == STREAM_WINDOW
    assert stuck.stream is not None
    assert stuck.stream.pending <= 128 * 1024
    stuck_agent.greedy = True
    stuck_agent.take()
    await asyncio.sleep(1.0)
    assert (stuck_agent.size, stuck_agent.trailers) == (MIB, b"")


@pytest.mark.parametrize("window", [1, 2])
@virtual
async def test_unread_bytes_of_a_session_stay_below_its_window(window: int) -> None:
    """With any number of streams that nobody reads, a session holds at most its window, and its sender knows."""
    ends = joined(session_window=window * MIB)
    ends.agent.make = lambda: Owner(greedy=False)
    for _ in range(64):
        relay, _ = await ends.opened()
        Pump(relay, bytes(100_000), 50_000).go()
    await asyncio.sleep(0.5)
    held = ends.agent.session.window.held()
    assert window * MIB * 7 // 8 <= held <= window * MIB
    assert sum(owner.size for owner in ends.agent.owners) == held


@pytest.mark.parametrize("free", ["read", "cut here", "cut there"])
@virtual
async def test_the_session_goes_on_when_what_it_held_is_consumed_or_cut(free: str) -> None:
    """A full session moves again as soon as readers read, or their streams are cut by either side."""
    ends = joined(session_window=MIB)
    ends.agent.make = lambda: Owner(greedy=False)
    for _ in range(20):
        relay, _ = await ends.opened()
        Pump(relay, bytes(STREAM_WINDOW), 50_000).go()
    await settle()
    late, late_agent = await ends.opened()
    late_agent.greedy = True
    Pump(late, bytes(10_000), 10_000).go()
    await settle()
    assert late_agent.size == 0
    for mine, theirs in list(zip(ends.relay.owners, ends.agent.owners, strict=True))[:8]:
        assert mine.stream is not None
        assert theirs.stream is not None
        if free == "read":
            theirs.take()
        elif free == "cut here":
            theirs.stream.reset(ResetCode.CANCEL)
        else:
            mine.stream.reset(ResetCode.CANCEL)
    for _ in range(4):
        await settle()
    assert late_agent.size == 10_000


@virtual
async def test_a_word_about_bytes_that_were_never_held_is_worth_nothing() -> None:
    """`consumed` counts no more than came in, also on a stream that has ended: no credit is made up."""
    side, peer = against(opener=False)
    await peer.send(f_open(1), f_data(1, bytes(1000)))
    (owner,) = side.owners
    assert owner.stream is not None
    owner.stream.consumed(10 * MIB)
    owner.stream.reset(ResetCode.CANCEL)
    owner.stream.consumed(1000)
    await settle()
    window = side.session.window
    assert (window.received, window.consumed) == (1000, 1000)


@pytest.mark.parametrize("relays", [True, False], ids=["relay", "agent"])
@virtual
async def test_a_byte_beyond_a_streams_credit_ends_the_session(relays: bool) -> None:
    """The first window may be used to its last byte, and not one more, whether or not anything was consumed."""
    side, peer = against(opener=relays)
    if relays:
        side.open(owner=Owner(greedy=False))
        await settle()
    else:
        side.make = lambda: Owner(greedy=False)
        await peer.send(f_open(1))
    await peer.send(f_data(1, bytes(STREAM_WINDOW)))
    assert not side.session.ended
    await peer.send(f_data(1, b"!"))
    assert peer.blamed("1 bytes more than the credit given")
    assert side.owners[0].size == STREAM_WINDOW


@virtual
async def test_a_byte_beyond_the_sessions_credit_ends_the_session() -> None:
    """Each stream within its own credit, all of them together beyond the session's."""
    side, peer = against(opener=False, session_window=SESSION_WINDOW)
    side.make = lambda: Owner(greedy=False)
    count = SESSION_WINDOW // STREAM_WINDOW
    await peer.send(*(f_open(2 * number + 1) for number in range(count + 1)))
    for number in range(count):
        await peer.send(f_data(2 * number + 1, bytes(STREAM_WINDOW)))
    assert not side.session.ended
    assert side.session.window.held() == SESSION_WINDOW
    await peer.send(f_data(2 * count + 1, b"!"))
    assert peer.blamed("more than the credit given")
    assert all(owner.reset is not None for owner in side.owners)


@pytest.mark.parametrize("number", [0, 1])
@virtual
async def test_credit_above_its_bound_ends_the_session(number: int) -> None:
    """What may be sent never exceeds 2^31-1, on a stream and on the session: one byte more is the peer's error."""
    side, peer = against(opener=True)
    side.open()
    await settle()
    first = SESSION_WINDOW if number == 0 else STREAM_WINDOW
    await peer.send(encode_credit(number, MAX_CREDIT - first))
    assert not side.session.ended
    await peer.send(f_credit(number, 1))
    assert peer.blamed("more credit than 2^31-1")


@pytest.mark.parametrize("increment", [b"\0\0\0\0", b"\x80\0\0\0", b"\xff\xff\xff\xff"])
@pytest.mark.parametrize("number", [0, 1])
@virtual
async def test_credit_of_nothing_or_too_much_ends_the_session(number: int, increment: bytes) -> None:
    """An increment of 0, or above 2^31-1, is a protocol error."""
    side, peer = against(opener=True)
    side.open()
    await settle()
    await peer.send(frames.encode(frames.CREDIT, number, increment))
    assert peer.blamed("credit of")


@virtual
async def test_credit_lets_exactly_so_much_through() -> None:
    """A sender that has used its window sends what each CREDIT allows, byte by byte, and its end with the last."""
    side, peer = against(opener=True)
    owner = side.open()
    assert owner.stream is not None
    owner.stream.write(bytes(STREAM_WINDOW + 10))
    owner.stream.end()
    await settle()

    def sent() -> int:
        return sum(len(data) for kind, _, data in peer.frames if kind & ~frames.END_FLAG == frames.DATA)

    assert sent() == STREAM_WINDOW
    await peer.send(f_credit(1, 3))
    assert sent() == STREAM_WINDOW + 3
    assert "DATA+END" not in peer.kinds(1)
    await peer.send(f_credit(1, 100))
    assert sent() == STREAM_WINDOW + 10
    assert peer.kinds(1)[-1] == "DATA+END"


@virtual
async def test_a_lack_of_session_credit_holds_streams_without_losing_them() -> None:
    """Streams that wait for the session's credit all go on, in turns, when it comes."""
    side, peer = against(opener=True)
    owners = [side.open() for _ in range(32)]
    for owner in owners:
        assert owner.stream is not None
        owner.stream.write(bytes(STREAM_WINDOW))
    await settle()
    assert side.session.outbox.moved == SESSION_WINDOW
    assert side.session.outbox.credit == 0
    assert owners[-1].stream is not None
    owners[-1].stream.reset(ResetCode.CANCEL)
    await peer.send(f_credit(0, 32 * STREAM_WINDOW))
    assert side.session.outbox.moved >= 31 * STREAM_WINDOW
    assert all(owner.stream is not None and owner.stream.pending == 0 for owner in owners)


@virtual
async def test_writers_are_told_to_wait_and_to_go_on() -> None:
    """`write` says False when 64 KiB are queued; `on_writable` comes once per wait, and not before there is room."""
    side, peer = against(opener=True)
    owner = side.open()
    stream = owner.stream
    assert stream is not None
    assert stream.write(bytes(STREAM_WINDOW - 1))
    await settle()
    assert (stream.pending, owner.writable) == (0, 0)
    assert stream.write(bytes(30_000))
    assert not stream.write(bytes(40_000))
    assert not stream.write(b"!")
    await settle()
    assert owner.writable == 0
    await peer.send(f_credit(1, 30_000))
    assert (stream.pending, owner.writable) == (40_000, 0)
    await peer.send(f_credit(1, 30_000))
    assert (stream.pending, owner.writable) == (10_000, 1)
    await peer.send(f_credit(1, 30_000))
    assert (stream.pending, owner.writable) == (0, 1)
    assert stream.write(b"!")
