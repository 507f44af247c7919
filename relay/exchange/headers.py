"""Header hygiene in one place: what a hop removes, what the relay adds, what the agent rewrites. Pure.

RFC 9110 §7.6.1: `Connection` and whatever it lists end at this hop, in every spelling. `Trailer` stays, since
trailers are carried.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Final

from relay.exchange.heads import EncodedFields, Fields, encode_part, lower_names

# End-to-end fields that a Connection list may never remove: stripping them would change what the request means.
PROTECTED: Final = frozenset(
    b"host content-length content-type authorization cookie origin forwarded x-forwarded-for x-forwarded-proto"
    b" x-forwarded-host mcp-session-id mcp-protocol-version last-event-id date".split()
)
HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te transfer-encoding upgrade"
    b" http2-settings".split()
)
FORWARDED: Final = frozenset(b"forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port".split())
# The same in every spelling: to CGI and WSGI, X_Forwarded_For is X-Forwarded-For.
CLAIMS: Final = frozenset(
    bytes(spelled) for name in FORWARDED for spelled in product(*(b"-_" if byte == 0x2D else (byte,) for byte in name))
)
# What must be known before a body, or is one hop's own, is worth nothing behind it and may do harm (RFC 9110 §6.5.1).
NOT_IN_TRAILERS: Final = (
    HOP_BY_HOP | FORWARDED | frozenset(b"host content-length content-encoding authorization cookie".split())
)
SCHEMES: Final = frozenset(("http", "https", "ws", "wss"))
_LISTS: Final = (b"connection", b"proxy-connection")


def connection_tokens(fields: Fields) -> set[bytes]:
    """The lower-case options of all `Connection` and `Proxy-Connection` fields."""
    names = lower_names(fields)
    if b"connection" not in names and b"proxy-connection" not in names:
        return set()
    listed = [field[1] for field, name in zip(fields, names, strict=True) if name in _LISTS]
    return options(b",".join(listed))


def options(value: bytes) -> set[bytes]:
    """The items of a list (RFC 9110 §5.6.1), in lower case."""
    tokens = {token.strip(b" \t").lower() for token in value.split(b",")}
    tokens.discard(b"")
    return tokens


def strip_hop_by_hop(fields: Fields) -> Fields:
    """The fields that go on, the very same where all do. Protected fields are never removed."""
    names = lower_names(fields)
    if HOP_BY_HOP.isdisjoint(names):  # so none of them lists another
        return fields
    gone = HOP_BY_HOP | connection_tokens(fields) - PROTECTED
    return [field for field, name in zip(fields, names, strict=True) if name not in gone]


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
    return [
        *(field for field in fields if field[0].lower() not in CLAIMS),
        *_extended_hop(visit, _inbound(fields) if trusted else ()),
    ]


@lru_cache(maxsize=1024)
def own_hop(address: str, scheme: str, host: str) -> EncodedFields:
    """What `add_forwarded` adds to fields none of which is in `CLAIMS`; the same visitor asks for it many times."""
    return encode_part(_extended_hop(Visit(address, scheme, host), ()))


def _extended_hop(visit: Visit, inbound: Sequence[tuple[bytes, str]]) -> Fields:
    """The fields of a chain, with what a trusted proxy said before us."""
    chain = [value for name, value in inbound if name == b"x-forwarded-for"] + [visit.address]
    elements = [value for name, value in inbound if name == b"forwarded"]
    schemes = [_nearest(value).lower() for name, value in inbound if name == b"x-forwarded-proto"]
    hosts = [_nearest(value) for name, value in inbound if name == b"x-forwarded-host"]
    scheme = next((value for value in schemes if value in SCHEMES), visit.scheme)
    host = next(filter(None, hosts), visit.host)
    quoted = host.replace("\\", "\\\\").replace('"', '\\"')
    elements.append(f'for={_node(visit.address)};proto={scheme};host="{quoted}"')
    return [
        (b"X-Forwarded-For", ", ".join(chain).encode("latin-1")),
        (b"X-Forwarded-Proto", scheme.encode("latin-1")),
        (b"X-Forwarded-Host", host.encode("latin-1")),
        (b"Forwarded", ", ".join(elements).encode("latin-1")),
    ]


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


def rewrite_for_local(fields: Fields, authority: bytes, scheme: bytes = b"http") -> Fields:
    """`Host` becomes the local service's own; `Origin` too, but only where it is the tunnel's own public origin: the
    scheme and the very `Host` by which the visitor called it, as the relay tells.

    Any other Origin passes untouched, so that a foreign page is refused by the local service as it would be without us.
    `authority` and `scheme` are the local service's.
    """
    names = lower_names(fields)
    result = fields.copy()
    if b"origin" in names:
        public = (first(fields, b"x-forwarded-proto") or b"http") + b"://" + (first(fields, b"host") or b"")
        for at in _places(names, b"origin"):
            if fields[at][1].lower() == public.lower():
                result[at] = (fields[at][0], scheme + b"://" + authority)
    for at in _places(names, b"host"):
        result[at] = (fields[at][0], authority)
    return result


def _places(names: list[bytes], name: bytes) -> list[int]:
    if names.count(name) == 1:
        return [names.index(name)]
    return [at for at, one in enumerate(names) if one == name]


def first(fields: Fields, name: bytes) -> bytes | None:
    """The value of the first field called `name` (lower case)."""
    names = lower_names(fields)
    return fields[names.index(name)][1] if name in names else None
