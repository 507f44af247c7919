"""What the registry hands out and takes: frozen values, without any database behind them. Pure.

Times are seconds since the epoch (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from relay.keys.forms import Kind
from relay.keys.scopes import Scope

State = Literal["valid", "expired", "revoked", "retired"]
"""Retired: signed by a key of the relay's that counts no longer."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, for the audit."""

    key_id: str
    """Public id of the key; empty when the relay itself acts."""
    lineage: tuple[str, ...] = ()
    """Ids of the key's ancestors, topmost first, without itself."""
    address: str = ""
    """Where the request came from."""


RELAY = Actor("")


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str
    plan: str | None
    created_at: float
    created_by: str
    deleted_at: float | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be registered."""

    kind: Kind
    id: str
    project_id: str | None
    """None for an operator key, and for the first master key of a project that is being made."""
    parent_id: str | None
    public: bytes | None = None
    """32 bytes; of operator and master keys only."""
    scope: Scope = field(default_factory=Scope)
    label: str = ""
    tunnel: str | None = None
    """The subdomain that a visitor key is for; of visitor keys only."""
    expires_at: float | None = None
    signer: str | None = None
    """The id of the key that signs it; of child and visitor keys only."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    id: str
    kind: Kind
    project_id: str | None
    parent_id: str | None
    public: bytes | None
    scope: Scope
    label: str
    tunnel: str | None
    created_at: float
    expires_at: float | None
    revoked_at: float | None = None
    revoked_by: str | None = None
    revoked_seq: int | None = None
    token_version: int = 0
    successor_id: str | None = None
    last_used_at: float | None = None
    last_used_from: str | None = None
    line: str | None = None
    """The first of the keys that replaced each other up to this one; None: it is the first itself."""
    signer: str | None = None
    """The id of the key that signed a child or visitor key; None also where that was not written down."""

    @property
    def first(self) -> str:
        """The id under which it is counted: a key that replaces another one goes on with what is left of that."""
        return self.line or self.id

    def state(self, now: float) -> State:
        """A key that is revoked and expired is revoked. What became of its signer is not known here."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """None: any."""

    project: str | None = None
    """A project's id."""
    kind: Kind | None = None
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """What one revocation changed."""

    counts: Mapping[Kind, int]
    """Of keys that were valid until now, by kind; every kind is there."""
    ids: frozenset[str]
    """Of those keys."""
    by: str
    at: float
    remaining: int = 0
    """Living descendants that were left alone."""


@dataclass(frozen=True, slots=True)
class Rotated:
    record: KeyRecord | None
    """The new key; None when nothing had to be done."""
    old: KeyRecord
    """The newest key of the line before (as it is now)."""
    line: tuple[KeyRecord, ...] = ()
    """It and all that it had replaced, whose lives may be shorter now."""


@dataclass(frozen=True, slots=True)
class Subdomain:
    name: str
    project_id: str
    login: str
    """Id of the key that reserved it."""
    reserved_at: float
    released_at: float | None


@dataclass(frozen=True, slots=True)
class Signer:
    """The public half of a key that a node signs child and visitor keys with."""

    kid: str
    public: bytes
    node: str
    """The machine that it was made on."""
    created_at: float
    retired_at: float | None
    """Since when nothing that it signed counts."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far the registry is; a larger number than before says that there is something to read."""

    revocation_seq: int
    keys_seq: int
    """Of operator and master keys, and of signers."""
    names_seq: int
    """Of names: reserved, moved, given back; and of the plans that projects have."""


class Revoked(NamedTuple):
    id: str
    revoked_by: str
    revoked_at: float


@dataclass(frozen=True, slots=True)
class UsageRow:
    project_id: str
    key_id: str
    period: str
    """`YYYY-MM`, UTC."""
    requests: int
    bytes_in: int
    bytes_out: int


class UsageSum(NamedTuple):
    """What was used in a month: requests, and bytes from visitors and to them."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """What one key was used for in a month."""

    project_id: str
    key_id: str
    parent_id: str | None
    requests: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something to be written into the audit."""

    actor: Actor
    action: str
    subject: str
    project: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    at: float | None = None
    """None: when it is written."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: tuple[T, ...]
    next_cursor: str | None
