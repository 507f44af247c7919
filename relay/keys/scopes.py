"""What a key may do: names, how many tunnels, how much. A scope is never wider than that of the key it came from.

A pattern is a subdomain label in which at most three `*` each stand for any run of its characters, also an empty one.
A limit of a key bounds the sum of all that is below it, so what counts for a tunnel is the chain of scopes above it. A
plan, which bounds a project, is a scope under a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_PATTERNS = 16
MAX_STARS = 3
MAX_LIMIT = 2**53
"""The largest limit: the last whole number that every JSON parser reads exactly."""
EVERY_NAME = ("*",)

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A subdomain: one label of a host name in lower case."""
LIMITS: Mapping[str, str] = {
    "tunnels": "tunnels at a time",
    "rate": "requests a second",
    "bandwidth": "bytes a second",
    "streams": "streams at a time",
    "body": "bytes in one request",
    "monthly_requests": "requests a month",
    "monthly_bytes": "bytes a month",
}
"""The members of a scope that are limits, each with what it counts."""
_MEMBERS = ("names", *LIMITS)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a key may do; a limit of None is none. Raises ValueError with a sentence where it makes no sense."""

    names: tuple[str, ...] = EVERY_NAME
    tunnels: int | None = None
    rate: int | None = None
    """Requests a second."""
    bandwidth: int | None = None
    """Bytes a second, each way."""
    streams: int | None = None
    """Requests and upgraded connections that run at the same time."""
    body: int | None = None
    """Bytes of the body of one request."""
    monthly_requests: int | None = None
    """Requests in a calendar month (UTC)."""
    monthly_bytes: int | None = None
    """Bytes in a calendar month (UTC), both ways together."""

    def __post_init__(self) -> None:
        if not 0 < len(self.names) <= MAX_PATTERNS:
            raise ValueError(f"A scope names 1 to {MAX_PATTERNS} patterns of subdomains, not {len(self.names)}.")
        for pattern in self.names:
            _check_pattern(pattern)
        for member, meaning in LIMITS.items():
            limit = getattr(self, member)
            if limit is not None and (type(limit) is not int or not 0 < limit <= MAX_LIMIT):
                raise ValueError(f"The limit {member} ({meaning}) must be a whole number from 1 to 2^53, or left out.")

    def allows(self, name: str) -> bool:
        """Whether this subdomain may be claimed."""
        return LABEL.fullmatch(name) is not None and any(_matches(pattern, name) for pattern in self.names)

    def excess(self, parent: Scope) -> str:
        """What is wider here than in the parent's scope, in a few words; empty where nothing is.

        A pattern has to lie within a single one of the parent's: two that only together cover it do not count.
        """
        # A `*` in `ours` is then a character like others, which only a `*` of theirs matches.
        words = [
            f"the names {ours}" for ours in self.names if not any(_matches(theirs, ours) for theirs in parent.names)
        ]
        for member, meaning in LIMITS.items():
            ours, theirs = getattr(self, member), getattr(parent, member)
            if theirs is not None and (ours is None or ours > theirs):
                words.append(f"{'unlimited' if ours is None else ours} {meaning} (at most {theirs})")
        return ", ".join(words)

    def limits(self) -> dict[str, int | None]:
        """All limits by member, those that are none too."""
        return {member: getattr(self, member) for member in LIMITS}

    def bounded(self, above: Iterable[Scope]) -> Scope:
        """The same names with the limits that hold in effect: of each, the least of this scope and of those above."""
        found = self.limits()
        for scope in above:
            for member, theirs in scope.limits().items():
                ours = found[member]
                if theirs is not None and (ours is None or theirs < ours):
                    found[member] = theirs
        return Scope(self.names, **found)

    def to_json(self) -> dict[str, Any]:
        """All members."""
        return {"names": list(self.names), **self.limits()}

    def to_short_json(self) -> dict[str, Any]:
        """Without limits that are none: what is signed and kept, so that an older relay reads what it knows."""
        return {"names": list(self.names), **{one: limit for one, limit in self.limits().items() if limit is not None}}

    @classmethod
    def from_json(cls, value: object) -> Scope:
        """The scope in a JSON value; what is left out or null is not limited. Raises ValueError with a sentence."""
        if not isinstance(value, dict):
            raise ValueError(f"A scope is an object with {', '.join(_MEMBERS[:-1])} and {_MEMBERS[-1]}.")
        if not value.keys() <= set(_MEMBERS):
            raise ValueError(f"A scope has no members but {', '.join(_MEMBERS)}.")
        names = value.get("names")
        if names is None:
            names = EVERY_NAME
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError('The names of a scope are a list of patterns, such as ["mcp-*"].')
        return cls(tuple(names), **{member: value.get(member) for member in LIMITS})


def _check_pattern(pattern: str) -> None:
    """Raises ValueError. Each `*` may stand for a letter, so with letters in their place it has to be a label."""
    if len(pattern) > 63 or pattern.count("*") > MAX_STARS or not LABEL.fullmatch(pattern.replace("*", "a")):
        raise ValueError(
            f"The pattern {pattern[:63]!a} is no subdomain (a–z, 0–9 and hyphens within, at most 63 characters) "
            f"with at most {MAX_STARS} '*'."
        )


def _matches(pattern: str, name: str) -> bool:
    """Whether the pattern covers the whole name. The leftmost place for each piece between stars is as good as any."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    *middle, last = rest
    if not name.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        found = name.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(name) - at >= len(last) and name.endswith(last)
