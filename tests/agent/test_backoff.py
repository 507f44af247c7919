"""Delays of an outage, with chance in the hands of the test."""

from __future__ import annotations

import pytest

from relay.agent.backoff import Backoff

ALMOST_ONE = 0.999999


def delays(elapsed: float, count: int, chance: float = ALMOST_ONE) -> list[float]:
    backoff = Backoff(lambda: chance)
    return [round(backoff.next(elapsed), 3) for _ in range(count)]


def test_first_attempt_is_at_once() -> None:
    """Whatever the outage, its first attempt does not wait."""
    assert Backoff(lambda: ALMOST_ONE).next(0.0) == 0.0
    assert Backoff(lambda: ALMOST_ONE).next(500.0) == 0.0


@pytest.mark.parametrize(
    ("elapsed", "expected"),
    [
        (0.0, [0.0, 0.1, 0.2, 0.25, 0.25, 0.25]),
        (9.99, [0.0, 0.1, 0.2, 0.25, 0.25, 0.25]),
        (10.0, [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (119.99, [0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (120.0, [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]),
    ],
)
def test_upper_end_doubles_up_to_the_cap_of_the_outages_age(elapsed: float, expected: list[float]) -> None:
    """0.25 s in the first 10 s, 1 s up to two minutes, then 30 s."""
    assert delays(elapsed, len(expected)) == expected


def test_jitter_is_full() -> None:
    """A delay may be anything from nothing to its upper end."""
    assert delays(0.0, 4, chance=0.0) == [0.0] * 4
    assert delays(0.0, 4, chance=0.5) == [0.0, 0.05, 0.1, 0.125]


def test_a_very_long_outage_stays_at_the_cap() -> None:
    """Ten thousand attempts neither overflow nor grow."""
    backoff = Backoff(lambda: ALMOST_ONE)
    for _ in range(10_000):
        backoff.next(1e6)
    assert 29.9 < backoff.next(1e6) <= 30.0


def test_reset_begins_a_new_outage() -> None:
    """After a success the next attempt is at once again, and the delays are small again."""
    backoff = Backoff(lambda: ALMOST_ONE)
    for _ in range(20):
        backoff.next(1000.0)
    backoff.reset()
    assert [round(backoff.next(0.0), 3) for _ in range(3)] == [0.0, 0.1, 0.2]
