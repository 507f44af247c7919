"""What an agent is told before it starts: plain values, checked by whoever made them.

Also the exit codes of an agent, because the agent decides them and the command line only passes them on
(docs/agent.md, "Exit codes").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from relay.wire.hello import MAX_SLOTS

if TYPE_CHECKING:
    from relay.agent.targets import Target

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """One agent, whatever the number of its tunnels and links."""

    relay_url: str
    """Scheme, host and port of the relay's agent listener, without a path: `ws://127.0.0.1:8081`, `wss://DOMAIN`."""

    key: str = field(repr=False)

    tunnels: tuple[tuple[str, Target], ...]
    """Each subdomain with the local service behind it; a subdomain stands once."""

    links: int = DEFAULT_LINKS
    """Sessions held at once, 1 to 4."""

    preserve_host: bool = False
    """Leave the visitor's `Host` and `Origin` as they are, instead of those of the local service."""

    allow_upstream: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that a local service may be in, beside loopback and private ranges."""

    http_parser: str = "httptools"
    """Who parses the local service's answers: one of `HTTP_PARSERS`."""

    insecure: bool = False
    """The key may be sent over `ws://` to a host that is not loopback."""
