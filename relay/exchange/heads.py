"""Request and response heads: typed values, and their binary form on the wire. Pure.

Heads travel as length-prefixed fields, never as raw HTTP text, and are validated when they are read: names are tokens
(RFC 9110 §5.6.2), values hold no CR, LF, NUL or other control (§5.5), so a head that was decoded can be written to a
socket as it is. Order, case and duplicates of fields are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from operator import itemgetter
from struct import Struct
from struct import error as _STRUCT_ERROR
from typing import Final, NamedTuple

from relay.exchange.errors import MalformedHead

Fields = list[tuple[bytes, bytes]]

MAX_FIELDS: Final = 256
# Informational (1xx) heads before the final one: both ends of a stream count them.
MOST_INFORMATIONAL: Final = 32
UPGRADE: Final = 0x01
_U16: Final = Struct(">H")
_U16_PAIR: Final = Struct(">HH")
_STATUS: Final = Struct(">HB")

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# A request target: visible ASCII only (RFC 3986 §2; RFC 9112 §3.2).
TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# The same, as what is left over when all that may stand in a name or value is taken away: one call for many of them.
_ALL_BYTES: Final = [bytes((byte,)) for byte in range(256)]
_IN_NAMES: Final = b"".join(filter(TOKEN.fullmatch, _ALL_BYTES))
_IN_VALUES: Final = b"".join([byte for byte in _ALL_BYTES if not BAD_VALUE.match(byte)])

_NAME: Final = itemgetter(0)


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
    written: bytes = field(default=b"", compare=False, repr=False)
    """What whoever passes the head on makes of it, once made: the same head is often sent again."""


class EncodedFields(NamedTuple):
    """Fields in their binary form, and their number: what is the same for many heads is encoded once."""

    number: int
    encoded: bytes


NO_FIELDS: Final = EncodedFields(0, b"")


class EncodedRequest:
    """A request head in its binary form but for the request id, so that the same head is encoded once."""

    __slots__ = ("_after", "_before", "head")

    def __init__(self, head: RequestHead, behind: EncodedFields = NO_FIELDS) -> None:
        """`behind` are fields that go on behind those of `head`. Raises `MalformedHead` when a part is longer than its
        length can say.
        """
        self.head = head
        method, target = head.method, head.target
        try:
            name = head.name.encode("ascii")
            self._before = b"%c%c%b" % (UPGRADE if head.upgrade else 0, len(name), name)
            fields = encode_fields(head.fields, behind)
            self._after = b"%c%b%b%b%b" % (len(method), method, _U16.pack(len(target)), target, fields)
        except (ValueError, OverflowError, _STRUCT_ERROR):
            raise MalformedHead("a part of the request head is too long, or its name is not ASCII") from None

    def __len__(self) -> int:
        """Bytes of the payload, without the request id."""
        return len(self._before) + len(self._after)

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
    before, request_id, after = split_request_id(payload)
    head = decode_split(before, after)
    head.request_id = request_id
    return head


def decode_split(before: bytes, after: bytes) -> RequestHead:
    """The head of an OPEN payload that `split_request_id` has split, without its id. Raises `MalformedHead`."""
    try:
        name = before[2:].decode("ascii")
        end = 1 + after[0]
        method = after[1:end]
        (length,) = _U16.unpack_from(after, end)
        target = after[end + 2 : end + 2 + length]
        if not TARGET.fullmatch(target) or not TOKEN.fullmatch(method):
            raise MalformedHead("request line")
        if not name.isprintable():
            raise MalformedHead("a name that holds a control character")
        fields = decode_fields(after, end + 2 + length)
        return RequestHead(method, target, fields, name, "", before[0] & UPGRADE != 0)
    except UnicodeDecodeError:
        raise MalformedHead("a name that is not ASCII") from None
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


def encode_fields(fields: Fields, behind: EncodedFields = NO_FIELDS) -> bytes:
    """Count and fields, then those of `behind`; also the payload of an END frame that carries trailers. Raises
    `MalformedHead` when there are too many, or one is too long.
    """
    count = len(fields) + behind.number
    if count > MAX_FIELDS:
        raise MalformedHead(f"{count} header fields, allowed are {MAX_FIELDS}")
    parts = [_U16.pack(count)]
    pack = _U16_PAIR.pack
    try:
        for name, value in fields:
            parts += (pack(len(name), len(value)), name, value)
    except _STRUCT_ERROR:
        raise MalformedHead("a header field above 65,535 bytes") from None
    parts.append(behind.encoded)
    return b"".join(parts)


def encode_part(fields: Fields) -> EncodedFields:
    """Some fields of many heads. Raises `MalformedHead` when there are too many, or one is too long."""
    return EncodedFields(len(fields), encode_fields(fields)[_U16.size :])


def decode_fields(payload: bytes, at: int) -> Fields:
    """The fields from offset `at` to the end of `payload`, validated. Raises `MalformedHead`."""
    try:
        (count,) = _U16.unpack_from(payload, at)
        at += 2
        if count > MAX_FIELDS:
            raise MalformedHead(f"{count} header fields, allowed are {MAX_FIELDS}")
        fields: Fields = []
        append, unpack = fields.append, _U16_PAIR.unpack_from
        for _ in range(count):
            name_length, value_length = unpack(payload, at)
            at += 4
            middle = at + name_length
            end = middle + value_length
            append((payload[at:middle], payload[middle:end]))
            at = end
    except _STRUCT_ERROR:
        raise MalformedHead("header fields are cut short") from None
    if at != len(payload):
        raise MalformedHead("header fields do not fill their frame")
    check_fields(fields)
    return fields


def check_fields(fields: Fields) -> None:
    """Raises `MalformedHead` when a name is no token or a value could split a message.

    All names at once and all values at once: what is made of tokens is a token, except for empty names, which are
    looked for apart.
    """
    if not fields:
        return
    names = [name for name, _ in fields]
    if b"" in names or b"".join(names).translate(None, _IN_NAMES):
        raise MalformedHead("a header field name is not a token")
    if b"".join([value for _, value in fields]).translate(None, _IN_VALUES):
        raise MalformedHead("a header field value holds a control character")


def lower_names(fields: Fields) -> list[bytes]:
    """The name of each field in lower case, for those who look for one."""
    return [*map(bytes.lower, map(_NAME, fields))]
