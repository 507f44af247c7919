"""Header hygiene in one place: what a hop removes, what the relay adds, what the agent rewrites. Pure.

RFC 9110 §7.6.1: `Connection` and whatever it lists end at this hop, in every spelling. `Trailer` stays, since
trailers are carried.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from relay.exchange.heads import Fields

# End-to-end fields that a Connection list may never remove: stripping them would change what the request means.
PROTECTED = frozenset(
    b"host content-length content-type authorization cookie origin forwarded x-forwarded-for x-forwarded-proto"
    b" x-forwarded-host mcp-session-id mcp-protocol-version last-event-id date".split()
)
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te transfer-encoding upgrade"
    b" http2-settings".split()
)
FORWARDED = frozenset(b"forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port".split())
# What must be known before a body, or is one hop's own, is worth nothing behind it and may do harm (RFC 9110 §6.5.1).
NOT_IN_TRAILERS = (
    HOP_BY_HOP | FORWARDED | frozenset(b"host content-length content-encoding authorization cookie".split())
)
SCHEMES = frozenset(("http", "https", "ws", "wss"))


def connection_tokens(fields: Fields) -> set[bytes]:
    """The lower-case options of all `Connection` and `Proxy-Connection` fields."""
    tokens: set[bytes] = set()
    for name, value in fields:
        if len(name) in (10, 16) and name.lower() in (b"connection", b"proxy-connection"):
            tokens.update(token.strip(b" \t").lower() for token in value.split(b","))
    tokens.discard(b"")
    return tokens


def strip_hop_by_hop(fields: Fields, tokens: set[bytes]) -> Fields:
    """The fields that go on. `tokens` are the message's connection options; protected fields are never removed."""
    named = tokens - PROTECTED
    return [field for field in fields if (lower := field[0].lower()) not in HOP_BY_HOP and lower not in named]


def strip_trailers(fields: Fields) -> Fields:
    """The trailers that go on."""
    return [field for field in fields if field[0].lower() not in NOT_IN_TRAILERS]


@dataclass(slots=True)
class Visit:
    """How a visitor reached the relay."""

    address: str
    scheme: str
    host: str
    """The authority that the visitor called, with its port where one was given."""


def add_forwarded(fields: Fields, visit: Visit, trusted: bool) -> Fields:
    """`fields` with this hop's `X-Forwarded-For/-Proto/-Host` and `Forwarded` (RFC 7239).

    Inbound copies count only when the peer is a trusted proxy: then the chain is kept and extended, else it is dropped.
    """
    own = _own_hop(visit.address, visit.scheme, visit.host) if not trusted else _extended_hop(visit, _inbound(fields))
    # CGI and WSGI read X_Forwarded_For as X-Forwarded-For: a copy in that spelling is a copy.
    return [*(field for field in fields if field[0].lower().replace(b"_", b"-") not in FORWARDED), *own]


@lru_cache(maxsize=1024)
def _own_hop(address: str, scheme: str, host: str) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a chain that begins here; the same visitor asks for them again and again."""
    return _extended_hop(Visit(address, scheme, host), ())


def _extended_hop(visit: Visit, inbound: Sequence[tuple[bytes, str]]) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a chain, with what a trusted proxy said before us."""
    chain = [value for name, value in inbound if name == b"x-forwarded-for"] + [visit.address]
    elements = [value for name, value in inbound if name == b"forwarded"]
    schemes = [_nearest(value).lower() for name, value in inbound if name == b"x-forwarded-proto"]
    hosts = [_nearest(value) for name, value in inbound if name == b"x-forwarded-host"]
    scheme = next((value for value in schemes if value in SCHEMES), visit.scheme)
    host = next(filter(None, hosts), visit.host)
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')
    elements.append(f'for={_node(visit.address)};proto={scheme};host="{quoted}"')
    return (
        (b"X-Forwarded-For", ", ".join(chain).encode("latin-1")),
        (b"X-Forwarded-Proto", scheme.encode("latin-1")),
        (b"X-Forwarded-Host", host.encode("latin-1")),
        (b"Forwarded", ", ".join(elements).encode("latin-1")),
    )


def _inbound(fields: Fields) -> list[tuple[bytes, str]]:
    kept = [(name.lower(), value.decode("latin-1").strip(" \t")) for name, value in fields if name.lower() in FORWARDED]
    return [(name, value) for name, value in kept if value]


def _nearest(value: str) -> str:
    """The visitor's own end of a list that each proxy on the way appended to."""
    return value.partition(",")[0].strip(" \t")


def address_of(peer: str, forwarded_for: str, trusts: Callable[[str], bool]) -> str:
    """Who speaks through `peer`: the last address of X-Forwarded-For that is not a trusted proxy's, if the peer is one.

    What is no address is nobody's: then it is whoever named it.
    """
    address = peer
    for one in reversed(forwarded_for.split(",")):
        if not trusts(address):
            break
        try:
            address = str(ipaddress.ip_address(one.strip()))
        except ValueError:
            break
    return address


def _node(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    return f'"[{parsed}]"' if parsed.version == 6 else str(parsed)


def rewrite_for_local(
    fields: Fields, local_authority: bytes, public_origins: frozenset[bytes], scheme: bytes = b"http"
) -> Fields:
    """`Host` becomes the local service's own; `Origin` too, but only where it is the tunnel's own public origin.

    Any other Origin passes untouched, so that a foreign page is refused by the local service as it would be without us.
    `public_origins` are in lower case; `scheme` is the local service's.
    """
    result: Fields = []
    for field in fields:
        lower = field[0].lower()
        if lower == b"host":
            result.append((field[0], local_authority))
        elif lower == b"origin" and field[1].lower() in public_origins:
            result.append((field[0], scheme + b"://" + local_authority))
        else:
            result.append(field)
    return result


def first(fields: Fields, name: bytes) -> bytes | None:
    """The value of the first field called `name` (lower case)."""
    for field_name, value in fields:
        if field_name.lower() == name:
            return value
    return None
