"""The cost of a scripted exchange: the same count every time, told by side and function, judged by a record."""

from __future__ import annotations

import dataclasses

import pytest

from bench.cost import budget, scripts
from bench.cost.budget import Cost


@pytest.fixture(scope="module")
def small() -> Cost:
    """What a small GET costs."""
    return Cost.of(scripts.run("small"), scripts.SCRIPTS["small"].units)


def test_the_count_is_the_same_every_time(small: Cost) -> None:
    """No clock, no socket and no chance is in it: a second run counts the same, function by function."""
    assert Cost.of(scripts.run("small"), scripts.SCRIPTS["small"].units) == small


def test_both_sides_are_counted_apart(small: Cost) -> None:
    """The visitors' side is the relay's, the local service's the agent's, and each function belongs to one of them."""
    for kind, of in (("calls", 1), ("bytecodes", 10)):
        names = set(small.functions[kind])
        assert any(name.startswith("relay relay.edge.") for name in names)
        assert any(name.startswith("agent relay.agent.") for name in names)
        assert not [name for name in names if name.startswith(("agent relay.edge.", "relay relay.agent."))]
        assert all(10 * of < small.totals[kind][side] < 1000 * of for side in ("relay", "agent"))


@pytest.mark.parametrize("name", sorted(set(scripts.SCRIPTS) - {"small", "small-together"}))
def test_every_script_runs_to_its_end(name: str) -> None:
    """Each exchange goes through both sides, and what is counted is per unit."""
    cost = Cost.of(scripts.run(name), scripts.SCRIPTS[name].units)
    assert all(cost.totals[kind][side] > 1 for kind in budget.KINDS for side in ("relay", "agent"))


def with_total(cost: Cost, kind: str, share: float) -> Cost:
    """A record in which the relay's total of a kind was so much less."""
    totals = cost.totals | {kind: cost.totals[kind] | {"relay": cost.totals[kind]["relay"] / share}}
    return dataclasses.replace(cost, totals=totals)


@pytest.mark.parametrize("kind", budget.KINDS)
def test_a_budget_is_exceeded_by_more_than_five_percent(small: Cost, kind: str) -> None:
    """4 % more is let through, 6 % more is not, and the functions that grew are named."""
    said, exceeded = budget.compare({"small": small}, {"small": with_total(small, kind, 1.04)}, budget.PYTHON)
    assert not exceeded
    function = next(name for name in small.functions[kind] if name.startswith("relay "))
    old = with_total(small, kind, 1.06)
    old.functions = small.functions | {kind: small.functions[kind] | {function: 0.0}}
    said, exceeded = budget.compare({"small": small}, {"small": old}, budget.PYTHON)
    assert exceeded
    assert any(f"ABOVE THE BUDGET: {kind}" in line for line in said)
    assert any(function in line and "+" in line for line in said)


def test_what_depends_on_the_python_is_compared_on_the_same_only(small: Cost) -> None:
    """Another version makes other built-in calls and other bytecodes of the same source, but no other calls of ours."""
    for kind in ("built-in", "bytecodes"):
        old = with_total(small, kind, 2.0)
        assert budget.compare({"small": small}, {"small": old}, budget.PYTHON)[1]
        assert not budget.compare({"small": small}, {"small": old}, "2.7")[1]
    assert budget.compare({"small": small}, {"small": with_total(small, "calls", 2.0)}, "2.7")[1]


def test_the_record_covers_every_script() -> None:
    """bench/cost.json has a budget for each script and none for one that is gone."""
    _python, recorded = budget.load()
    assert recorded.keys() == scripts.SCRIPTS.keys()
    for cost in recorded.values():
        assert all(cost.totals[kind][side] > 0 for kind in budget.KINDS for side in ("relay", "agent"))
