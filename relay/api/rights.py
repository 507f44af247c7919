"""Who may what: the one table, and the one function that reads it. Pure; every handler asks here and nowhere else.

A right that a kind of key lacks is forbidden whatever it is asked for; a thing that the caller may not even see is
hidden, as if it did not exist, so that nobody learns what other projects have.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from types import MappingProxyType

from relay.keys.forms import Kind
from relay.keys.scopes import Scope


class Right(StrEnum):
    """What may be asked of the API with a key."""

    WHOAMI = "whoami"
    PROJECTS_CREATE = "projects.create"
    PROJECTS_LIST = "projects.list"
    PROJECTS_SHOW = "projects.show"
    PROJECTS_DELETE = "projects.delete"
    PROJECTS_PLAN = "projects.plan"
    PLANS_LIST = "plans.list"
    USAGE_SHOW = "usage.show"
    KEYS_MINT_MASTER = "keys.mint.master"
    KEYS_MINT_CHILD = "keys.mint.child"
    KEYS_MINT_VISITOR = "keys.mint.visitor"
    KEYS_LIST = "keys.list"
    KEYS_SHOW = "keys.show"
    KEYS_ROTATE = "keys.rotate"
    KEYS_REVOKE = "keys.revoke"
    SUBDOMAINS_LIST = "subdomains.list"
    SUBDOMAINS_RESERVE = "subdomains.reserve"
    SUBDOMAINS_RELEASE = "subdomains.release"
    SUBDOMAINS_MOVE = "subdomains.move"
    TUNNELS_LIST = "tunnels.list"
    TUNNELS_CLOSE = "tunnels.close"
    AUDIT_LIST = "audit.list"
    AUDIT_HEAD = "audit.head"
    SIGNERS_LIST = "signers.list"
    SIGNERS_RETIRE = "signers.retire"


class Reach(Enum):
    """How far a right goes."""

    NOTHING = auto()
    ITSELF = auto()
    """The caller's own key; of other things it learns nothing."""
    LINEAGE = auto()
    """The caller's own key, those that it was rotated from, and all that were minted below any of these."""
    PROJECT = auto()
    """Everything of the caller's project, as far as the names in the caller's scope go."""
    EVERYTHING = auto()


_MASTER = {
    Right.WHOAMI: Reach.ITSELF,
    Right.PROJECTS_SHOW: Reach.PROJECT,
    Right.PLANS_LIST: Reach.EVERYTHING,  # nobody's in particular
    Right.USAGE_SHOW: Reach.PROJECT,
    Right.KEYS_MINT_CHILD: Reach.PROJECT,
    Right.KEYS_MINT_VISITOR: Reach.PROJECT,
    Right.KEYS_LIST: Reach.PROJECT,
    Right.KEYS_SHOW: Reach.PROJECT,
    Right.KEYS_ROTATE: Reach.ITSELF,
    Right.KEYS_REVOKE: Reach.LINEAGE,
    Right.SUBDOMAINS_LIST: Reach.PROJECT,
    Right.SUBDOMAINS_RESERVE: Reach.PROJECT,
    Right.SUBDOMAINS_RELEASE: Reach.PROJECT,
    Right.TUNNELS_LIST: Reach.PROJECT,
    Right.TUNNELS_CLOSE: Reach.PROJECT,
}
_CHILD = {
    Right.WHOAMI: Reach.ITSELF,
    Right.USAGE_SHOW: Reach.ITSELF,
    Right.KEYS_SHOW: Reach.ITSELF,
    Right.KEYS_REVOKE: Reach.ITSELF,
}
TABLE = MappingProxyType(
    {
        Kind.OPERATOR: dict.fromkeys(Right, Reach.EVERYTHING),
        Kind.MASTER: {right: _MASTER.get(right, Reach.NOTHING) for right in Right},
        Kind.CHILD: {right: _CHILD.get(right, Reach.NOTHING) for right in Right},
        Kind.VISITOR: dict.fromkeys(Right, Reach.NOTHING),
    }
)

# The right that minting a key of this kind takes. Nobody mints an operator key.
MINTING = MappingProxyType(
    {
        Kind.MASTER: Right.KEYS_MINT_MASTER,
        Kind.CHILD: Right.KEYS_MINT_CHILD,
        Kind.VISITOR: Right.KEYS_MINT_VISITOR,
    }
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key was proven, and where it came from. Times are seconds since the epoch, None: no end."""

    kind: Kind
    key_id: str
    project: str | None
    """None: an operator, who has all."""
    lineage: tuple[str, ...]
    """Ancestors, topmost first."""
    scope: Scope
    expires_at: float | None
    address: str


@dataclass(frozen=True, slots=True)
class Thing:
    """What a request is about."""

    project: str | None
    """None: it belongs to no project; only an operator sees it."""
    key_id: str | None = None
    line: frozenset[str] = frozenset()
    """Of a key: itself, its ancestors, and every key that any of these was replaced by."""
    name: str | None = None
    """Of a subdomain or a tunnel."""


class Answer(Enum):
    """What `decide` says."""

    ALLOWED = auto()
    FORBIDDEN = auto()
    HIDDEN = auto()


def reach(caller: Caller, right: Right) -> Reach:
    """How far the right goes for this caller."""
    return TABLE[caller.kind][right]


def decide(caller: Caller, right: Right, thing: Thing) -> Answer:
    """Whether the caller may do this to that."""
    far = reach(caller, right)
    if far is Reach.NOTHING:
        return Answer.FORBIDDEN
    if _within(caller, far, thing):
        return Answer.ALLOWED
    # Forbidden tells that it exists: only of what the caller could have been shown.
    return Answer.FORBIDDEN if _sees(caller, thing) else Answer.HIDDEN


def _within(caller: Caller, far: Reach, thing: Thing) -> bool:
    if far is Reach.EVERYTHING:
        return True
    if thing.project is None or thing.project != caller.project:
        return False
    if far is Reach.ITSELF:
        return thing.key_id == caller.key_id
    if far is Reach.LINEAGE:
        return caller.key_id in thing.line
    return thing.name is None or caller.scope.allows(thing.name)


def _sees(caller: Caller, thing: Thing) -> bool:
    if thing.project is None or thing.project != caller.project:
        return False
    # All other things are shown to whoever may be shown the keys of the project.
    return reach(caller, Right.KEYS_SHOW) is Reach.PROJECT
