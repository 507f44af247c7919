"""Request and response heads: typed values, and their binary form on the wire. Pure.

Heads travel as length-prefixed fields, never as raw HTTP text, and are validated when they are read: names are tokens
(RFC 9110 §5.6.2), values hold no CR, LF, NUL or other control (§5.5), so a head that was decoded can be written to a
socket as it is. Order, case and duplicates of fields are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from struct import Struct
from struct import error as _STRUCT_ERROR

from relay.exchange.errors import MalformedHead

Fields = list[tuple[bytes, bytes]]

MAX_FIELDS = 256
# Informational (1xx) heads before the final one: both ends of a stream count them.
MOST_INFORMATIONAL = 32
UPGRADE = 0x01
_U16 = Struct(">H")
_U16_PAIR = Struct(">HH")
_STATUS = Struct(">HB")

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# A request target: visible ASCII only (RFC 3986 §2; RFC 9112 §3.2).
TARGET = re.compile(rb"[\x21-\x7e]+")
_REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


@dataclass(slots=True)
class RequestHead:
    """What the agent needs to speak to the local service for one visitor's request."""

    method: bytes
    target: bytes
    fields: Fields = field(repr=False)
    name: str
    """The subdomain that the visitor called."""
    request_id: str = ""
    upgrade: bool = False


@dataclass(slots=True)
class ResponseHead:
    """Status line and fields of an answer, final or informational (1xx)."""

    status: int
    reason: bytes
    fields: Fields
    written: bytes = b""
    """What whoever passes the head on makes of it, once made: the same head is often sent again."""


class EncodedRequest:
    """A request head in its binary form but for the request id, so that the same head is encoded once."""

    __slots__ = ("_after", "_before", "head")

    def __init__(self, head: RequestHead) -> None:
        """Raises `MalformedHead` when a part is longer than its length can say."""
        self.head = head
        try:
            name = head.name.encode("ascii")
            self._before = bytes((UPGRADE if head.upgrade else 0, len(name))) + name
            self._after = b"".join(
                (
                    bytes((len(head.method),)),
                    head.method,
                    _U16.pack(len(head.target)),
                    head.target,
                    encode_fields(head.fields),
                )
            )
        except (ValueError, _STRUCT_ERROR):
            raise MalformedHead("a part of the request head is too long, or its name is not ASCII") from None

    def payload(self, request_id: str) -> bytes:
        """The payload of an OPEN frame. Raises `MalformedHead`."""
        try:
            return b"%b%c%b%b" % (self._before, len(request_id), request_id.encode("ascii"), self._after)
        except (ValueError, OverflowError):
            raise MalformedHead("the request id is too long, or not ASCII") from None


def encode_request(head: RequestHead) -> bytes:
    """The payload of an OPEN frame. Raises `MalformedHead` when a part is longer than its length can say."""
    return EncodedRequest(head).payload(head.request_id)


def split_request_id(payload: bytes) -> tuple[bytes, str, bytes]:
    """(what stands before the request id in an OPEN payload, the id, what stands behind it). Raises `MalformedHead`."""
    try:
        at = 2 + payload[1]
        end = at + 1 + payload[at]
        request_id = payload[at + 1 : end].decode("ascii")
    except (IndexError, UnicodeDecodeError):
        raise MalformedHead("a request id that is cut short, or not ASCII") from None
    if not request_id.isprintable():
        raise MalformedHead("a request id that holds a control character")
    return payload[:at], request_id, payload[end:]


def decode_request(payload: bytes) -> RequestHead:
    """Raises `MalformedHead`."""
    try:
        flags = payload[0]
        name, at = _short(payload, 1)
        request_id, at = _short(payload, at)
        method, at = _short(payload, at)
        (length,) = _U16.unpack_from(payload, at)
        target = payload[at + 2 : at + 2 + length]
        if len(target) != length or not TARGET.fullmatch(target) or not TOKEN.fullmatch(method):
            raise MalformedHead("request line")
        called, ident = name.decode("ascii"), request_id.decode("ascii")
        if not (called.isprintable() and ident.isprintable()):
            raise MalformedHead("a name or request id holds a control character")
        fields = decode_fields(payload, at + 2 + length)
        return RequestHead(method, target, fields, called, ident, bool(flags & UPGRADE))
    except UnicodeDecodeError:
        raise MalformedHead("a name or request id is not ASCII") from None
    except (IndexError, _STRUCT_ERROR):
        raise MalformedHead("request head is cut short") from None


def encode_response(head: ResponseHead) -> bytes:
    """The payload of a HEAD frame. Raises `MalformedHead` when the reason is above 255 bytes."""
    try:
        return _STATUS.pack(head.status, len(head.reason)) + head.reason + encode_fields(head.fields)
    except _STRUCT_ERROR:
        raise MalformedHead("status line") from None


def decode_response(payload: bytes) -> ResponseHead:
    """Raises `MalformedHead`."""
    try:
        status, length = _STATUS.unpack_from(payload)
        reason = payload[3 : 3 + length]
        if not 100 <= status <= 999 or len(reason) != length or not _REASON.fullmatch(reason):
            raise MalformedHead("status line")
        return ResponseHead(status, reason, decode_fields(payload, 3 + length))
    except _STRUCT_ERROR:
        raise MalformedHead("response head is cut short") from None


def encode_fields(fields: Fields) -> bytes:
    """Count and fields; also the payload of an END frame that carries trailers. Raises `MalformedHead` if too many."""
    if len(fields) > MAX_FIELDS:
        raise MalformedHead(f"{len(fields)} header fields, allowed are {MAX_FIELDS}")
    parts = [_U16.pack(len(fields))]
    pack = _U16_PAIR.pack
    try:
        for name, value in fields:
            parts += (pack(len(name), len(value)), name, value)
    except _STRUCT_ERROR:
        raise MalformedHead("a header field above 65,535 bytes") from None
    return b"".join(parts)


def decode_fields(payload: bytes, at: int) -> Fields:
    """The fields from offset `at` to the end of `payload`, validated. Raises `MalformedHead`."""
    try:
        (count,) = _U16.unpack_from(payload, at)
        at += 2
        if count > MAX_FIELDS:
            raise MalformedHead(f"{count} header fields, allowed are {MAX_FIELDS}")
        fields: Fields = []
        unpack = _U16_PAIR.unpack_from
        for _ in range(count):
            name_length, value_length = unpack(payload, at)
            middle = at + 4 + name_length
            at += 4
            name = payload[at:middle]
            at = middle + value_length
            fields.append((name, payload[middle:at]))
    except _STRUCT_ERROR:
        raise MalformedHead("header fields are cut short") from None
    if at != len(payload):
        raise MalformedHead("header fields do not fill their frame")
    check_fields(fields)
    return fields


def check_fields(fields: Fields) -> None:
    """Raises `MalformedHead` when a name is no token or a value could split a message.

    One search over all values and one match over all names: a joined string of tokens is a token only if each is,
    except for empty names, which are looked for apart.
    """
    if not fields:
        return
    names = [name for name, _ in fields]
    if b"" in names or not TOKEN.fullmatch(b"".join(names)):
        raise MalformedHead("a header field name is not a token")
    if BAD_VALUE.search(b"".join([value for _, value in fields])):
        raise MalformedHead("a header field value holds a control character")


def _short(payload: bytes, at: int) -> tuple[bytes, int]:
    length = payload[at]
    value = payload[at + 1 : at + 1 + length]
    if len(value) != length:
        raise MalformedHead("head is cut short")
    return value, at + 1 + length
