"""What the API needs of the rest of the relay, as one typed bag. The composition root fills it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from relay.keys.scopes import Scope
from relay.keys.tokens import SigningKey, TokenVerifier
from relay.registry import Registry
from relay.registry.records import KeyRecord, Signer


class Keyring(Protocol):
    """Operator and master keys, in memory, kept fresh by the node: a forged key costs no query."""

    def public_of(self, key_id: str) -> KeyRecord | None:
        """The key with this public id, whatever its state; None: unknown."""

    def learn(self, record: KeyRecord) -> None:
        """This key is new or has changed."""


class Signing(Protocol):
    """What this node signs with, and whose signatures count on it."""

    def key(self) -> SigningKey:
        """Raises `Unavailable` while the one that it had is retired and there is no other yet."""

    async def learn(self, signers: Sequence[Signer]) -> None:
        """What the registry has. What a retired one let in has ended before this returns."""


@dataclass(frozen=True, slots=True)
class LiveTunnel:
    """A name that is alive on this node. `since` is in seconds since the epoch."""

    name: str
    project: str
    key_id: str
    links: int
    since: float
    streams: int
    private: bool


class Live(Protocol):
    """What is alive now, and who must hear of changes before they are acknowledged. Nothing here waits."""

    def tunnels(self) -> list[LiveTunnel]:
        """Every live name."""

    def close(self, name: str, sentence: str) -> None:
        """Ends the sessions that serve the name, if any; their agents are told the sentence."""

    def on_revoked(self, ids: Collection[str], by: str, at: float) -> None:
        """These keys were revoked: their sessions end now, and the keyring knows of it."""

    def on_moved(self, name: str, project: str) -> None:
        """The name belongs to this project now; to none, where that is empty."""


class Plans(Protocol):
    """The plans that there are, and what is to be told when a project gets one."""

    @property
    def known(self) -> Mapping[str, Scope]:
        """By name."""

    @property
    def default(self) -> str | None:
        """The plan of projects that were given none; None: no limits."""

    def limits_of(self, plan: str | None) -> Scope:
        """What a project may use that was given this plan; None: that was given none."""

    def changed(self, project_id: str, plan: str | None) -> None:
        """The project has this plan from now on; what it uses is bounded by it before this returns."""


class Used(Protocol):
    """Requests, and bytes from visitors and to them."""

    @property
    def requests(self) -> int: ...
    @property
    def bytes_in(self) -> int: ...
    @property
    def bytes_out(self) -> int: ...


class Usages(Protocol):
    """What was used, as far as this node has counted. Nothing here waits."""

    def count(self) -> None:
        """Brings what `used` says up to now. As dear as there are links, so asked once for an answer."""

    def used(self, id: str) -> Used | None:
        """In this month, by a project, a child key, or a master key's line with all below it (see `KeyRecord.first`).

        With what the registry does not have yet; None: nothing is known beyond what the registry says.
        """


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was refused. `key_id` is "" unless the key was proven to be the caller's.

    `code` is the reason of a key that does not count (`revoked`, `signature`, …), else the code of the answer.
    """

    address: str
    key_id: str = ""
    lineage: tuple[str, ...] = ()
    project: str = ""
    code: str = ""
    right: str = ""


@dataclass(frozen=True, slots=True)
class Office:
    """One per node."""

    registry: Registry
    keyring: Keyring
    verifier: TokenVerifier
    signing: Signing
    issuer: str
    """The relay's domain: what its keys name as issuer and audience."""
    audiences: frozenset[str]
    """Host names and addresses by which commands reach this relay."""
    now: Callable[[], float]
    """Seconds since the epoch."""
    public_url: Callable[[str], str]
    """The public address of a name."""
    base_url: str
    version: str
    live: Live
    used: Callable[[str, str], None]
    """Notes that a key was used from an address; no query."""
    trusts: Callable[[str], bool]
    """Whether an address is a trusted proxy's."""
    refused: Callable[[Refusal], None]
    """Notes a refusal for the audit; no query."""
    plans: Plans
    usage: Usages
