"""A receiver's window: what it may never do whatever happens, and how it grows and settles."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.errors import RemoteProtocolError
from relay.wire.frames import MAX_CREDIT, MAX_SESSION_WINDOW, SESSION_WINDOW, STREAM_WINDOW
from relay.wire.window import LEAST_ROUND_TRIP, NARROW_TRIPS, ReceiveWindow, SessionWindow, Trips

BOUNDS = st.tuples(st.integers(8, 100_000), st.integers(1, 64)).map(lambda pair: (pair[0], pair[0] * pair[1]))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["receive", "consume", "wait"]),
        st.floats(0, 1),
        st.sampled_from([0.0, 0.0001, 0.004, 0.05, 0.1, 3.0]),
    ),
    max_size=60,
)


@dataclass
class Peer:
    """A window with a lawful sender and a consumer, driven step by step. `by_receipt`: as a session's credit goes."""

    window: ReceiveWindow
    by_receipt: bool
    now: float = 100.0

    def step(self, what: str, share: float, round_trip: float) -> int:
        """One step, then the chance to grant; returns the credit given."""
        window = self.window
        if what == "receive":
            window.on_received(int((window.granted - window.received) * share))
        elif what == "consume":
            window.consumed += int(window.held() * share)
        else:
            self.now += share
        return self.grant(round_trip)

    def grant(self, round_trip: float) -> int:
        window = self.window
        base = window.received if self.by_receipt else window.consumed
        return window.grant(base, self.now, Trips(round_trip, round_trip))


@given(BOUNDS, STEPS, st.booleans())
def test_no_run_breaks_the_bounds(
    bounds: tuple[int, int], steps: list[tuple[str, float, float]], by_receipt: bool
) -> None:
    """Credit only grows, never lets more than `most` bytes be unconsumed, and the size keeps its bounds."""
    least, most = bounds
    peer = Peer(ReceiveWindow(least, most), by_receipt)
    window = peer.window
    for step in steps:
        before = window.granted
        given_now = peer.step(*step)
        assert given_now >= 0
        assert window.granted == before + given_now
        assert window.granted - window.consumed <= most
        assert least <= window.size <= most
        assert 0 <= window.held() <= most


@given(BOUNDS, STEPS, st.booleans(), st.sampled_from([0.0, 0.02, 0.5]))
def test_a_sender_whose_bytes_were_consumed_may_go_on(
    bounds: tuple[int, int], steps: list[tuple[str, float, float]], by_receipt: bool, round_trip: float
) -> None:
    """After any run, when all credit was used and all of it consumed, there is new credit: nothing stalls for ever."""
    peer = Peer(ReceiveWindow(*bounds), by_receipt)
    window = peer.window
    for step in steps:
        peer.step(*step)
    window.on_received(window.granted - window.received)
    window.consumed = window.received
    assert peer.grant(round_trip) > 0


@given(BOUNDS, STEPS, st.booleans(), st.integers(1, 2**31))
def test_one_byte_above_the_credit_is_the_peers_error(
    bounds: tuple[int, int], steps: list[tuple[str, float, float]], by_receipt: bool, more: int
) -> None:
    """All credit may be used, and not a byte more."""
    peer = Peer(ReceiveWindow(*bounds), by_receipt)
    for step in steps:
        peer.step(*step)
    window = peer.window
    window.on_received(window.granted - window.received)
    with pytest.raises(RemoteProtocolError):
        window.on_received(more)


@given(STEPS, st.booleans())
def test_credit_on_the_way_stays_within_its_bound(steps: list[tuple[str, float, float]], by_receipt: bool) -> None:
    """What a lawful sender holds never comes near 2^31-1, with the greatest windows in use."""
    peer = Peer(ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW), by_receipt)
    for step in steps:
        peer.step(*step)
        assert peer.window.granted - peer.window.received <= MAX_CREDIT // 16


def test_nothing_consumed_gives_no_credit() -> None:
    """A stream whose reader stopped gets its first window and no more, however long that lasts."""
    window = ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW)
    window.on_received(STREAM_WINDOW)
    assert [window.grant(window.consumed, float(now), Trips(0.1, 0.1)) for now in range(100)] == [0] * 100
    assert window.held() == STREAM_WINDOW


def run(window: ReceiveWindow, rate: float, round_trip: float, seconds: float, start: float = 0.0) -> tuple[int, float]:
    """A greedy sender on a path of `rate` bytes a second that queues what is too much; pings wait in that queue.

    (bytes that moved in the last half, that half in seconds). Credit takes half a round trip back, data half a round
    trip on, and its turn in the queue; all is consumed at once.
    """
    tick = min(round_trip / 20, 0.005)
    ticks, delay = int(seconds / tick), max(int(round_trip / tick), 1)
    usable = [window.granted] * delay
    half = window.received
    for number in range(ticks):
        now = start + number * tick
        queued = usable[0] - window.received
        amount = min(int(rate * tick), queued)
        window.on_received(amount)
        window.consumed = window.received
        trips = Trips(round_trip, round_trip + (queued - amount) / rate)
        window.grant(window.consumed, now, trips)
        usable = [*usable[1:], window.granted]
        if number == ticks // 2:
            half = window.received
    return window.received - half, (ticks - ticks // 2 - 1) * tick


@pytest.mark.parametrize("round_trip", [0.01, 0.1, 0.3])
def test_a_fast_sender_far_away_is_not_capped(round_trip: float) -> None:
    """A path of 50 MB/s is filled after a few round trips, however long it is."""
    window = ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW)
    moved, seconds = run(window, 50e6, round_trip, max(40 * round_trip, 2.0))
    assert moved / seconds > 0.9 * 50e6


@pytest.mark.parametrize(("rate", "round_trip"), [(30e6, 0.1), (20e6, 0.2), (100e6, 0.05)])
def test_a_sessions_window_settles_a_little_above_need(rate: float, round_trip: float) -> None:
    """A path that queues is kept full, and what waits in it stays below half a round trip."""
    window = SessionWindow(SESSION_WINDOW, MAX_SESSION_WINDOW)
    moved, seconds = run(window, rate, round_trip, 60 * round_trip)
    assert moved / seconds > 0.9 * rate
    assert rate * round_trip <= window.size <= 1.5 * rate * round_trip


def test_a_streams_window_stays_within_reach_of_need() -> None:
    """A stream's window grows past the need of its path, so that it is never the limit, but not without end."""
    window = ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW)
    run(window, 10e6, 0.1, 6.0)
    assert 10e6 * 0.1 <= window.size <= 10e6 * 0.1 * 2 * NARROW_TRIPS


def test_a_window_shrinks_when_its_consumer_slows_down() -> None:
    """A window that grew for a fast transfer gives the memory back once little is taken."""
    window = ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW)
    run(window, 50e6, 0.1, 4.0)
    grown, now = window.size, 10.0
    while window.received < window.granted or now < 400:
        now += 0.1
        window.on_received(window.granted - window.received)
        window.consumed = min(window.received, window.consumed + 100_000)
        window.grant(window.consumed, now, Trips(0.1, 0.1))
    assert grown > 4_000_000
    assert window.size < grown // 4


def test_a_local_path_is_measured_in_turns_of_the_loop() -> None:
    """Without distance the window still grows: a round trip counts as no less than a few milliseconds."""
    window = ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW)
    now = 0.0
    for _ in range(2000):
        now += LEAST_ROUND_TRIP / 8
        window.on_received(window.granted - window.received)
        window.consumed = window.received
        window.grant(window.consumed, now, Trips())
    assert window.size > 8 * STREAM_WINDOW
