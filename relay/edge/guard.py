"""Which request heads may pass, and what they mean: decided once, before anything is routed. Pure.

It is given a head that was split already, and trusts whoever did so with nothing but its fields' form: a head that
passes has one meaning however it is written anew. It alone knows what a visitor may ask of the relay itself; whether a
host exists, and what happens to the body, is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from relay.edge.answers import Code, Facts, accepts_html, is_json
from relay.edge.hosts import BadHost, Host, normalise_host
from relay.exchange.errors import MalformedHead
from relay.exchange.framing import parse_coding, parse_length
from relay.exchange.headers import CLAIMS, HOP_BY_HOP, PROTECTED, options
from relay.exchange.heads import TARGET, Fields, check_fields

MAX_FIELDS: Final = 100
MAX_HEAD: Final = 32 * 1024
"""Bytes of a request head: request line, names, values and what separates them."""

# What llhttp knows of HTTP/1.1, without the two that a relay must not carry (CONNECT, TRACE) and HTTP/2's PRI.
METHODS: Final = frozenset(
    b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY OPTIONS "
    b"PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK "
    b"UNSUBSCRIBE".split()
)
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?#]*)((?:[/?].*)?)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {b"http": 80, b"https": 443}
LOGGED: Final = (b"traceparent", b"mcp-method", b"mcp-name")
"""Fields that pass, and whose values the access log tells."""
_LOGGED: Final = frozenset(LOGGED)
# What one head may say once, and what it may say in several fields as well as in one (RFC 9110 §5.3). Of others that
# mean something here, only the first counts.
_ONCE: Final = {b"host": "Host", b"content-length": "Content-Length", b"transfer-encoding": "Transfer-Encoding"}
_LISTS: Final = frozenset((b"connection", b"proxy-connection", b"upgrade", b"expect", b"accept"))
# A head without any of these goes on as it is, and is all that there is of its request.
_RULING: Final = HOP_BY_HOP | CLAIMS | {b"content-length", b"expect"}
_WATCHED: Final = _RULING.union((b"host", b"accept", b"origin", b"content-type"), LOGGED)
# Options of a Connection field that name nothing to remove beyond what is always removed.
_USUAL_TOKENS: Final = HOP_BY_HOP | {b"close", b"keep-alive"}
_NO_TOKENS: Final[Set[bytes]] = frozenset()
_KEEP_ALIVE: Final[Set[bytes]] = frozenset((b"keep-alive",))
_FIELD_OVERHEAD: Final = len(b": \r\n")


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
    accept: bytes = field(default=b"", repr=False)
    origin: bytes | None = None
    json_post: bool = False
    body: Body = Body.NONE
    length: int | None = None
    """Declared bytes of body. A length of 0 is a body of `Body.NONE` whose field is kept."""
    upgrade: bool = False
    keep_alive: bool = True
    http10: bool = False
    claims: bool = False
    """Whether any of the fields says how the request came here: one of `CLAIMS`."""
    logged: Mapping[bytes, bytes] = field(default_factory=dict, compare=False, repr=False)
    """The first value of each of the fields in `LOGGED` that there are, by lower-case name."""
    bare: Request | None = field(default=None, init=False, compare=False, repr=False)
    """The same without the credential that was for the relay, once `access` has made it."""
    called: str = field(default="", init=False, compare=False, repr=False)
    """The subdomain that it is for, once `routing` has told it; empty for none."""

    def facts(self, request_id: str, body_prefix: bytes) -> Facts:
        """What an answer of the relay's own has to know of this request."""
        return Facts(
            method=self.method,
            request_id=request_id,
            host=self.host.authority,
            accept_html=accepts_html(self.accept),
            json_post=self.json_post,
            origin=self.origin,
            body_prefix=body_prefix,
            keep_alive=self.keep_alive,
            http10=self.http10,
        )


def check(method: bytes, target: bytes, version: str, fields: Fields) -> Request:
    """The request that a head stands for, whoever has split it. Raises `Refusal`."""
    try:
        check_fields(fields)
    except MalformedHead as error:
        raise Refusal(Code.BAD_REQUEST, str(error)) from None
    size = len(method) + len(target) + sum([len(name) + len(value) + _FIELD_OVERHEAD for name, value in fields])
    request = understand(method, target, version, [(name, value.strip(b" \t")) for name, value in fields])
    if size > MAX_HEAD:
        raise Refusal(Code.HEAD_TOO_LARGE, f"more than {MAX_HEAD // 1024} KiB")
    return request


def understand(method: bytes, target: bytes, version: str, fields: Fields) -> Request:
    """The request that a head stands for whose fields are well-formed, and within `MAX_HEAD`. Raises `Refusal`."""
    if version not in ("1.1", "1.0"):
        raise Refusal(Code.BAD_REQUEST, "HTTP versions 1.1 and 1.0 are spoken here")
    if method not in METHODS:
        raise Refusal(Code.METHOD_NOT_SUPPORTED, method[:32].decode("latin-1"))
    if not TARGET.fullmatch(target):
        raise Refusal(Code.BAD_REQUEST, "the request target is not all visible ASCII")
    if len(fields) > MAX_FIELDS:
        raise Refusal(Code.HEAD_TOO_LARGE, f"more than {MAX_FIELDS} fields")
    said: dict[bytes, bytes] = {}
    for name, value in fields:
        lower = name.lower()
        if lower in _WATCHED:
            said[lower] = _joined(lower, said[lower], value) if lower in said else value
    if b"host" not in said:
        raise Refusal(Code.BAD_REQUEST, "no Host field")
    host = _host(said[b"host"])
    if not target.startswith(b"/"):
        target = _rewrite(method, target, host)
    request = Request(method, target, host, fields)
    if b"accept" in said:
        request.accept = said[b"accept"]
    if b"origin" in said:
        request.origin = said[b"origin"]
    if method == b"POST" and b"content-type" in said:
        request.json_post = is_json(said[b"content-type"])
    if not _LOGGED.isdisjoint(said):
        request.logged = {name: said[name] for name in LOGGED if name in said}
    if version == "1.0":
        request.http10, request.keep_alive = True, False
    if not _RULING.isdisjoint(said):
        _rule(request, said)
    return request


def _joined(name: bytes, before: bytes, value: bytes) -> bytes:
    """What two fields of one name say."""
    if name in _ONCE:
        raise Refusal(Code.BAD_REQUEST, f"more than one {_ONCE[name]} field")
    return before + b"," + value if name in _LISTS else before


def _rule(request: Request, said: Mapping[bytes, bytes]) -> None:
    """Framing, what ends at this hop, and what else a head may say beyond what is asked for."""
    request.claims = not CLAIMS.isdisjoint(said)
    if b"content-length" in said or b"transfer-encoding" in said:
        request.body, request.length = _framing(said, request.http10)
    gone: Set[bytes] = HOP_BY_HOP.intersection(said)
    if request.http10 and b"expect" in said and b"100-continue" in options(said[b"expect"]):
        gone |= {b"expect"}  # RFC 9110 §10.1.1: to be ignored, and nobody behind us should wait for it either
    if not gone:
        return
    tokens = _tokens(said, b"connection")
    if b"close" in tokens:
        request.keep_alive = False
    if b"upgrade" in tokens and b"upgrade" in said and not request.http10:
        request.upgrade = _is_websocket(request.method, said[b"upgrade"], request.body)
    named = tokens | _tokens(said, b"proxy-connection")
    if not named <= _USUAL_TOKENS:
        gone |= named - PROTECTED
    request.fields = [pair for pair in request.fields if pair[0].lower() not in gone]
    if request.upgrade:
        request.fields += ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))


def _tokens(said: Mapping[bytes, bytes], name: bytes) -> Set[bytes]:
    """The options of one of the two fields that carry connection options."""
    if name not in said:
        return _NO_TOKENS
    value = said[name]
    return _KEEP_ALIVE if value == b"keep-alive" else options(value)


def _host(value: bytes) -> Host:
    try:
        return normalise_host(value)
    except BadHost as error:
        raise Refusal(Code.BAD_REQUEST, f"Host: {error}") from None


def _framing(said: Mapping[bytes, bytes], http10: bool) -> tuple[Body, int | None]:
    """Two parsers that disagree here see different requests, so nothing is repaired (RFC 9112 §6.1, §11.2)."""
    coding, length = said.get(b"transfer-encoding"), said.get(b"content-length")
    try:
        if coding is not None:
            if http10:
                raise Refusal(Code.BAD_REQUEST, "Transfer-Encoding in HTTP/1.0")
            if length is not None:
                raise Refusal(Code.BAD_REQUEST, "Content-Length with Transfer-Encoding")
            parse_coding(coding)
            return Body.CHUNKED, None
        if length is not None:
            declared = parse_length(length)
            return Body.LENGTH if declared else Body.NONE, declared
    except MalformedHead as error:
        raise Refusal(Code.BAD_REQUEST, f"{error} is not valid") from None
    return Body.NONE, None


def _is_websocket(method: bytes, offers: bytes, body: Body) -> bool:
    """Whether an asked upgrade is one that we carry. Any other is passed over (RFC 9110 §7.8)."""
    if b"websocket" not in options(offers):
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
