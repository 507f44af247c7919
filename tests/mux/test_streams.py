"""A stream's life: every order of frames against the table of states, half-closes, late frames, what owners hear."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relay.wire.errors import LocalProtocolError, ResetCode
from relay.wire.frames import STREAM_WINDOW
from relay.wire.states import TRANSITIONS, Signal, State
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
    f_reset,
    joined,
    settle,
    watched,
)
from tests.support.clock import virtual

RECEIVED = [
    ("DATA", f_data, [Signal.RECV_DATA], False),
    ("DATA+END", lambda n: f_data(n, ended=True), [Signal.RECV_DATA, Signal.RECV_END], False),
    ("empty DATA+END", lambda n: f_data(n, b"", ended=True), [Signal.RECV_END], False),
    ("END", f_end, [Signal.RECV_END], False),
    ("END with trailers", lambda n: f_end(n, b"trailers"), [Signal.RECV_END], False),
    ("RESET", f_reset, [Signal.RECV_RESET], False),
    ("CREDIT", f_credit, [], False),
    ("HEAD", f_head, [Signal.RECV_DATA], True),
    ("HEAD+END", lambda n: f_head(n, ended=True), [Signal.RECV_DATA, Signal.RECV_END], True),
]


async def a_stream(relays: bool, state: State) -> tuple[Side, RawPeer, Owner, int]:
    """One open stream of a session, in `state`; its other end is raw. Stream 1, as the relay's first one is."""
    side, peer = against(opener=relays)
    if relays:
        owner = side.open()
        await settle()
    else:
        await peer.send(f_open(1))
        (owner,) = side.owners
    stream = owner.stream
    assert stream is not None
    if state is State.LOCAL_ENDED:
        stream.end()
    elif state is State.REMOTE_ENDED:
        await peer.send(f_end(1))
    elif state is State.CLOSED:
        stream.reset(ResetCode.CANCEL)
    await settle()
    assert stream.state is state
    return side, peer, owner, stream.id


@pytest.mark.parametrize("relays", [True, False], ids=["relay", "agent"])
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(("frame", "make", "signals", "agents"), RECEIVED, ids=[row[0] for row in RECEIVED])
@virtual
async def test_what_a_frame_does_in_each_state(
    relays: bool, state: State, frame: str, make: object, signals: list[Signal], agents: bool
) -> None:
    """A frame moves the state as the table says, is late on a closed stream, and ends the session otherwise."""
    side, peer, owner, number = await a_stream(relays, state)
    before = list(owner.names)
    expected: State | None = state
    for signal in signals:
        expected = TRANSITIONS[expected].get(signal) if expected is not None else None
    await peer.send(make(number))  # type: ignore[operator]
    assert owner.stream is not None
    if state is State.CLOSED:
        assert not side.session.ended
        assert owner.names == before
    elif agents and not relays:
        assert peer.blamed("HEAD")
    elif expected is None:
        assert peer.blamed("has ended")
        assert owner.reset is not None
        assert owner.reset[0] == -1
    else:
        assert not side.session.ended
        assert owner.stream.state is expected
        assert (number in side.session.streams) == (expected is not State.CLOSED)


@pytest.mark.parametrize("relays", [True, False], ids=["relay", "agent"])
@pytest.mark.parametrize("state", State)
@virtual
async def test_what_may_be_sent_in_each_state(relays: bool, state: State) -> None:
    """Data, heads and an end that the table does not allow are this side's own error, and nothing of them leaves."""
    for signal in (Signal.SEND_DATA, Signal.SEND_END):
        side, peer, owner, number = await a_stream(relays, state)
        stream = owner.stream
        assert stream is not None
        seen = len(peer.kinds())
        expected = TRANSITIONS[state].get(signal)
        if expected is None:
            with pytest.raises(LocalProtocolError):
                stream.end() if signal is Signal.SEND_END else stream.write(b"more")
            with pytest.raises(LocalProtocolError):
                stream.send_head(b"head")
            await settle()
            assert len(peer.kinds()) == seen
            assert stream.state is state
        else:
            stream.end() if signal is Signal.SEND_END else stream.write(b"more")
            await settle()
            assert stream.state is expected
            assert peer.kinds(number)[-1] == ("END" if signal is Signal.SEND_END else "DATA")
        assert not side.session.ended


@pytest.mark.parametrize("state", State)
@virtual
async def test_a_reset_is_always_possible_and_said_once(state: State) -> None:
    """`reset` cuts from every state, sends one frame, and is nothing on a closed stream."""
    side, peer, owner, number = await a_stream(True, state)
    before = peer.kinds(number).count("RESET")
    assert owner.stream is not None
    owner.stream.reset(ResetCode.BAD_BODY, "why", delivered=True)
    owner.stream.reset(ResetCode.BAD_BODY)
    await settle()
    assert peer.kinds(number).count("RESET") - before == (state is not State.CLOSED)
    assert owner.stream.state is State.CLOSED
    assert side.session.streams == {}
    assert owner.reset is None  # it was this side's own doing


@virtual
async def test_each_direction_ends_by_itself() -> None:
    """After one side has ended, the other goes on; the stream is forgotten on both sides when both have."""
    ends = joined()
    relay, agent = await ends.opened()
    assert relay.stream is not None
    assert agent.stream is not None
    relay.stream.write(b"request body")
    relay.stream.end()
    await settle()
    assert (bytes(agent.body), agent.trailers) == (b"request body", b"")
    agent.stream.send_head(b"head")
    for _ in range(3):
        agent.stream.write(b"answer ")
        await settle()
    assert ends.relay.session.streams
    agent.stream.end(b"trailers")
    await settle()
    assert (relay.heads, bytes(relay.body), relay.trailers) == ([b"head"], b"answer " * 3, b"trailers")
    assert relay.names == ["head", "data", "end"]
    assert (ends.relay.session.streams, ends.agent.session.streams) == ({}, {})


@virtual
async def test_the_answer_may_end_before_the_request() -> None:
    """The agent's end leaves the relay's direction open: an early answer while the upload still runs."""
    ends = joined()
    relay, agent = await ends.opened()
    assert relay.stream is not None
    assert agent.stream is not None
    agent.stream.send_head(b"413", ended=True)
    await settle()
    assert relay.names == ["head", "end"]
    relay.stream.write(b"still uploading")
    relay.stream.end()
    await settle()
    assert (bytes(agent.body), agent.trailers) == (b"still uploading", b"")
    assert ends.relay.session.streams == {}


@virtual
async def test_an_open_with_end_has_no_body() -> None:
    """OPEN+END arrives as one event that says so; the opener may not write."""
    ends = joined()
    relay, agent = await ends.opened(b"GET", ended=True)
    assert (agent.payload, agent.ended) == (b"GET", True)
    assert agent.names == []
    assert relay.stream is not None
    with pytest.raises(LocalProtocolError):
        relay.stream.write(b"body")
    assert agent.stream is not None
    agent.stream.send_head(b"204", ended=True)
    await settle()
    assert relay.names == ["head", "end"]
    assert (ends.relay.session.streams, ends.agent.session.streams) == ({}, {})


@pytest.mark.parametrize("trailers", [b"", b"trailers"])
@pytest.mark.parametrize("size", [1, 5_000, 100_000, 3_000_000])
@virtual
async def test_an_end_waits_for_what_is_queued(size: int, trailers: bytes) -> None:
    """`end` right after `write` comes behind all of the data, whatever its size, with its trailers."""
    ends = joined(delay=0.01)
    relay, agent = await ends.opened()
    assert relay.stream is not None
    relay.stream.write(bytes(size))
    relay.stream.end(trailers)
    with pytest.raises(LocalProtocolError):
        relay.stream.write(b"after the end")
    with pytest.raises(LocalProtocolError):
        relay.stream.end()
    for _ in range(20):
        await settle(0.01)
    assert (agent.size, agent.trailers) == (size, trailers)
    assert relay.stream.state is State.LOCAL_ENDED


@virtual
async def test_a_reset_drops_what_is_queued() -> None:
    """After `reset` nothing of the queue leaves, and the peer's owner is told the code, the flag and the detail."""
    ends = joined()
    relay, agent = await ends.opened()
    agent.greedy = False
    assert relay.stream is not None
    relay.stream.write(bytes(500_000))
    await settle()
    assert agent.size == 65_536
    relay.stream.reset(ResetCode.LOCAL_RESET, "broke off at 127.0.0.1:3000", delivered=True)
    await settle()
    assert agent.size == 65_536
    assert agent.reset == (ResetCode.LOCAL_RESET, True, "broke off at 127.0.0.1:3000")
    assert relay.stream.pending == 0
    assert (ends.relay.session.streams, ends.agent.session.streams) == ({}, {})


@virtual
async def test_frames_of_a_stream_that_both_sides_cut_cross_harmlessly() -> None:
    """Both sides reset at once, with data under way: neither is told anything, the session goes on."""
    ends = joined(delay=0.05)
    relay, agent = await ends.opened()
    assert relay.stream is not None
    assert agent.stream is not None
    relay.stream.write(bytes(20_000))
    agent.stream.send_head(b"200")
    agent.stream.write(bytes(20_000))
    await settle()
    relay.stream.reset(ResetCode.CANCEL)
    agent.stream.reset(ResetCode.LOCAL_RESET)
    await settle(0.05)
    assert relay.names == agent.names == []
    other, _ = await ends.opened()
    assert other.reset is None
    assert not ends.relay.session.ended


@virtual
async def test_late_data_counts_on_the_session_and_is_consumed_at_once() -> None:
    """Data for a closed stream uses the session's credit, and the session gives it back: it does not leak away."""
    side, peer = against(opener=False)
    await peer.send(f_open(1))
    (owner,) = side.owners
    assert owner.stream is not None
    owner.stream.reset(ResetCode.CANCEL)
    window = side.session.window
    for _ in range(100):
        await peer.send(f_data(1, bytes(60_000)))
    assert window.received == window.consumed == 6_000_000
    assert window.granted > window.received
    assert not side.session.ended
    assert owner.size == 0


def cutting(owner: Owner, at: str) -> Callable[[str], None]:
    """Cuts the owner's stream inside the event of this name."""

    def react(name: str) -> None:
        if name == at:
            assert owner.stream is not None
            owner.stream.reset(ResetCode.CANCEL)

    return react


@virtual
async def test_an_owner_that_cuts_the_stream_in_an_event_hears_no_more() -> None:
    """A reset inside `on_head`, `on_data` or `on_end` is final, also where the same frame or message holds more."""
    for at in ("head", "data", "end"):
        side, peer = against(opener=True)
        owner = side.open()
        owner.react = cutting(owner, at)
        await settle()
        await peer.send(f_head(1), f_data(1, b"x", ended=True), f_reset(1))
        assert owner.names == {"head": ["head"], "data": ["head", "data"], "end": ["head", "data", "end"]}[at]
        assert not side.session.ended
        assert peer.kinds(1)[-1] == "RESET"


@virtual
async def test_heads_and_data_keep_their_order() -> None:
    """Heads, small data, large data and the end arrive in the order in which they were written."""
    ends = joined()
    relay, agent = await ends.opened(ended=True)
    seen: list[tuple[str, int]] = []
    relay.react = lambda name: seen.append((name, relay.size))
    assert agent.stream is not None
    agent.stream.send_head(b"103")
    agent.stream.send_head(b"200")
    for size in (1, 20_000, 1, 60_000, 1):
        agent.stream.write(bytes(size))
    agent.stream.end()
    for _ in range(4):
        await settle()
    assert [name for name, _ in seen][:2] == ["head", "head"]
    assert seen[-1] == ("end", 80_003)
    assert relay.heads == [b"103", b"200"]


# ---- an answer that is one frame


@pytest.mark.parametrize("more", [0, 1])
@virtual
async def test_all_that_an_answer_is_may_be_one_frame_of_its_first_credit(more: int) -> None:
    """64 KiB are taken without a window; a byte more is a breach, as in several frames."""
    side, peer = against(opener=True)
    owner = side.open(ended=True)
    await settle()
    await peer.send(f_head(1), f_data(1, bytes(STREAM_WINDOW + more), ended=True))
    if more:
        assert peer.blamed("1 bytes more than the credit given")
        assert owner.trailers is None
        return
    assert (owner.names, owner.size, owner.trailers) == (["head", "data", "end"], STREAM_WINDOW, b"")
    assert side.session.streams == {}
    window = side.session.window
    assert (window.received, window.held()) == (STREAM_WINDOW, 0)
    for number in range(3, 103, 2):  # several windows of the session
        side.open(ended=True)
        await peer.send(f_head(number), f_data(number, bytes(STREAM_WINDOW), ended=True))
    assert not side.session.ended
    assert (window.received, window.held()) == (51 * STREAM_WINDOW, 0)
    assert window.granted > window.received


@virtual
async def test_one_frame_counts_on_the_session() -> None:
    """More than the session's credit is a breach, whatever its stream's would be."""
    side, peer = against(opener=True)
    owner = side.open(ended=True)
    await settle()
    window = side.session.window
    window.received = window.granted - 9
    await peer.send(f_head(1), f_data(1, bytes(10), ended=True))
    assert peer.blamed("1 bytes more than the credit given")
    assert owner.size == 0


@virtual
async def test_the_last_frame_of_several_counts_with_those_before() -> None:
    """What came before it and is held is part of the same credit."""
    for last, taken in ((STREAM_WINDOW - 50_000, True), (STREAM_WINDOW - 49_999, False)):
        side, peer = against(opener=True)
        owner = side.open(ended=True, owner=Owner(greedy=False))
        await settle()
        await peer.send(f_head(1), f_data(1, bytes(50_000)))
        await peer.send(f_data(1, bytes(last), ended=True))
        assert peer.blamed("1 bytes more than the credit given") != taken
        assert (owner.trailers == b"") == taken
        assert side.session.window.held() == 0


@virtual
async def test_an_owner_that_fails_on_all_of_an_answer_costs_nobody_else() -> None:
    """Its stream is over and its bytes are not held; the frames behind it are read."""
    side, peer = against(opener=True)
    owner, other = side.open(ended=True), side.open(ended=True)
    await settle()
    troubles = watched()

    def fail(data: memoryview) -> None:
        raise ValueError("a defect")

    owner.on_last = fail  # type: ignore[method-assign]
    await peer.send(f_head(1), f_data(1, ended=True), f_head(3), f_data(3, ended=True))
    assert [one["message"] for one in troubles] == ["an exchange failed"]
    assert other.trailers == b""
    assert (side.session.streams, side.session.window.held(), side.session.ended) == ({}, 0, False)
