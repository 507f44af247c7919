"""The edges that visitors meet: our own protocol class, and the same exchange behind ASGI servers; what ASGI loses.

The losses are the table of docs/promises.md, row by row. A loss that shows within one exchange has a rule, by which
both sides of a comparison forget what is lost; a test that is about a lost thing itself says so with `needs` and is
skipped for the edges that lack it, and for no other reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import pytest

from tests.support.processes import Edge
from tests.system.twoways import Answered, Arrived, Fields, Seen

EDGES: tuple[Edge, ...] = get_args(Edge)
TITLE = "Under another ASGI server"

Ability = Literal[
    "aborts", "continue", "early", "fields", "guard", "interim", "names", "reason", "targets", "trailers", "upgrade"
]
OnSeen = Callable[[Seen], Seen]


@dataclass(frozen=True, slots=True)
class Loss:
    """One row of the table; `row` is its first cell, `rule` forgets what is lost."""

    row: str
    rule: OnSeen | None = None


def _names(seen: Seen) -> Seen:
    def lower(fields: Fields) -> Fields:
        return tuple((name.lower(), value) for name, value in fields)

    arrived: Arrived = replace(seen.arrived, headers=lower(seen.arrived.headers))
    answered: Answered = replace(seen.answered, headers=lower(seen.answered.headers))
    return Seen(arrived, answered)


def _reason(seen: Seen) -> Seen:
    line = b" ".join(seen.answered.line.split(b" ")[:2])
    return replace(seen, answered=replace(seen.answered, line=line))


def _own_fields(seen: Seen) -> Seen:
    kept = tuple(field for field in seen.answered.headers if field[0].lower() not in (b"date", b"server"))
    return replace(seen, answered=replace(seen.answered, headers=kept))


def _interim(seen: Seen) -> Seen:
    return replace(seen, answered=replace(seen.answered, interim=()))


def _trailers(seen: Seen) -> Seen:
    return Seen(replace(seen.arrived, trailers=()), replace(seen.answered, trailers=()))


def _targets(seen: Seen) -> Seen:
    return replace(seen, arrived=replace(seen.arrived, target=seen.arrived.target.removesuffix(b"?")))


LOSSES: dict[Ability, Loss] = {
    "names": Loss("names of fields arrive in lower case, both ways", _names),
    "reason": Loss("the reason phrase of an answer is the server's own, and it may refuse statuses above 599", _reason),
    "fields": Loss("`Date` and `Server` may be the server's own, or come twice", _own_fields),
    "interim": Loss("`1xx` answers of the local service, `103` say, are dropped", _interim),
    "continue": Loss("`100 Continue` comes from the server, before the local service was asked"),
    "trailers": Loss("trailers are dropped, both ways", _trailers),
    "targets": Loss("a lone `?` at the end of a target is dropped", _targets),
    "early": Loss("when an answer ends before its request does, the rest of the request is not passed on"),
    "upgrade": Loss("no upgrade to `websocket`; one to `h2c` is the server's own affair"),
    "aborts": Loss(
        "an abort is what the server makes of an exception in its application; a visitor that leaves while its upload"
        " waits is noticed when that goes on"
    ),
    "guard": Loss("the server is the guard of bytes: limits, deadlines, and what it takes for HTTP are its own"),
}


def needs(edge: Edge, *abilities: Ability) -> None:
    """Skip the rest of a test where the edge lacks one of these."""
    if edge != "protocol":
        for ability in abilities:
            pytest.skip(f"{edge}: {LOSSES[ability].row}")


def remembered(seen: Seen, edge: Edge) -> Seen:
    """What an edge keeps of an exchange."""
    if edge != "protocol":
        for loss in LOSSES.values():
            seen = loss.rule(seen) if loss.rule is not None else seen
    return seen
