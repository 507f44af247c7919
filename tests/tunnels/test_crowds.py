"""How many of one caller and of all there may be, how often one may come in vain."""

from __future__ import annotations

import pytest

from relay.tunnels import crowds
from relay.tunnels.crowds import FAILURES_A_SECOND, FAILURES_AT_ONCE, Crowd, Failures
from tests.support.clock import ManualClock


def test_one_network_has_its_bound_and_all_have_theirs() -> None:
    """One too many is told from far too many; whoever leaves makes room, whether there was some for it or not."""
    crowd = Crowd(6, 2)
    assert [crowd.enter("a") for _ in range(5)] == [0, 0, 1, 1, 2]
    assert crowd.enter("b") == 0
    assert crowd.enter("c") == 1  # the seventh of all
    assert len(crowd) == 7
    for _ in range(5):
        crowd.leave("a")
    assert [crowd.enter("a") for _ in range(3)] == [0, 0, 1]
    assert len(crowd) == 5


def test_far_too_many_in_all() -> None:
    """From however many networks."""
    crowd = Crowd(2, 2)
    assert [crowd.enter(str(number)) for number in range(6)] == [0, 0, 1, 1, 2, 2]


def test_who_stands_for_many_has_no_bound_of_its_own() -> None:
    """Only that of all."""
    crowd = Crowd(3, 1)
    assert [crowd.enter("") for _ in range(4)] == [0, 0, 0, 1]
    for _ in range(4):
        crowd.leave("")
    assert len(crowd) == 0


def test_nobody_that_left_is_remembered() -> None:
    """However many networks there were."""
    crowd = Crowd(10, 10)
    for number in range(1000):
        crowd.enter(str(number))
        crowd.leave(str(number))
    assert not crowd._of


def test_who_fails_often_waits() -> None:
    """So many failures at once, then as many a second as come back; others are not touched, success costs nothing."""
    clock, failures = ManualClock(), Failures()
    for _ in range(int(FAILURES_AT_ONCE)):
        assert failures.wait("a", clock()) == 0
        failures.failed("a", clock())
    assert failures.wait("a", clock()) == pytest.approx(1 / FAILURES_A_SECOND)
    assert failures.wait("b", clock()) == 0
    clock.advance(1 / FAILURES_A_SECOND)
    assert failures.wait("a", clock()) == 0
    passed = 0
    for _ in range(1000):  # a hundred a second for ten seconds
        clock.advance(0.01)
        if not failures.wait("a", clock()):
            failures.failed("a", clock())
            passed += 1
    assert passed == pytest.approx(10 * FAILURES_A_SECOND, abs=1)


def test_those_let_in_together_are_paid_for() -> None:
    """Whoever opens many connections before the first has failed gets no more of them."""
    clock, failures = ManualClock(), Failures()
    for _ in range(64):
        failures.failed("a", clock())
    assert failures.wait("a", clock()) == pytest.approx((64 - FAILURES_AT_ONCE + 1) / FAILURES_A_SECOND)


def test_what_is_hardly_a_failure_weighs_less() -> None:
    """A quarter each: four times as many, until less than a whole one is left."""
    clock, failures = ManualClock(), Failures()
    for _ in range(4 * int(FAILURES_AT_ONCE) - 3):
        assert failures.wait("a", clock()) == 0
        failures.failed("a", clock(), 0.25)
    assert failures.wait("a", clock()) > 0


def test_the_number_of_networks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that failed least lately is forgotten first."""
    monkeypatch.setattr(crowds, "MOST_REMEMBERED", 3)
    clock, failures = ManualClock(), Failures()
    for name in ("a", "b", "c", "a", "d"):
        for _ in range(30):
            failures.failed(name, clock())
    assert [name for name in ("a", "b", "c", "d") if failures.wait(name, clock())] == ["a", "c", "d"]
