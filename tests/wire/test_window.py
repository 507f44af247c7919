"""A receiver's window: what it may never do whatever happens, and how it grows and settles."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.wire.errors import RemoteProtocolError
from relay.wire.frames import MAX_CREDIT, MAX_SESSION_WINDOW, STREAM_WINDOW
from relay.wire.window import HEADROOM, LEAST_ROUND_TRIP, ReceiveWindow

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
        return window.grant(window.received if self.by_receipt else window.consumed, self.now, round_trip)


@given(BOUNDS, STEPS, st.booleans())
def test_no_run_breaks_the_bounds(bounds: tuple[int, int], steps: list[tuple[str, float, float]], by_receipt: bool) -> None:
    """Whatever happens: credit only grows, and never lets more than `most` bytes be unconsumed; the size keeps its bounds."""
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
    assert [window.grant(window.consumed, float(now), 0.1) for now in range(100)] == [0] * 100
    assert window.held() == STREAM_WINDOW


def run(window: ReceiveWindow, rate: float, round_trip: float, seconds: float, start: float = 0.0) -> tuple[int, float]:
    """A sender of `rate` bytes a second at a distance; (bytes that moved in the last half, that half in seconds).

    Credit takes half a round trip back, data half a round trip on; all is consumed at once.
    """
    tick = min(round_trip / 20, 0.005)
    ticks, delay = int(seconds / tick), max(int(round_trip / tick), 1)
    usable = [window.granted] * delay
    sent = half = window.received
    for number in range(ticks):
        now = start + number * tick
        amount = min(int(rate * tick), usable[0] - sent)
        sent += amount
        window.on_received(amount)
        window.consumed = window.received
        window.grant(window.consumed, now, round_trip)
        usable = [*usable[1:], window.granted]
        if number == ticks // 2:
            half = sent
    return sent - half, (ticks - ticks // 2 - 1) * tick


@pytest.mark.parametrize("round_trip", [0.01, 0.1, 0.3])
def test_a_fast_sender_far_away_is_not_capped(round_trip: float) -> None:
    """A path of 50 MB/s is filled after a few round trips, however long it is."""
    window = ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW)
    moved, seconds = run(window, 50e6, round_trip, max(40 * round_trip, 2.0))
    assert moved / seconds > 0.9 * 50e6


@pytest.mark.parametrize(("rate", "round_trip"), [(10e6, 0.1), (2e6, 0.2), (30e6, 0.05)])
def test_a_window_settles_a_little_above_need(rate: float, round_trip: float) -> None:
    """Once the path is the limit, the window is no more than about 1.25 times bandwidth × round trip."""
    window = ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW)
    run(window, rate, round_trip, 60 * round_trip)
    assert window.size <= rate * round_trip * HEADROOM * 1.1
    assert window.size >= rate * round_trip


def test_a_window_shrinks_when_its_sender_slows_down() -> None:
    """A window that grew for a fast transfer gives the memory back once little comes."""
    window = ReceiveWindow(STREAM_WINDOW, MAX_SESSION_WINDOW)
    run(window, 50e6, 0.1, 4.0)
    grown = window.size
    run(window, 1e5, 0.1, 120.0, start=4.0)
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
        window.grant(window.consumed, now, 0.0)
    assert window.size > 8 * STREAM_WINDOW
