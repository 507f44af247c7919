"""Is the peer alive, and how far away: pings and their answers, round trips, the verdict, a probe."""

from __future__ import annotations

import asyncio

import pytest

from relay.mux.keepalive import BUSY_INTERVAL, DEAD_AFTER, FIRST_PINGS, SMALLEST_OF, Keepalive
from relay.wire import frames
from relay.wire.frames import encode
from tests.mux.ends import against, between, f_data, f_ping, joined, settle
from tests.mux.test_windows import keep_writing
from tests.support.carriers import pair
from tests.support.clock import ManualClock, elapsed, virtual

VERDICT_WITHIN = 15.0


# ---- the room by itself: time is passed in


def test_one_ping_is_outstanding_at_a_time() -> None:
    """No second ping before the answer, and nonces that differ."""
    keepalive = Keepalive(5.0)
    first = keepalive.ping(100.0)
    assert first is not None
    assert keepalive.ping(101.0) is None
    keepalive.on_pong(first, 102.0)
    second = keepalive.ping(103.0)
    assert second not in (None, first)


def test_round_trips_are_measured_from_answers() -> None:
    """The last round trip and the smallest of late ones; a wrong or repeated answer counts for nothing."""
    clock = ManualClock()
    keepalive = Keepalive(5.0)
    for trip in (0.3, 0.1, 0.2):
        nonce = keepalive.ping(clock())
        assert nonce is not None
        assert not keepalive.on_pong(nonce + 1, clock.advance(0.01))
        keepalive.on_pong(nonce, clock.advance(trip - 0.01))
        assert not keepalive.on_pong(nonce, clock.advance(1.0))
        assert keepalive.trips.last == pytest.approx(trip)
    assert keepalive.trips.smallest == pytest.approx(0.1)


def test_the_smallest_round_trip_is_forgotten_after_a_while() -> None:
    """A path that became longer is believed in the end."""
    clock = ManualClock()
    keepalive = Keepalive(5.0)
    for trip in (0.01, *[0.2] * (int(SMALLEST_OF / 0.2) + 2)):
        nonce = keepalive.ping(clock())
        assert nonce is not None
        keepalive.on_pong(nonce, clock.advance(trip))
    assert keepalive.trips.smallest == pytest.approx(0.2)


def test_a_new_session_pings_a_few_times_in_a_row() -> None:
    """`in_burst` asks for another ping until the round trip is known well enough."""
    keepalive = Keepalive(5.0)
    again = []
    for at in range(FIRST_PINGS + 2):
        nonce = keepalive.ping(float(at))
        assert nonce is not None
        assert keepalive.on_pong(nonce, at + 0.1)
        again.append(keepalive.in_burst)
    assert again == [True] * (FIRST_PINGS - 1) + [False] * 3


def test_a_busy_session_measures_often_but_not_always() -> None:
    """While data flows the next ping is wanted a round trip after the last answer, or a little while if longer."""
    keepalive = Keepalive(5.0)
    nonce = keepalive.ping(0.0)
    assert nonce is not None
    assert not keepalive.wants_ping(1.0)
    keepalive.on_pong(nonce, 0.01)
    assert not keepalive.wants_ping(0.01 + BUSY_INTERVAL - 0.001)
    assert keepalive.wants_ping(0.01 + BUSY_INTERVAL + 0.001)
    nonce = keepalive.ping(1.0)
    assert nonce is not None
    keepalive.on_pong(nonce, 1.4)
    assert not keepalive.wants_ping(1.79)
    assert keepalive.wants_ping(1.81)


@pytest.mark.parametrize("interval", [0.05, 5.0, 60.0])
def test_the_verdict_comes_when_it_is_due(interval: float) -> None:
    """Asked when it says, it is never dead before `DEAD_AFTER`, and dead at the next question after it."""
    keepalive = Keepalive(interval)
    now = 0.0
    assert keepalive.next_check(now) == interval
    keepalive.ping(now)
    while not keepalive.dead(now):
        assert now < DEAD_AFTER
        step = keepalive.next_check(now)
        assert 0 < step <= max(interval, DEAD_AFTER)
        now += step
    assert DEAD_AFTER <= now <= DEAD_AFTER + 0.02


# ---- the same in a session


@virtual
async def test_both_sides_learn_the_round_trip_at_once() -> None:
    """Before the first regular interval each side knows how far the other is."""
    ends = joined(delay=0.05)
    await asyncio.sleep(0.5)
    for side in (ends.relay, ends.agent):
        assert side.session.keepalive.trips.smallest == pytest.approx(0.1, rel=0.01)


@virtual
async def test_a_ping_is_answered_with_its_bytes_also_before_the_handshake() -> None:
    """PONG brings back the eight bytes, whatever they are."""
    one, other = pair()
    side = between(one, other).relay
    side.session.established = False
    sent, got = against(opener=False)
    sent.session.established = False
    await got.send(f_ping(b"\xff\0abcdef"))
    assert (frames.PONG, 0, b"\xff\0abcdef") in got.frames


@virtual
async def test_a_quiet_session_lives_for_ever() -> None:
    """An hour without a stream: pings are answered, nobody gives up, and they are not many."""
    ends = joined(delay=0.02)
    await asyncio.sleep(3600)
    assert not ends.relay.session.ended
    assert not ends.agent.session.ended
    assert 700 < ends.relay.carrier.messages < 3000


@pytest.mark.parametrize("swallowed", ["to the agent", "to the relay", "both"])
@pytest.mark.parametrize("busy", [False, True])
@virtual
async def test_a_half_open_path_is_noticed(swallowed: str, busy: bool) -> None:
    """When nothing arrives any more in one direction or both, both sides give up within 15 seconds, with a reason,
    also while data still comes in the other direction."""
    ends = joined(delay=0.02, rate=10e6)
    relay, agent = await ends.opened()
    if busy:
        relay.keep = agent.keep = False
        keep_writing(agent)()
        keep_writing(relay)()
    await asyncio.sleep(7.3)
    loop = asyncio.get_running_loop()
    cut = loop.time()
    ends.relay.carrier.swallow = swallowed in ("to the agent", "both")
    ends.agent.carrier.swallow = swallowed in ("to the relay", "both")
    told: list[float] = []
    for side, owner in ((ends.relay, relay), (ends.agent, agent)):
        while owner.reset is None:
            assert loop.time() - cut < VERDICT_WITHIN
            await asyncio.sleep(0.05)
        told.append(loop.time() - cut)
        assert side.session.ended
        assert owner.reset[0] == -1
    await settle(0.1)
    assert ends.relay.lost == ["the other side does not answer"] or ends.agent.lost == [
        "the other side does not answer"
    ]
    assert len(ends.relay.lost) == len(ends.agent.lost) == 1
    assert min(told) > DEAD_AFTER - 5.0


@virtual
async def test_frames_that_merely_arrive_prove_nothing() -> None:
    """A peer that sends data without end, and no answers, is dead all the same."""
    side, peer = against(opener=True)
    owner = side.open()
    owner.keep = False
    for _ in range(1000):
        await peer.send(f_data(1, bytes(10)), encode(frames.PONG, 0, bytes(8)))
        if side.session.ended:
            break
        await asyncio.sleep(0.02)
    assert side.session.ended
    assert owner.reset == (-1, True, "the other side does not answer")


@virtual
async def test_a_slow_answer_is_no_verdict() -> None:
    """A path of four seconds each way is slow, not dead."""
    ends = joined(delay=4.0)
    await asyncio.sleep(120)
    assert not ends.relay.session.ended
    assert ends.relay.session.keepalive.trips.last == pytest.approx(8.0, rel=0.01)


@virtual
async def test_a_probe_tells_who_is_there() -> None:
    """True as soon as the answer is there; False in the end on a path that swallows, and on an ended session."""
    ends = joined(delay=0.05)
    await asyncio.sleep(1.0)
    session = ends.relay.session
    assert await elapsed(session.probe(0.7)) < 0.11
    assert all(await asyncio.gather(session.probe(0.7), session.probe(0.7)))
    ends.relay.carrier.swallow = True
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert await session.probe(0.7) is False
    assert loop.time() - start == pytest.approx(0.7, rel=0.01)
    waiting = asyncio.ensure_future(session.probe(5.0))
    await settle()
    session.abort("gone")
    await settle()
    assert waiting.done()
    assert waiting.result() is False
    assert await session.probe(0.7) is False


@virtual
async def test_a_probe_is_not_fooled_by_an_answer_that_nobody_asked_for() -> None:
    """A PONG whose bytes belong to no ping of ours is ignored by a probe too."""
    side, peer = against(opener=True)
    waiting = asyncio.ensure_future(side.session.probe(0.7))
    await settle()
    await peer.send(encode(frames.PONG, 0, b"\xee" * 8))
    assert not waiting.done()
    assert await waiting is False
