"""A key's life, with time and chance in the hands of the test."""

from __future__ import annotations

import math

import pytest

from relay.agent.config import MintedKey
from relay.agent.lifetimes import HeldKey, Moment, hold

DAY = 86400.0
START = Moment(1_000_000.0, 50.0)
ALMOST_ONE = 0.999999


def later(seconds: float, steady: float | None = None) -> Moment:
    """So many seconds later, on the steady clock perhaps fewer."""
    return Moment(START.wall + seconds, START.steady + (seconds if steady is None else steady))


def a_key(life: float = DAY, *, ahead: float = 0.0, chance: float = 0.0, renewable: bool = True) -> HeldKey:
    issued = START.wall + ahead
    return hold(MintedKey("secret", issued, issued + life, renewable), START, chance)


@pytest.mark.parametrize("chance", [0.0, 0.5, ALMOST_ONE])
@pytest.mark.parametrize("life", [60.0, 3600.0, DAY, 30 * DAY])
def test_a_key_is_replaced_at_two_thirds(life: float, chance: float) -> None:
    """Or up to a hundredth earlier, so that many agents do not come at once."""
    due = a_key(life, chance=chance).due / life
    assert 2 / 3 - 0.01 <= due <= 2 / 3


@pytest.mark.parametrize("ahead", [-10 * 365 * DAY, -DAY, 0.0, 3600.0, 10 * 365 * DAY])
def test_a_wrong_clock_costs_nothing(ahead: float) -> None:
    """Only the length of the life is believed, however far the clock of whoever signed the key is from this one."""
    key = a_key(ahead=ahead)
    assert key.age(later(0)) == 0
    assert not key.over(later(0.98 * DAY))
    assert key.over(later(0.99 * DAY))


def test_sleep_counts() -> None:
    """The steady clock of a machine that slept stood still; the wall clock did not."""
    assert a_key().age(later(5 * 3600, steady=1.0)) == 5 * 3600


@pytest.mark.parametrize("back", [1.0, 3600.0, 30 * DAY])
def test_a_wall_clock_that_was_set_back_does_not_make_a_key_younger(back: float) -> None:
    """The steady clock saw the time pass."""
    assert a_key().age(later(-back, steady=7200.0)) == 7200.0


def test_a_wall_clock_that_was_wrong_for_a_while_leaves_nothing_behind() -> None:
    """Set forward and back again, it counts as if it had never been wrong."""
    key = a_key()
    assert key.over(later(2 * DAY, steady=10.0))
    assert key.age(later(20.0, steady=20.0)) == 20.0


@pytest.mark.parametrize("chance", [0.0, ALMOST_ONE])
def test_what_fails_is_tried_again_more_and_more_rarely_and_in_the_last_tenth_for_certain(chance: float) -> None:
    """From a hundredth of the life up to a twentieth; one attempt falls on nine tenths, and one on the very end."""
    key = a_key()
    ages, delays = [key.due], []
    while ages[-1] < 0.99 * DAY:
        delays.append(key.put_off(later(ages[-1]), chance) / DAY)
        ages.append(key.due)
        assert len(ages) < 40
    assert 0.005 <= delays[0] <= 0.01
    assert max(delays) <= 0.05
    assert 0.9 in [pytest.approx(age / DAY) for age in ages]
    assert ages[-1] / DAY == pytest.approx(0.99)
    assert sum(age > 0.9 * DAY for age in ages) >= 2


def test_a_key_that_is_over_is_still_put_off() -> None:
    """Its successor may be hard to get; there is a pause between attempts."""
    key = a_key()
    assert 0.005 * DAY <= key.put_off(later(5 * DAY), 0.0) <= 0.05 * DAY
    assert key.due > 5 * DAY


@pytest.mark.parametrize("life", [0.0, -5.0, 0.001])
def test_keys_that_are_over_at_once_are_not_minted_without_a_pause(life: float) -> None:
    """They count as if they lived a second."""
    assert a_key(life).due >= 0.6


def test_a_key_given_by_hand_is_as_old_as_it_says() -> None:
    """It was issued long before; it is due, for a warning, when a tenth of its life is left."""
    key = a_key(renewable=False, ahead=-DAY / 2)
    assert key.age(later(0)) == DAY / 2
    assert key.due == pytest.approx(0.9 * DAY)


def test_a_key_without_an_end_is_never_due() -> None:
    """Nothing is known of it but its text."""
    key = hold(MintedKey("secret", 0.0, math.inf, renewable=False), START, 0.0)
    assert key.due == math.inf
    assert not key.over(later(100 * 365 * DAY))
    assert key.age(later(1)) == 1


def test_a_held_key_shows_no_secret() -> None:
    """Not in its representation, which ends up in messages."""
    assert "secret" not in repr(a_key())
    assert "secret" not in repr(MintedKey("secret", 0, 1, renewable=True))
