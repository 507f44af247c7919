"""A session's life: the handshake's place, opening, going away, ending, and what every owner is told by then."""

from __future__ import annotations

import asyncio

import pytest

from relay.mux.errors import SessionBusy, SessionGone
from relay.wire import frames
from relay.wire.errors import AwayCode, ResetCode
from relay.wire.frames import encode
from tests.mux.ends import HELLO, Owner, RawPeer, Side, against, f_data, f_end, f_head, f_open, joined, settle, watched
from tests.support.carriers import pair
from tests.support.clock import virtual


@virtual
async def test_no_stream_before_the_handshake() -> None:
    """Before `establish` nothing can be opened here, and an OPEN of the peer ends the session."""
    one, other = pair()
    side = Side(one, opener=True)
    with pytest.raises(SessionGone):
        side.open()
    side, peer = Side(other, opener=False), RawPeer(one)
    await peer.send(f_open(1))
    assert peer.blamed("OPEN before the handshake")
    assert side.owners == []


@pytest.mark.parametrize("kind", [frames.HELLO, frames.WELCOME, frames.REFUSED, frames.RENEW, frames.RENEWED])
@virtual
async def test_the_handshake_is_the_owners(kind: int) -> None:
    """Its frames are handed on as they are, at any time; what is wrong about them the owner says."""
    one, other = pair()
    side, peer = Side(one, opener=True), RawPeer(other)
    await peer.send(encode(kind, 0, HELLO))
    assert side.handshakes == [(kind, HELLO)]


@virtual
async def test_streams_are_bounded_on_both_sides() -> None:
    """The opener refuses itself one stream too many; an accepter answers one with a reset, and takes the next later."""
    ends = joined(max_streams=3)
    first = [ends.relay.open() for _ in range(3)]
    with pytest.raises(SessionBusy):
        ends.relay.open()
    await settle()
    side, peer = against(opener=False, max_streams=3)
    await peer.send(*(f_open(number) for number in (1, 3, 5, 7)))
    assert len(side.owners) == 3
    resets = [(number, payload[:2]) for kind, number, payload in peer.frames if kind == frames.RESET]
    assert resets == [(7, ResetCode.TOO_MANY_STREAMS.to_bytes(2, "big"))]
    await peer.send(f_data(7, b"late"), f_end(7), f_open(9))
    assert peer.kinds(9) == ["RESET"]
    assert not side.session.ended
    assert first[0].stream is not None
    first[0].stream.reset(ResetCode.CANCEL)
    ends.relay.open()


@virtual
async def test_numbers_rise_and_are_odd() -> None:
    """Streams are numbered 1, 3, 5; an accepter takes gaps."""
    side, peer = against(opener=True)
    assert [side.open().stream.id for _ in range(3)] == [1, 3, 5]  # type: ignore[union-attr]
    side, peer = against(opener=False)
    await peer.send(f_open(7), f_open(101))
    assert sorted(side.session.streams) == [7, 101]


@virtual
async def test_a_session_that_runs_out_of_numbers_says_so() -> None:
    """After the last number nothing more is opened, and the peer is told to come anew."""
    side, peer = against(opener=True)
    side.session._last_id = frames.MAX_STREAM_ID - 4
    last = side.open()
    assert last.stream is not None
    assert last.stream.id <= frames.MAX_STREAM_ID
    with pytest.raises(SessionGone):
        side.open()
    await settle()
    assert peer.verdict is not None
    assert peer.verdict[0] == AwayCode.SHUTDOWN


@pytest.mark.parametrize("leaver", ["relay", "agent"])
@virtual
async def test_going_away_lets_open_streams_go_on(leaver: str) -> None:
    """A stream that is open ends as if nothing were. An agent that goes away takes no new one; a relay that does so may
    still open some, until it ends the session."""
    ends = joined(delay=0.01)
    relay, agent = await ends.opened()
    mine, theirs = (ends.relay, ends.agent) if leaver == "relay" else (ends.agent, ends.relay)
    mine.session.go_away(AwayCode.SHUTDOWN, "restarting")
    await settle(0.01)
    assert theirs.away == [(AwayCode.SHUTDOWN, "restarting")]
    assert mine.away == []
    if leaver == "agent":
        with pytest.raises(SessionGone):
            ends.relay.open()
    else:
        later = ends.relay.open(ended=True)
        await settle(0.01)
        newest = ends.agent.owners[-1].stream
        assert newest is not None
        newest.send_head(b"200", ended=True)
        await settle(0.01)
        assert later.names == ["head", "end"]
    assert relay.stream is not None
    assert agent.stream is not None
    relay.stream.write(bytes(200_000))
    relay.stream.end()
    agent.stream.send_head(b"200")
    agent.stream.write(bytes(200_000))
    agent.stream.end()
    for _ in range(20):
        await settle(0.01)
    assert (relay.size, relay.trailers, agent.size, agent.trailers) == (200_000, b"", 200_000, b"")
    assert not ends.relay.session.ended


@virtual
async def test_an_open_that_crossed_a_going_away_is_served() -> None:
    """The agent says that it goes; a stream that was opened before the relay heard it is accepted."""
    ends = joined(delay=0.05)
    ends.agent.session.go_away(AwayCode.SHUTDOWN, "")
    relay = ends.relay.open(ended=True)
    await settle(0.05)
    (agent,) = ends.agent.owners
    assert agent.stream is not None
    agent.stream.send_head(b"200", ended=True)
    await settle(0.05)
    assert relay.names == ["head", "end"]


@pytest.mark.parametrize("code", AwayCode)
@virtual
async def test_close_says_why_and_tells_every_owner_once(code: AwayCode) -> None:
    """The peer hears code and reason and then the carrier ends; owners on both sides see one reset, the session's
    owners one `on_lost`, and nothing can be opened any more."""
    ends = joined()
    pairs = [await ends.opened() for _ in range(5)]
    ends.relay.session.close(code, "because it must be")
    assert all(relay.reset == (-1, True, "because it must be") for relay, _ in pairs)
    ends.relay.session.close(code, "a second time")
    ends.relay.session.abort("a third time")
    await settle()
    assert ends.agent.away == [(code, "because it must be")]
    assert all(agent.reset is not None and agent.reset[0] == -1 for _, agent in pairs)
    assert ends.relay.lost == ["because it must be"]
    assert ends.agent.lost == ["because it must be"]
    expected = {AwayCode.PROTOCOL_ERROR: 1002, AwayCode.SHUTDOWN: 1001, AwayCode.OVERLOADED: 1013}.get(code, 1008)
    assert ends.relay.carrier.closed == (expected, "because it must be")
    for side in (ends.relay, ends.agent):
        assert side.session.streams == {}
        with pytest.raises(SessionGone):
            side.session.open(b"x", True, Owner())


@virtual
async def test_abort_says_nothing_and_tells_every_owner_once() -> None:
    """The carrier is cut; owners on both sides see one reset and one `on_lost`."""
    ends = joined()
    relay, agent = await ends.opened()
    ends.agent.session.abort("enough")
    assert agent.reset == (-1, True, "enough")
    await settle()
    assert relay.reset is not None
    assert (ends.agent.lost, len(ends.relay.lost), ends.relay.away) == (["enough"], 1, [])


@virtual
async def test_an_ended_session_is_deaf_and_mute() -> None:
    """What still arrives, or is written by an owner that has not noticed, is nothing; no timer goes on."""
    side, _ = against(opener=True)
    owner = side.open()
    stream = owner.stream
    assert stream is not None
    side.session.close(AwayCode.SHUTDOWN, "stop")
    sent = side.carrier.messages
    side.session.on_message(memoryview(f_head(1) + f_data(1)))
    side.session.send(f_data(1))
    side.session.on_writable()
    stream.reset(ResetCode.CANCEL)
    stream.consumed(100)
    await asyncio.sleep(100)
    assert side.carrier.messages == sent
    assert owner.names == ["reset"]


@virtual
async def test_an_owner_may_close_the_session_from_any_event() -> None:
    """Closing it inside an event of a stream ends the rest of the message quietly."""
    troubles = watched()
    side, peer = against(opener=True)
    owners = [side.open() for _ in range(3)]
    owners[0].react = lambda name: side.session.close(AwayCode.SHUTDOWN, "now") if name == "head" else None
    await settle()
    await peer.send(f_head(1), f_data(1), f_head(3), f_head(5, ended=True))
    assert [owner.names for owner in owners] == [["head", "reset"], ["reset"], ["reset"]]
    assert troubles == []


@virtual
async def test_load_counts_what_moves() -> None:
    """`load` grows by the bytes of data that are sent and received, and by nothing else."""
    ends = joined()
    relay, agent = await ends.opened()
    before = ends.relay.session.load()
    assert relay.stream is not None
    assert agent.stream is not None
    relay.stream.write(bytes(1000))
    agent.stream.send_head(bytes(500))
    agent.stream.write(bytes(2000))
    await settle()
    assert ends.relay.session.load() - before == 3000


# ---- an owner that fails


@pytest.mark.parametrize("event", ["head", "data", "end", "reset"])
@virtual
async def test_an_owner_that_fails_costs_its_own_stream_only(event: str) -> None:
    """An exception in an event is reported, the stream is reset as `internal`, and the rest of the message counts."""
    troubles = watched()
    side, peer = against(opener=True)
    bad, good = side.open(), side.open()

    def fail(name: str) -> None:
        if name == event:
            raise RuntimeError("a defect")

    bad.react = fail
    await settle()
    parts = [f_head(1), f_data(1), f_end(1)] if event != "reset" else [frames.encode_reset(1, 0)]
    await peer.send(*parts, f_head(3), f_data(3, ended=True))
    assert good.names == ["head", "data", "end"]
    assert [str(trouble["exception"]) for trouble in troubles] == ["a defect"]
    assert peer.kinds(1)[-1] == ("OPEN" if event == "reset" else "RESET")
    assert 1 not in side.session.streams
    assert not side.session.ended


@virtual
async def test_an_owner_that_fails_at_the_end_of_the_session_keeps_nobody_from_hearing_of_it() -> None:
    """Every owner and the session's are told, whoever fails."""
    troubles = watched()
    side, _ = against(opener=True)
    owners = [side.open() for _ in range(3)]

    def fail(name: str) -> None:
        raise RuntimeError("a defect")

    owners[0].react = fail
    side.carrier.abort()
    await settle()
    assert all(owner.reset is not None for owner in owners)
    assert len(troubles) == 1
    assert side.lost == ["aborted"]


@virtual
async def test_an_owner_that_fails_to_accept_costs_that_stream_only() -> None:
    """An exception in `on_open` resets the new stream; others, and later ones, are accepted."""
    troubles = watched()
    side, peer = against(opener=False)

    def accept(owner: Owner) -> Owner:
        if owner.payload == b"bad":
            raise RuntimeError("a defect")
        return owner

    side.on_opened = accept
    side.session.on_message(memoryview(f_open(1, b"bad") + f_open(3) + f_data(3)))
    await settle()
    assert side.owners[1].names == ["data"]
    assert sorted(side.session.streams) == [3]
    assert peer.kinds(1) == ["RESET"]
    assert len(troubles) == 1


@virtual
async def test_an_owner_that_fails_to_go_on_costs_its_own_stream_only() -> None:
    """An exception in `on_writable` resets that stream; a neighbour served by the same message goes on."""
    troubles = watched()
    ends = joined(delay=0.001)
    bad, bad_agent = await ends.opened()
    good, good_agent = await ends.opened()

    def fail(name: str) -> None:
        raise RuntimeError("a defect")

    bad.react = fail
    for owner in (bad, good):
        assert owner.stream is not None
        assert not owner.stream.write(bytes(200_000))
    await asyncio.sleep(1.0)
    assert good.writable == 1
    assert good_agent.size == 200_000
    assert bad_agent.reset is not None
    assert len(troubles) == 1
