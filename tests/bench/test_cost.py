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
    names = set(small.functions)
    assert any(name.startswith("relay relay.edge.") for name in names)
    assert any(name.startswith("agent relay.agent.") for name in names)
    assert not [name for name in names if name.startswith(("agent relay.edge.", "relay relay.agent."))]
    assert all(10 < small.calls[side] < 1000 for side in ("relay", "agent"))


@pytest.mark.parametrize("name", sorted(set(scripts.SCRIPTS) - {"small", "small-together"}))
def test_every_script_runs_to_its_end(name: str) -> None:
    """Each exchange goes through both sides, and what is counted is calls per unit."""
    cost = Cost.of(scripts.run(name), scripts.SCRIPTS[name].units)
    assert all(cost.calls[side] > 1 for side in ("relay", "agent"))


def test_a_budget_is_exceeded_by_more_than_five_percent(small: Cost) -> None:
    """4 % more is let through, 6 % more is not, and the functions that grew are named."""
    function = next(name for name in small.functions if name.startswith("relay "))

    def recorded(share: float) -> Cost:
        calls = small.calls | {"relay": small.calls["relay"] / share}
        return dataclasses.replace(small, calls=calls, functions=small.functions | {function: 0.0})

    said, exceeded = budget.compare({"small": small}, {"small": recorded(1.04)}, budget.PYTHON)
    assert not exceeded
    said, exceeded = budget.compare({"small": small}, {"small": recorded(1.06)}, budget.PYTHON)
    assert exceeded
    assert any("ABOVE THE BUDGET: calls" in line for line in said)
    assert any(function in line and "+" in line for line in said)


def test_builtin_calls_are_compared_on_the_same_python_only(small: Cost) -> None:
    """Another version of Python makes other built-in calls for the same source."""
    old = dataclasses.replace(small, builtins={side: number / 2 for side, number in small.builtins.items()})
    assert budget.compare({"small": small}, {"small": old}, budget.PYTHON)[1]
    assert not budget.compare({"small": small}, {"small": old}, "2.7")[1]


def test_the_record_covers_every_script() -> None:
    """bench/cost.json has a budget for each script and none for one that is gone."""
    _python, recorded = budget.load()
    assert recorded.keys() == scripts.SCRIPTS.keys()
    assert all(cost.calls[side] > 0 for cost in recorded.values() for side in ("relay", "agent"))
