"""The typed bag of what the visitors' side may use; filled by the composition root."""

from __future__ import annotations

import email.utils
import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Protocol

from relay.tunnels.hub import Hub


class Attended(Protocol):
    """A visitor's connection, as the node looks after it."""

    def check(self, now: float) -> None:
        """Ends what has taken too long; `now` is loop time."""

    def shutdown(self) -> None:
        """The relay drains: what runs is finished, nothing begins."""

    def cut(self) -> None:
        """The grace time is over."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All in seconds. None of them is a total: each is reset by progress."""

    head: float = 10.0
    """A visitor's request head, from its first byte (on a new connection: from its start)."""
    idle: float = 60.0
    """Silence: between requests, in a request body that we are ready to read, in a response that is not read."""
    response_head: float = 300.0
    """From the end of a request to the final head of its response."""


@dataclass(slots=True)
class Services:
    """One per node."""

    hub: Hub
    domain: str
    timeouts: Timeouts
    scheme: str = "http"
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    most_connections: int = 10_000
    draining: bool = False
    visitors: set[Attended] = field(default_factory=set)
    exchanges: int = 0
    """Exchanges under way."""
    on_idle: Callable[[], None] | None = None
    """Called when the last exchange has ended, while draining."""
    on_empty: Callable[[], None] | None = None
    """Called when the last visitor has left, while draining."""
    _ids: itertools.count[int] = field(default_factory=itertools.count)
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))

    def new_id(self) -> str:
        """A request id: unique for this process, unguessable across processes."""
        return f"{self._prefix}{next(self._ids):08x}"

    def trusts(self, address: str) -> bool:
        """Whether a peer is a trusted proxy."""
        if not self.trusted:
            return False
        try:
            parsed = ip_address(address)
            # A socket for both families shows an IPv4 peer as ::ffff:a.b.c.d.
            parsed = (parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None) or parsed
        except ValueError:
            return False
        return any(parsed in network for network in self.trusted)

    def left(self, visitor: Attended) -> None:
        """Counts a connection out."""
        self.visitors.discard(visitor)
        if self.draining and not self.visitors and self.on_empty is not None:
            self.on_empty()

    def exchange_ended(self) -> None:
        """Counts an exchange out."""
        self.exchanges -= 1
        if self.draining and not self.exchanges and self.on_idle is not None:
            self.on_idle()


def http_date(now: float) -> bytes:
    """A `Date` value for seconds since the epoch (RFC 9110 §5.6.7)."""
    return email.utils.formatdate(now, usegmt=True).encode()
