"""How long a visitor may keep us waiting; time is given."""

from __future__ import annotations

import pytest

from relay.edge.patience import LEAST_RATE, NEVER, RATE_SPAN, Patience


def test_there_is_one_deadline_and_its_reason() -> None:
    """The last expectation counts, and none by itself."""
    patience = Patience()
    assert (patience.deadline, patience.reason) == (NEVER, "")
    patience.expect("head", 10.0)
    patience.expect("body", 5.0)
    assert (patience.deadline, patience.reason) == (5.0, "body")
    patience.wait_for_ever()
    assert (patience.deadline, patience.reason) == (NEVER, "")


def run(patience: Patience, rate: float, seconds: float, *, ready: bool = True, start: float = 0.0) -> float | None:
    """When a body of `rate` bytes a second is called too slow, in seconds from `start`; None: not within `seconds`."""
    step = 0.25
    for number in range(1, int(seconds / step) + 1):
        patience.on_body(int(rate * step))
        if patience.too_slow(start + number * step, ready):
            return number * step
    return None


@pytest.mark.parametrize("rate", [0, 4, 40, 60])
def test_a_body_below_the_rate_is_too_slow_after_a_span(rate: float) -> None:
    """Not before the span is over, and then at once."""
    patience = Patience()
    patience.start_body(0.0)
    assert run(patience, rate, 300.0) == RATE_SPAN


@pytest.mark.parametrize("rate", [LEAST_RATE, 1000])
def test_a_body_at_the_rate_may_take_for_ever(rate: float) -> None:
    """There is no total."""
    patience = Patience()
    patience.start_body(0.0)
    assert run(patience, rate, 3600.0) is None


def test_every_span_is_judged_by_itself() -> None:
    """A fast beginning buys no slow end."""
    patience = Patience()
    patience.start_body(0.0)
    assert run(patience, 1e6, RATE_SPAN) is None
    assert run(patience, 1, 300.0, start=RATE_SPAN) == RATE_SPAN


def test_time_in_which_we_do_not_read_is_not_counted() -> None:
    """An honest uploader behind a slow local service is never too slow; the clock goes on where it stood."""
    patience = Patience()
    patience.start_body(0.0)
    assert run(patience, 0, 30.0) is None
    assert run(patience, 0, 3600.0, ready=False, start=30.0) is None
    assert run(patience, 0, 300.0, start=3630.0) == RATE_SPAN - 30.0


def test_a_new_body_begins_a_new_span() -> None:
    """Neither time nor bytes of the body before count."""
    patience = Patience()
    patience.start_body(0.0)
    run(patience, 1e6, 59.0)
    patience.start_body(100.0)
    assert run(patience, 1, 300.0, start=100.0) == RATE_SPAN
