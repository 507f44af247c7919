"""What an agent is told before it starts: plain values, checked by whoever made them, and where its key comes from.

Also the exit codes of an agent, because the agent decides them and the command line only passes them on
(docs/agent.md, "Exit codes").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from relay.keys import compact
from relay.keys.errors import BadKey
from relay.wire.hello import MAX_SLOTS

if TYPE_CHECKING:
    from relay.agent.targets import Target
    from relay.exchange.heads import Fields
    from relay.wire.access import AccessRules
    from relay.wire.limits import TunnelLimits

MOST_LINKS = MAX_SLOTS
DEFAULT_LINKS = 2
HTTP_PARSERS = ("httptools", "h11")


class Exit(IntEnum):
    """How an agent ended. A relay that cannot be reached is no reason to end: it is tried again for ever."""

    STOPPED = 0
    UNEXPECTED = 1
    USAGE = 2
    KEY_REFUSED = 3
    NAME_REFUSED = 4
    VERSION_REFUSED = 5
    KEY_REVOKED = 6
    TUNNEL_CLOSED = 7


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A key to show to the relay. Times are seconds since the epoch on the clock of whoever signed it."""

    text: str = field(repr=False)
    issued_at: float
    expires_at: float
    renewable: bool
    """Whether its source can give another one."""


class KeyRefused(Exception):
    """There is no key now; the text is one sentence with the cause and the next step.

    `final`: asking again is of no use, and an agent without a key ends with `code`. `retry_after` is in seconds.
    """

    def __init__(self, sentence: str, final: bool, code: Exit, *, retry_after: float = 0.0) -> None:
        super().__init__(sentence)
        self.final = final
        self.code = code
        self.retry_after = retry_after


class KeySource(Protocol):
    """Where an agent's keys come from."""

    def fresh(self) -> MintedKey:
        """A key that was not given before, if `renewable`. Blocks, so it is called in a thread of its own, never twice
        at a time. Raises `KeyRefused`.
        """


@runtime_checkable
class Claimant(Protocol):
    """A source that may make names its own, because the same login holds them for another project."""

    def claim_for_login(self, names: tuple[str, ...]) -> bool:
        """Whether a name has changed hands, so that a second attempt may go better. Blocks. Raises `KeyRefused`."""


@dataclass(frozen=True, slots=True)
class FixedKey:
    """A key that was given by hand: shown as it is for as long as the relay takes it, never replaced."""

    text: str = field(repr=False)

    def fresh(self) -> MintedKey:
        """See `KeySource.fresh`. Its end is what the key says of itself; without that, it has none."""
        try:
            claims = compact.read_object(self.text.split(".", 2)[1])
        except (BadKey, IndexError):
            claims = {}
        issued, expires = _time(claims.get("iat")), _time(claims.get("exp"))
        if issued is None or expires is None:
            issued, expires = 0.0, math.inf
        return MintedKey(self.text, issued, expires, renewable=False)


def _time(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """One agent, whatever the number of its tunnels and links."""

    relay_url: str
    """Scheme, host and port of the relay's agent listener, without a path: `ws://127.0.0.1:8081`, `wss://DOMAIN`."""

    keys: KeySource = field(repr=False)

    tunnels: tuple[tuple[str, Target], ...]
    """Each subdomain with the local service behind it; a subdomain stands once."""

    access: Mapping[str, AccessRules] = field(default_factory=dict, repr=False)
    """What visitors must show, for each subdomain that is not open to everybody."""

    limits: Mapping[str, TunnelLimits] = field(default_factory=dict)
    """How many requests a subdomain takes, for each that has a limit of its own beside the key's."""

    upstream: Mapping[str, Fields] = field(default_factory=dict, repr=False)
    """Fields that each request to a subdomain's local service gets, in place of the visitor's by the same names."""

    links: int = DEFAULT_LINKS
    """Sessions held at once, 1 to 4."""

    preserve_host: frozenset[str] = frozenset()
    """Subdomains that leave the visitor's `Host` and `Origin` as they are, instead of those of the local service."""

    allow_upstream: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that a local service may be in, beside loopback and private ranges."""

    http_parser: str = "httptools"
    """Who parses the local service's answers: one of `HTTP_PARSERS`."""

    metrics: tuple[str, int] | None = None
    """Host and port where the agent tells how it is; nowhere unless set. Settings that come later do not change it."""

    def asks_the_same(self, other: AgentSettings) -> bool:
        """Whether a relay would be asked for the same, by the same key: the links of one do for the other."""
        return (
            self.relay_url == other.relay_url
            and self.keys is other.keys
            and self.links == other.links
            and {name for name, _ in self.tunnels} == {name for name, _ in other.tunnels}
            and self.access == other.access
            and self.limits == other.limits
        )


class CannotListen(Exception):
    """The address for the agent's metrics cannot be had; the text is one sentence with the next step."""


class BadChange(Exception):
    """What an agent was told anew cannot be used; the text says where it is wrong, and what would be right."""


class Changes(Protocol):
    """Where an agent that runs is told of other settings."""

    def look(self, asked: bool) -> AgentSettings | None:
        """The settings from now on; None where nothing has changed since the last look. `asked`: somebody wants it to
        be looked, whether or not it seems so. Blocks, so it is called in a thread of its own, never twice at a time.
        Raises `BadChange`.
        """
