"""Scopes: what a pattern covers, and containment that agrees with trying all short names."""

from __future__ import annotations

import itertools
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.keys.scopes import LABEL, LIMITS, MAX_LIMIT, Scope
from tests.keys.makers import any_json, labels, patterns, scopes

# All labels of up to five characters, all patterns of up to four. No pattern has a `c`: it tells what a `*` covers.
NAMES = [
    name
    for length in range(1, 6)
    for name in map("".join, itertools.product("abc-", repeat=length))
    if LABEL.fullmatch(name)
]
PATTERNS = [
    pattern
    for length in range(1, 5)
    for pattern in map("".join, itertools.product("ab-*", repeat=length))
    if LABEL.fullmatch(pattern.replace("*", "a")) and pattern != "****"
]


def covered(pattern: str) -> set[str]:
    """By an understanding of patterns that is not ours: a regular expression."""
    expression = re.compile(re.escape(pattern).replace(r"\*", "[a-z0-9-]*"))
    return {name for name in NAMES if expression.fullmatch(name)}


@pytest.fixture(scope="module")
def by_trying() -> dict[str, set[str]]:
    """What each pattern covers of all short names."""
    return {pattern: covered(pattern) for pattern in PATTERNS}


def test_a_pattern_covers_what_it_says(by_trying: dict[str, set[str]]) -> None:
    """Of all short names, each short pattern allows those that a regular expression of the same meaning matches."""
    for pattern in PATTERNS[::3]:
        scope = Scope((pattern,))
        assert {name for name in NAMES if scope.allows(name)} == by_trying[pattern]


def test_containment_agrees_with_trying_all_names(by_trying: dict[str, set[str]]) -> None:
    """Of all pairs of short patterns, one lies within the other exactly where all short names that it covers do."""
    made = {pattern: Scope((pattern,)) for pattern in PATTERNS}
    wrong = [
        (ours, theirs)
        for ours in PATTERNS
        for theirs in PATTERNS
        if (made[ours].excess(made[theirs]) == "") is not (by_trying[ours] <= by_trying[theirs])
    ]
    assert len(PATTERNS) > 150
    assert wrong == []


@given(st.lists(patterns, min_size=1, max_size=4), st.lists(patterns, min_size=1, max_size=4), labels)
def test_no_name_slips_out_of_the_parents_scope(ours: list[str], theirs: list[str], name: str) -> None:
    """Where nothing is in excess, a name that the child may claim is one that the parent may."""
    child, parent = Scope(tuple(ours)), Scope(tuple(theirs))
    if child.excess(parent) == "" and child.allows(name):
        assert parent.allows(name)


@given(scopes)
def test_a_scope_is_within_itself_and_within_everything(scope: Scope) -> None:
    """Nothing is wider than itself, nor than the scope without limits."""
    assert scope.excess(scope) == ""
    assert scope.excess(Scope()) == ""


@pytest.mark.parametrize(
    ("child", "parent", "words"),
    [
        (Scope(), Scope(("mcp-*",)), "the names *"),
        (Scope(("mcp-a", "web")), Scope(("mcp-*",)), "the names web"),
        (Scope(tunnels=3), Scope(tunnels=2), "3 tunnels at a time (at most 2)"),
        (Scope(), Scope(rate=5), "unlimited requests a second (at most 5)"),
        (Scope(bandwidth=11), Scope(bandwidth=10), "11 bytes a second (at most 10)"),
        (Scope(streams=4), Scope(streams=3), "4 streams at a time (at most 3)"),
        (Scope(body=2), Scope(body=1), "2 bytes in one request (at most 1)"),
        (Scope(), Scope(monthly_requests=9), "unlimited requests a month (at most 9)"),
        (Scope(monthly_bytes=8), Scope(monthly_bytes=7), "8 bytes a month (at most 7)"),
        (Scope(tunnels=3), Scope(("a",), 2), "the names *, 3 tunnels at a time (at most 2)"),
        (Scope(("mcp-*",), 2, 3, 4), Scope(("m*",), 2, 3, 4), ""),
        (Scope(tunnels=1), Scope(), ""),
    ],
)
def test_excess_says_what_is_wider(child: Scope, parent: Scope, words: str) -> None:
    """Each wider part is named, each with the parent's limit."""
    assert child.excess(parent) == words


@given(scopes)
def test_a_scope_comes_back_from_json(scope: Scope) -> None:
    """All of it, through text."""
    assert Scope.from_json(json.loads(json.dumps(scope.to_json()))) == scope
    assert Scope.from_json(json.loads(json.dumps(scope.to_short_json()))) == scope


def test_a_scope_is_kept_short() -> None:
    """With the names always, and with the limits that there are; told, it has all of them."""
    assert Scope(("a",), rate=5).to_short_json() == {"names": ["a"], "rate": 5}
    assert Scope(("a",), rate=5).to_json().keys() == {"names", *LIMITS}


@pytest.mark.parametrize(
    ("value", "scope"),
    [
        ({}, Scope()),
        ({"names": None, "rate": None}, Scope()),
        ({"names": ["a"]}, Scope(("a",))),
        ({"rate": 5}, Scope(rate=5)),
    ],
)
def test_what_is_left_out_is_not_limited(value: object, scope: Scope) -> None:
    """Members may be missing or null."""
    assert Scope.from_json(value) == scope


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "*",
        {"name": ["a"]},
        {"names": []},
        {"names": "abc"},
        {"names": [1]},
        {"names": ["a"] * 17},
        {"names": [""]},
        {"names": ["-a"]},
        {"names": ["a-"]},
        {"names": ["A"]},
        {"names": ["a.b"]},
        {"names": ["a_b"]},
        {"names": ["a\n"]},
        {"names": ["ä"]},
        {"names": ["a" * 64]},
        {"names": ["****"]},
        {"names": {"a": 1}},
        {"tunnels": 0},
        {"tunnels": -1},
        {"tunnels": True},
        {"rate": 1.5},
        {"rate": "5"},
        {"bandwidth": float("inf")},
        {"bandwidth": MAX_LIMIT + 1},
        {"streams": 0},
        {"body": -1},
        {"monthly_requests": 2.0},
        {"monthly_bytes": True},
        {"requests": 5},
    ],
)
def test_what_is_no_scope(value: object) -> None:
    """A scope that cannot be meant is refused with a sentence, an unknown member too: a slip must not widen."""
    with pytest.raises(ValueError, match=r"\.$"):
        Scope.from_json(value)


@given(any_json | st.dictionaries(st.sampled_from(["names", *LIMITS]), any_json))
def test_any_json_is_a_scope_or_refused(value: Any) -> None:
    """No JSON value gives another exception."""
    try:
        assert isinstance(Scope.from_json(value), Scope)
    except ValueError as error:
        assert str(error).endswith(".")


@given(st.lists(scopes, min_size=1, max_size=4))
def test_what_holds_in_effect_is_the_least_of_the_chain(chain: list[Scope]) -> None:
    """Of each limit the least that any of the chain sets, none where none sets one; the names stay the first one's."""
    effective = chain[0].bounded(chain[1:])
    assert effective.names == chain[0].names
    for member in LIMITS:
        assert getattr(effective, member) == min(
            (limit for scope in chain if (limit := getattr(scope, member)) is not None), default=None
        )
    assert all(Scope(scope.names, **effective.limits()).excess(scope) == "" for scope in chain)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a\n", "*", "a*", "a" * 64, "\ud800"])
def test_what_is_no_subdomain_is_never_allowed(name: str) -> None:
    """The pattern for every name covers subdomains, nothing else."""
    assert not Scope().allows(name)


def test_hostile_patterns_cost_little() -> None:
    """Sixteen patterns that invite to try everything are answered within a millisecond or so."""
    scope = Scope(("*" + "a" * 20 + "*" + "a" * 20 + "*b",) * 16)
    began = time.process_time()
    for _ in range(100):
        assert not scope.allows("a" * 63)
    assert time.process_time() - began < 0.5
