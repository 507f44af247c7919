"""Counts of exchanges: classes, errors, times, and a bound on the names of tunnels."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.telemetry.histograms import Histogram
from relay.telemetry.traffic import AT_ONCE, OTHERS, SECONDS, Traffic


@dataclass
class One:
    """An exchange that is over."""

    tunnel: str = "demo"
    status: int = 200
    error: str = ""
    began: float = 100.0
    head_at: float = 100.25
    over_at: float = 101.0
    bytes_in: int = 3
    bytes_out: int = 5


def test_a_histogram_counts_a_value_on_its_bound_below_it() -> None:
    """As Prometheus' buckets do: `le` is less or equal."""
    histogram = Histogram([0.1, 1.0])
    for value in (0.0, 0.1, 0.11, 1.0, 1.01, 50.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 2]
    assert abs(histogram.total - 52.22) < 1e-9


@given(st.lists(st.lists(st.sampled_from(SECONDS) | st.floats(0, 1000)), max_size=3))
def test_values_counted_together_count_as_one_by_one(batches: list[list[float]]) -> None:
    """On a bound, between two, above all, or none at all."""
    together, each = Histogram(SECONDS), Histogram(SECONDS)
    for batch in batches:
        for value in batch:
            each.observe(value)
        together.observe_all(list(batch))
    assert together.counts == each.counts
    assert together.total == pytest.approx(each.total)


def test_many_are_counted_without_being_asked() -> None:
    """As soon as enough wait, each once, for their tunnels too; who asks twice counts nothing twice."""
    traffic = Traffic(most_tunnels=1)
    for _ in range(AT_ONCE - 1):
        traffic.count(One(), complete=True)
    assert traffic.requests == {}
    traffic.count(One(), complete=True)
    assert traffic.requests == {(2, ""): AT_ONCE}
    assert traffic.tunnels["demo"].requests == AT_ONCE
    traffic.count(One(status=500), complete=True)
    for _ in range(2):
        traffic.settle()
        assert traffic.requests == {(2, ""): AT_ONCE, (5, ""): 1}
        assert (traffic.tunnels["demo"].requests, traffic.tunnels["demo"].errors) == (AT_ONCE + 1, 1)
        assert sum(traffic.duration.counts) == sum(traffic.first_byte.counts) == AT_ONCE + 1


def test_exchanges_are_counted_by_class_and_error() -> None:
    """Those without any answer are of class 0; the first byte is the local service's, not one of our own."""
    traffic = Traffic()
    for one in (One(), One(status=201), One(status=503, error="overloaded"), One(status=0, head_at=0.0)):
        traffic.count(one, complete=True)
    traffic.settle()
    assert traffic.requests == {(2, ""): 2, (5, "overloaded"): 1, (0, ""): 1}
    assert (sum(traffic.duration.counts), sum(traffic.first_byte.counts)) == (4, 2)
    assert (traffic.duration.total, traffic.first_byte.total) == (4.0, 0.5)
    assert traffic.broken_off == 0
    assert traffic.tunnels == {}


def test_an_answer_that_broke_off_had_begun() -> None:
    """One that never began broke nothing off."""
    traffic = Traffic()
    traffic.count(One(), complete=False)
    traffic.count(One(status=0), complete=False)
    assert traffic.broken_off == 1


def test_tunnels_beyond_the_cap_are_counted_together() -> None:
    """So that visitors and agents cannot make up as many series as they like; a request without a tunnel has none."""
    traffic = Traffic(most_tunnels=2)
    for name in ("a", "b", "c", "d", "a", ""):
        traffic.count(One(tunnel=name, status=500 if name == "d" else 200), complete=True)
    traffic.settle()
    assert {name: (one.requests, one.errors) for name, one in traffic.tunnels.items()} == {
        "a": (2, 0),
        "b": (1, 0),
        OTHERS: (2, 1),
    }
    assert traffic.tunnels["a"].bytes_out == 10
