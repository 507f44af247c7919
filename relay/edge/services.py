"""The typed bag of what the visitors' side may use; filled by the composition root."""

from __future__ import annotations

import email.utils
import itertools
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from time import monotonic
from typing import Final, Protocol

from relay.edge.access import Gate
from relay.edge.account import COMPLETE, HANDED_OVER, Account
from relay.edge.gate import VisitorGate
from relay.telemetry.traffic import Traffic
from relay.tunnels.crowds import Crowd
from relay.tunnels.hub import Hub

# Levels of pressure on memory (see `level`), and what is done from each on.
PRESSED: Final = 1
REFUSING: Final = 2
CLOSED: Final = 3


@dataclass(frozen=True, slots=True)
class KeyRefusal:
    """A visitor key that was shown and did not let in, told each time."""

    key_id: str
    """Empty where nobody knows whose key it is."""
    lineage: tuple[str, ...]
    code: str
    """`revoked`, `expired`, `elsewhere` (for another tunnel), or a `Reason` of keys."""
    name: str
    """The tunnel that was called, and its project."""
    project: str
    address: str


class Admitted(Protocol):
    """An exchange that a visitor key let in."""

    def cut(self) -> None:
        """The key counts no longer: the exchange breaks off."""


class Attended(Protocol):
    """A visitor's connection, as the node looks after it."""

    def check(self, now: float) -> None:
        """Ends what has taken too long; `now` is loop time."""

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way, or one may still begin."""

    def shutdown(self) -> None:
        """The relay stops: a connection between two requests ends, a new one has a moment for its first."""

    def part(self) -> None:
        """The grace time is over: what runs is cut; an upgraded connection is told why, as far as it can be."""

    def cut(self) -> None:
        """What runs is cut, at once."""

    def hand_over(self) -> tuple[int, bytes] | None:
        """A request that is held goes on in another process: a copy of the connection's descriptor, and all that has
        come of the request and behind it. None: nothing is held, and nothing changes.
        """


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
    crowd: Crowd = field(default_factory=lambda: Crowd(10_000, 1024))
    """The visitors' connections."""
    gate: Gate = field(default_factory=VisitorGate)
    on_key_used: Callable[[str, str], None] = lambda key_id, address: None
    """Called with the id of each visitor key that let a request in, and from where."""
    on_key_refused: Callable[[KeyRefusal], None] = lambda refusal: None
    traffic: Traffic = field(default_factory=Traffic)
    on_exchange: Callable[[Account], None] | None = None
    """Told of each exchange that is over, and of each request that was refused before; None: nobody wants to know."""
    draining: bool = False
    """Another process takes over, or none: each answer is the last one of its connection."""
    stopping: bool = False
    """None does, as far as this one knows: nobody is waited for who has nothing under way."""
    level: int = 0
    """How short of memory the node is. 1: answers end their connection; 2: no new requests; 3: no new connections."""
    visitors: set[Attended] = field(default_factory=set)
    admitted: dict[Admitted, tuple[str, str]] = field(default_factory=dict)
    """The exchanges under way that a visitor key let in, with the ids of the key and of its signer."""
    exchanges: int = 0
    """Exchanges under way."""
    new_id: Callable[[], str] = field(default_factory=lambda: _request_ids())
    """A request id: unique for this process, unguessable across processes."""

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

    def cut_admitted(self, ids: Collection[str]) -> int:
        """Cuts what these visitor keys, or keys of these signers, have let in; how many exchanges that were."""
        found = [one for one, (key_id, signer) in self.admitted.items() if key_id in ids or signer in ids]
        for one in found:
            one.cut()
        return len(found)

    def hand_over_held(self) -> list[tuple[int, bytes]]:
        """Takes out the visitors whose requests wait for an agent (see `Attended.hand_over`)."""
        found = [visitor.hand_over() for visitor in list(self.visitors)]
        return [one for one in found if one is not None]

    def left(self, visitor: Attended) -> None:
        """Counts a connection out."""
        self.visitors.discard(visitor)

    def close_account(self, account: Account) -> None:
        """Counts an exchange that is over, which whoever opened its account has counted in `exchanges`, or a request
        that was refused.
        """
        if account.request is not None:
            self.exchanges -= 1
        ended = account.ended
        if ended is HANDED_OVER:
            return
        account.over_at = monotonic()
        self.traffic.count(account, ended is COMPLETE)
        if self.on_exchange is not None:
            self.on_exchange(account)


def _request_ids() -> Callable[[], str]:
    """Made without a function of ours, since each request asks."""
    return map((secrets.token_hex(4) + "{:08x}").format, itertools.count()).__next__


def http_date(now: float) -> bytes:
    """A `Date` value for seconds since the epoch (RFC 9110 §5.6.7)."""
    return email.utils.formatdate(now, usegmt=True).encode()
