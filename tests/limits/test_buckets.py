"""The token bucket: what it gives, when it gives again, and that it never gives more than its rate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.limits.buckets import SLACK, Bucket

RATES = st.floats(0.1, 1e9)
AMOUNTS = st.floats(0.01, 1e6)


def test_starts_full_and_fills_at_its_rate() -> None:
    """A bucket of depth 4 gives 4 at once, then 2 a second, and never holds more than 4."""
    bucket = Bucket(2.0, 4.0)
    assert [bucket.take(1, 10.0) for _ in range(5)] == [True] * 4 + [False]
    assert bucket.level(11.0) == pytest.approx(2.0)
    assert bucket.level(1000.0) == 4.0


def test_a_take_is_whole_or_nothing() -> None:
    """A take that does not succeed leaves what was there."""
    bucket = Bucket(1.0, 3.0)
    assert not bucket.take(4, 0.0)
    assert bucket.level(0.0) == 3.0


def test_more_than_the_depth_never_comes() -> None:
    """Nobody is told to wait for more than can ever be there."""
    assert Bucket(1.0, 3.0).wait(3.5, 0.0) == math.inf


def test_a_debt_counts() -> None:
    """What was spent beyond the level is missing afterwards."""
    bucket = Bucket(10.0, 10.0)
    bucket.spend(30, 0.0)
    assert bucket.level(0.0) == -20.0
    assert bucket.wait(1, 0.0) == pytest.approx(2.1)
    assert bucket.take(1, 2.1)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """An earlier time is as good as the last one."""
    bucket = Bucket(10.0, 10.0)
    bucket.spend(10, 5.0)
    assert bucket.level(1.0) == 0.0
    assert bucket.level(5.5) == pytest.approx(5.0)


def test_another_rate_counts_from_now_on() -> None:
    """What was there stays, as far as the new depth holds it."""
    bucket = Bucket(10.0, 10.0)
    bucket.spend(10, 0.0)
    bucket.change(1.0, 2.0, 0.5)
    assert bucket.level(0.5) == 2.0
    bucket.spend(2, 0.5)
    assert bucket.level(1.5) == pytest.approx(1.0)


@pytest.mark.parametrize(("rate", "depth"), [(0, 1), (1, 0), (-1, 1), (1, -1), (math.nan, 1)])
def test_a_bucket_that_gives_nothing_is_refused(rate: float, depth: float) -> None:
    """Rate and depth are above zero."""
    with pytest.raises(ValueError, match="gives nothing"):
        Bucket(rate, depth)


@given(RATES, st.floats(0.01, 1e6), st.floats(0, 1e7), st.lists(AMOUNTS, max_size=20), AMOUNTS)
def test_waiting_exactly_so_long_is_enough(
    rate: float, depth: float, start: float, spent: list[float], amount: float
) -> None:
    """Whatever was spent before, `take` succeeds after `wait` seconds, and not a little earlier."""
    bucket = Bucket(rate, depth)
    for some in spent:
        bucket.spend(some, start)
    wait = bucket.wait(amount, start)
    if amount > depth:
        assert wait == math.inf or (wait == 0.0 and amount <= depth + rate * SLACK)
        return
    before = start + wait * 0.99
    if wait > 1e-3 and before < start + wait - 10 * SLACK:
        assert not bucket.take(amount, before)
    assert bucket.take(amount, start + wait)


@given(RATES, st.lists(st.tuples(st.floats(0, 10), AMOUNTS), min_size=1, max_size=50))
def test_never_more_than_depth_and_rate(rate: float, takes: list[tuple[float, float]]) -> None:
    """What is taken over any stretch is at most the depth and what came in meanwhile."""
    depth = max(rate / 4, 1.0)
    bucket = Bucket(rate, depth)
    now, taken = 100.0, 0.0
    for pause, amount in takes:
        now += pause
        if bucket.take(amount, now):
            taken += amount
    allowed = depth + rate * (now - 100.0)
    assert taken <= allowed * (1 + 1e-9) + rate * SLACK
