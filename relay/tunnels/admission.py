"""Who may open tunnels: a small interface, so that the hub never learns what a key looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from relay.keys.scopes import Scope
from relay.wire.hello import Hello, Refused

EVERYTHING = Scope()


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a key turned out to be. Two agents are of the same project when their `project` is the same."""

    project: str
    key_id: str
    lineage: tuple[str, ...] = ()
    """Ids of the key's ancestors, topmost first."""
    scope: Scope = EVERYTHING
    above: tuple[tuple[str, Scope], ...] = ()
    """Ids and scopes of the master keys above it, nearest first; of one that replaced others, the id of the first."""
    expires_at: float = math.inf
    """Seconds since the epoch; the session ends then unless a new key was brought before."""
    signer: str = ""
    """Id of the node's key that signed the key."""

    def is_below(self, id: str) -> bool:
        """Whether this is the id of its project, or of a key above it."""
        return self.project == id or any(one == id for one, _ in self.above)


class Admission(Protocol):
    """Decides on a hello, and on a new key for a live session. `address` is the agent's, for the audit."""

    async def admit(self, hello: Hello, address: str) -> Principal | Refused:
        """Checks the key, and that it may claim every name of the hello."""

    async def renew(self, principal: Principal, key: str, names: tuple[str, ...], address: str) -> Principal | Refused:
        """Checks a new key for a session that holds `names`."""

    def last_word(self, principal: Principal, names: tuple[str, ...]) -> Refused | None:
        """What has become of an admitted key and its names since: asked without waiting, right before it counts."""

    def refused(self, principal: Principal, names: tuple[str, ...], address: str, refused: Refused) -> None:
        """An admitted key was refused all the same: what is alive stands against it. For the audit."""


# Names that would pass for the relay's own pages.
RESERVED = frozenset(
    (
        "www",
        "api",
        "connect",
        "admin",
        "agent",
        "agents",
        "relay",
        "dashboard",
        "console",
        "auth",
        "login",
        "account",
        "mail",
        "smtp",
        "imap",
        "ns",
        "ns1",
        "ns2",
        "ftp",
        "localhost",
        "status",
        "docs",
        "support",
        "help",
        "static",
        "cdn",
        "metrics",
        "internal",
        "autoconfig",
        "autodiscover",
        "wpad",
        "mta-sts",
        "security",
        "billing",
    )
)


def refuse_reserved(names: tuple[str, ...]) -> Refused | None:
    """A refusal when one of the names is kept for the relay."""
    for name in names:
        if name in RESERVED:
            return Refused("name_reserved", f"The name {name!r} is kept for the relay itself; choose another one.")
    return None
