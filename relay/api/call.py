"""One request as handlers see it: who asks, for what, with which words; and what they answer.

Asking `rights` happens here, so that a refusal is noted for the audit wherever it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from relay.api import problems
from relay.api.authenticate import refusal_of
from relay.api.models import Given
from relay.api.office import Office
from relay.api.problems import Problem
from relay.api.rights import Answer, Caller, Reach, Right, Thing, decide, reach
from relay.registry.records import Actor

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers: a model, JSON as it is, or None for no content."""

    body: Given | bytes | None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `caller` is None where no key is needed."""

    office: Office
    caller: Caller | None
    path: Mapping[str, str]
    said: Mapping[type[BaseModel], BaseModel]

    def taken(self, model: type[T]) -> T:
        """The body or the query, checked."""
        found = self.said[model]
        assert isinstance(found, model)
        return found

    @property
    def who(self) -> Caller:
        """The caller, where a key is needed."""
        assert self.caller is not None
        return self.caller

    @property
    def actor(self) -> Actor:
        """The caller, for the audit."""
        return Actor(self.who.key_id, self.who.lineage, self.who.address)

    def everywhere(self, right: Right) -> bool:
        """Whether the right goes beyond the caller's project."""
        return reach(self.who, right) is Reach.EVERYTHING

    def demand(self, right: Right, thing: Thing, hidden: Problem) -> None:
        """Raises `Problem` unless the caller may; `hidden` when it may not know that the thing is there."""
        answer = decide(self.who, right, thing)
        if answer is Answer.ALLOWED:
            return
        raise self.refused(right, hidden if answer is Answer.HIDDEN else forbidden(self.who, right))

    def refused(self, right: Right, problem: Problem) -> Problem:
        """The same problem, noted for the audit."""
        self.office.refused(refusal_of(self.who, problem, right))
        return problem


def forbidden(caller: Caller, right: Right) -> Problem:
    """The caller may not do this."""
    if reach(caller, right) is Reach.NOTHING:
        return problems.forbidden(f"A {caller.kind} key may not do this ({right}).")
    return problems.forbidden(f"The key {caller.key_id} may not do this to that ({right}).")
