"""Allowances: what is limited, what was used in which month, and that there is one for each id."""

from __future__ import annotations

import gc
import math

from hypothesis import given
from hypothesis import strategies as st

from relay.keys.scopes import Scope
from relay.limits.allowances import NOTHING, Allowance, Allowances, Totals

COUNTS = st.integers(0, 1000)
TOTALS = st.builds(Totals, COUNTS, COUNTS, COUNTS)
MONTHS = st.sampled_from(("2026-10", "2026-11", "2026-12"))


def allowance(**limits: int) -> Allowance:
    return Allowance("key", Scope(**limits), 0.0)  # type: ignore[arg-type]


def test_only_what_a_request_meets_is_a_limit() -> None:
    """Names, and how many tunnels there may be, cost no request anything."""
    assert not allowance().limited
    assert not allowance(tunnels=3).limited
    for member in ("rate", "bandwidth", "streams", "body", "monthly_requests", "monthly_bytes"):
        assert allowance(**{member: 5}).limited, member


def test_a_new_scope_keeps_what_was_used() -> None:
    """Counts, open streams and the level of the rate stay; bands change their rate under those who use them."""
    one = allowance(rate=100, bandwidth=1000)
    one.count(1, 2, 3, "2026-11")
    one.streams = 7
    rate, up = one.rate, one.up
    assert rate is not None
    assert rate.take(25, 0.0)
    one.rescope(Scope(rate=40, bandwidth=5000), 0.0)
    assert one.rate is rate
    assert (rate.rate, rate.depth, rate.level(0.0)) == (40, 10, 0)
    assert one.up is up
    assert up.rate == 5000
    assert (one.used("2026-11"), one.streams) == (Totals(1, 2, 3), 7)
    one.rescope(Scope(), 1.0)
    assert not one.limited
    assert one.rate is None
    assert up.rate == math.inf
    assert not up.limited


def test_used_is_what_is_known_and_what_is_not_written() -> None:
    """What the registry says counts for all nodes; what waits to be written is added, once."""
    one = allowance(monthly_requests=10)
    one.count(3, 10, 20, "2026-11")
    one.learn("2026-11", Totals(100, 1000, 2000))
    assert one.used("2026-11") == Totals(103, 1010, 2020)
    assert one.unwritten() == [("2026-11", Totals(3, 10, 20))]
    one.count(1, 0, 0, "2026-11")
    one.written("2026-11", Totals(3, 10, 20))
    assert one.used("2026-11") == Totals(104, 1010, 2020)
    assert one.unwritten() == [("2026-11", Totals(1, 0, 0))]
    one.learn("2026-11", Totals(150, 1010, 2020))
    assert one.used("2026-11") == Totals(151, 1010, 2020)


def test_a_new_month_starts_at_zero() -> None:
    """What belongs to the old one is still to be written, and what is sampled late still belongs to it."""
    one = allowance(monthly_requests=10)
    one.learn("2026-11", Totals(5, 0, 0))
    one.count(4, 0, 0, "2026-11")
    one.count(1, 0, 0, "2026-12")
    assert one.used("2026-12") == Totals(1, 0, 0)
    assert (one.requests_in("2026-12"), one.requests_in("2027-01")) == (1, 0)
    one.count(2, 1, 1, "2026-11")
    one.learn("2026-11", Totals(999, 0, 0))
    assert one.used("2026-12") == Totals(1, 0, 0)
    assert sorted(one.unwritten()) == [("2026-11", Totals(6, 1, 1)), ("2026-12", Totals(1, 0, 0))]
    one.written("2026-11", Totals(6, 1, 1))
    assert one.unwritten() == [("2026-12", Totals(1, 0, 0))]
    assert one.used("2027-01") == NOTHING


@given(st.lists(st.tuples(MONTHS, TOTALS)), st.lists(st.booleans()))
def test_every_count_is_written_once(counts: list[tuple[str, Totals]], writes: list[bool]) -> None:
    """In whatever order months come and writes happen, what was written is what was counted, month by month."""
    one = allowance()
    sums: dict[str, Totals] = {}
    books: dict[str, Totals] = {}

    def write() -> None:
        for month, totals in one.unwritten():
            books[month] = books.get(month, NOTHING).plus(totals)
            one.written(month, totals)

    for (month, more), now in zip(counts, [*writes, *[False] * len(counts)], strict=False):
        one.count(more.requests, more.bytes_in, more.bytes_out, month)
        sums[month] = sums.get(month, NOTHING).plus(more)
        latest = max(sums)
        assert one.used(latest).plus(NOTHING) == sums[latest]
        if now:
            write()
    write()
    assert one.unwritten() == []
    assert {month: totals for month, totals in sums.items() if totals != NOTHING} == books


def test_one_object_for_each_id() -> None:
    """The scope given last counts; whoever is held, or has something to be written, is not made anew."""
    every = Allowances()
    one = every.of("key", Scope(rate=5), 0.0)
    assert every.of("key", Scope(rate=6), 0.0) is one
    assert one.scope == Scope(rate=6)
    assert every.get("key") is one
    one.count(1, 0, 0, "2026-11")
    every.forget(["key", "nobody"])
    assert len(every) == 1
    one.written("2026-11", Totals(1, 0, 0))
    every.forget(["key"])
    assert len(every) == 0
    assert every.get("key") is one
    assert every.of("key", Scope(), 0.0) is one
    every.forget(["key"])
    del one
    gc.collect()
    assert every.get("key") is None
