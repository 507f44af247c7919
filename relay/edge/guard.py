"""Which request heads may pass, and what they mean: decided once, before anything is routed. Pure.

It is given a head that a parser has split, and trusts the parser with nothing: a head that passes has one meaning
however it is written anew. It alone knows what a visitor may ask of the relay itself; whether a host exists, and what
happens to the body, is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import IntEnum

from relay.edge.answers import Code, Facts, accepts_html, is_json
from relay.edge.hosts import BadHost, Host, normalise_host
from relay.exchange.errors import MalformedHead
from relay.exchange.framing import content_length, transfer_coding
from relay.exchange.headers import HOP_BY_HOP, connection_tokens, strip_hop_by_hop
from relay.exchange.heads import TARGET, Fields, check_fields

MAX_FIELDS = 100
MAX_HEAD = 32 * 1024
"""Bytes of a request head: request line, names, values and what separates them."""

# What llhttp knows of HTTP/1.1, without the two that a relay must not carry (CONNECT, TRACE) and HTTP/2's PRI.
METHODS = frozenset(
    b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY OPTIONS "
    b"PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK "
    b"UNSUBSCRIBE".split()
)
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE)
_DEFAULT_PORTS = {b"http": 80, b"https": 443}
LOGGED = (b"traceparent", b"mcp-method", b"mcp-name")
"""Fields that pass, and whose values the access log tells."""
# Fields that mean something here, hop-by-hop ones included.
_WATCHED = HOP_BY_HOP.union(b"host content-length expect accept content-type origin".split(), LOGGED)
# Options of a Connection field that name nothing to remove beyond what is always removed.
_USUAL_TOKENS = HOP_BY_HOP | {b"close", b"keep-alive"}
_NO_TOKENS: Set[bytes] = frozenset()
_KEEP_ALIVE: Set[bytes] = frozenset((b"keep-alive",))
_FIELD_OVERHEAD = len(b": \r\n")


class Body(IntEnum):
    """How the body of a request is framed (RFC 9112 §6.3)."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2


class Refusal(Exception):
    """A head that does not pass: the code of the answer, and what is wrong in a few words. The connection ends."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class Request:
    """A head that passed, and what it means."""

    method: bytes
    target: bytes
    """Origin-form, or `*`; escapes untouched."""
    host: Host
    fields: Fields = field(repr=False)
    """As they go on: hop-by-hop fields are gone; an upgrade carries our own `Connection` and `Upgrade`."""
    body: Body
    length: int | None
    """Declared bytes of body. A length of 0 is a body of `Body.NONE` whose field is kept."""
    upgrade: bool
    expect_continue: bool
    keep_alive: bool
    http10: bool
    accept_html: bool
    json_post: bool
    origin: bytes | None
    logged: Mapping[bytes, bytes] = field(default_factory=dict, compare=False, repr=False)
    """The first value of each of the fields in `LOGGED` that there are, by lower-case name."""
    bare: Request | None = field(default=None, init=False, compare=False, repr=False)
    """The same without the credential that was for the relay, once `access` has made it."""

    def facts(self, request_id: str, body_prefix: bytes) -> Facts:
        """What an answer of the relay's own has to know of this request."""
        return Facts(
            method=self.method,
            request_id=request_id,
            host=self.host.authority,
            accept_html=self.accept_html,
            json_post=self.json_post,
            origin=self.origin,
            body_prefix=body_prefix,
            keep_alive=self.keep_alive,
            http10=self.http10,
        )


def check(method: bytes, target: bytes, version: str, fields: Fields) -> Request:
    """The request that a head stands for. Raises `Refusal`."""
    if version not in ("1.1", "1.0"):
        raise Refusal(Code.BAD_REQUEST, "HTTP versions 1.1 and 1.0 are spoken here")
    if method not in METHODS:
        raise Refusal(Code.METHOD_NOT_SUPPORTED, method[:32].decode("latin-1"))
    if not TARGET.fullmatch(target):
        raise Refusal(Code.BAD_REQUEST, "the request target is not all visible ASCII")
    if len(fields) > MAX_FIELDS:
        raise Refusal(Code.HEAD_TOO_LARGE, f"more than {MAX_FIELDS} fields")
    kept, seen = _sort(fields, len(method) + len(target))
    host = _host(seen.get(b"host", ()))
    http10 = version == "1.0"
    body, length = _framing(seen, http10)
    tokens = _tokens(seen, b"connection")
    upgrade = b"upgrade" in tokens and not http10 and _is_websocket(method, seen.get(b"upgrade", ()), body)
    named = tokens | _tokens(seen, b"proxy-connection")
    if not named <= _USUAL_TOKENS:
        kept = strip_hop_by_hop(kept, set(named))
    if upgrade:
        kept += ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
    expects = b"expect" in seen and any(value.lower() == b"100-continue" for value in seen[b"expect"])
    if expects and http10:  # RFC 9110 §10.1.1: to be ignored, and nobody behind us should wait for it either
        kept = [field for field in kept if field[0].lower() != b"expect"]
    return Request(
        method=method,
        target=target if target.startswith(b"/") else _rewrite(method, target, host),
        host=host,
        fields=kept,
        body=body,
        length=length,
        upgrade=upgrade,
        expect_continue=expects and not http10 and body != Body.NONE,
        keep_alive=not http10 and b"close" not in tokens,
        http10=http10,
        accept_html=b"accept" in seen and any(map(accepts_html, seen[b"accept"])),
        json_post=method == b"POST" and any(map(is_json, seen.get(b"content-type", ()))),
        origin=seen[b"origin"][0] if b"origin" in seen else None,
        logged={name: seen[name][0] for name in LOGGED if name in seen},
    )


def _sort(fields: Fields, size: int) -> tuple[Fields, dict[bytes, list[bytes]]]:
    """One pass: (the fields without hop-by-hop ones, values of those that mean something here by lower-case name)."""
    try:
        check_fields(fields)
    except MalformedHead as error:
        raise Refusal(Code.BAD_REQUEST, str(error)) from None
    kept: Fields = []
    seen: dict[bytes, list[bytes]] = {}
    for pair in fields:
        name, value = pair
        size += len(name) + len(value) + _FIELD_OVERHEAD
        lower = name.lower()
        bare = value.strip(b" \t")  # the same object when there is nothing to strip
        if lower in _WATCHED:
            if lower in seen:
                seen[lower].append(bare)
            else:
                seen[lower] = [bare]
            if lower in HOP_BY_HOP:
                continue
        kept.append(pair if bare is value else (name, bare))
    if size > MAX_HEAD:
        raise Refusal(Code.HEAD_TOO_LARGE, f"more than {MAX_HEAD // 1024} KiB")
    return kept, seen


def _tokens(seen: Mapping[bytes, list[bytes]], name: bytes) -> Set[bytes]:
    """The options of one of the two fields that carry connection options."""
    values = seen.get(name)
    if values is None:
        return _NO_TOKENS
    return _KEEP_ALIVE if values == [b"keep-alive"] else connection_tokens([(name, value) for value in values])


def _host(values: Sequence[bytes]) -> Host:
    if len(values) != 1:
        raise Refusal(Code.BAD_REQUEST, "more than one Host field" if values else "no Host field")
    try:
        return normalise_host(values[0])
    except BadHost as error:
        raise Refusal(Code.BAD_REQUEST, f"Host: {error}") from None


def _framing(seen: Mapping[bytes, Sequence[bytes]], http10: bool) -> tuple[Body, int | None]:
    """Two parsers that disagree here see different requests, so nothing is repaired (RFC 9112 §6.1, §11.2)."""
    codings, lengths = seen.get(b"transfer-encoding"), seen.get(b"content-length")
    try:
        if codings is not None:
            if http10:
                raise Refusal(Code.BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")
            if lengths is not None:
                raise Refusal(Code.BAD_REQUEST, "Content-Length with Transfer-Encoding")
            transfer_coding([(b"transfer-encoding", value) for value in codings])
            return Body.CHUNKED, None
        if lengths is not None:
            length = content_length([(b"content-length", value) for value in lengths])
            return Body.LENGTH if length else Body.NONE, length
    except MalformedHead as error:
        raise Refusal(Code.BAD_REQUEST, f"{error} is not valid") from None
    return Body.NONE, None


def _is_websocket(method: bytes, offers: Sequence[bytes], body: Body) -> bool:
    """Whether an asked upgrade is one that we carry. Any other is passed over (RFC 9110 §7.8)."""
    if not any(offer.strip(b" \t").lower() == b"websocket" for value in offers for offer in value.split(b",")):
        return False
    if body != Body.NONE:
        raise Refusal(Code.BAD_REQUEST, "an upgrade to WebSocket with a body")
    return method == b"GET"


def _rewrite(method: bytes, target: bytes, host: Host) -> bytes:
    """The target, which is no path, in origin-form (RFC 9112 §3.2)."""
    if target == b"*":
        if method != b"OPTIONS":
            raise Refusal(Code.BAD_REQUEST, "the target * belongs to OPTIONS")
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refusal(Code.BAD_REQUEST, "the request target is no path")
    scheme, authority, path = absolute.groups()
    default = _DEFAULT_PORTS[scheme.lower()]
    try:
        named = normalise_host(authority)
    except BadHost as error:
        raise Refusal(Code.BAD_REQUEST, f"request target: {error}") from None
    if (named.name, named.port or default) != (host.name, host.port or default):
        raise Refusal(Code.BAD_REQUEST, "the request target names another host than Host")
    if path.startswith(b"/"):
        return bytes(path)
    if not path and method == b"OPTIONS":  # RFC 9112 §3.2.4
        return b"*"
    return b"/" + bytes(path)
