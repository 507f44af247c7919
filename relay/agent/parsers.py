"""Response heads of the local service, from bytes to a `ResponseHead`: cut out, then parsed. No I/O.

httptools is the default, h11 the strict alternative. Both are given exactly one head, up to and including its blank
line; bodies, 1xx and HEAD are decided elsewhere. What either leaves open is closed here for both: the status line, the
bounds of the wire's head, control characters and line folding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

import httptools

from relay.exchange.errors import MalformedHead
from relay.exchange.heads import MAX_FIELDS, Fields, ResponseHead, check_fields

MAX_HEAD: Final = 64 * 1024
"""Bytes of a response head, its blank line included."""
MOST_REASON: Final = 255
"""Bytes of a reason phrase that the wire can carry."""

# RFC 9112 §4; the space in front of an empty reason phrase is often forgotten.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")
_PREFIX: Final = b"HTTP/1."
BLANK_LINE: Final = b"\r\n\r\n"
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
# A line that is continued by white space (obs-fold), or that does not end in CRLF.
_BAD_LINE: Final = re.compile(rb"\n[ \t]|(?<!\r)\n|\r(?!\n)")


class HeadCutter:
    """Finds the end of a head in whatever pieces it comes, one head after the other; work and memory are bounded."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(one whole head or b"", the bytes behind it). Raises `MalformedHead` as soon as no head can become of it."""
        buffer = self._buffer
        known = len(buffer)
        if known:
            buffer += data
            end = buffer.find(BLANK_LINE, max(0, known - 3), MAX_HEAD)
        else:
            end = data.find(BLANK_LINE, 0, MAX_HEAD)
        if end >= 0:
            if known:
                data = bytes(buffer)
                buffer.clear()
            return data[: end + 4], data[end + 4 :]
        if not known:
            buffer += data
        if not buffer.startswith(_PREFIX[: len(buffer)]):
            tls = buffer.startswith((b"\x15\x03", b"\x16\x03"))
            raise MalformedHead("it is TLS, not HTTP; does the target want https://?" if tls else "it is not HTTP/1")
        if len(buffer) >= MAX_HEAD:
            raise MalformedHead(f"it is above {MAX_HEAD} bytes")
        if _BARE_LF.search(buffer, known):
            raise MalformedHead("a line does not end in CRLF")
        return b"", b""


class ResponseHeadParser(Protocol):
    """Reads one head at a time."""

    def parse(self, block: bytes) -> ResponseHead:
        """`block` ends with its blank line. Names keep their case, fields their order. Raises `MalformedHead`."""


def _status_line(block: bytes) -> tuple[int, bytes]:
    match = _STATUS_LINE.match(block)
    if match is None:
        raise MalformedHead("the first line is no status line of HTTP/1")
    reason = match[2] or b""
    if len(reason) > MOST_REASON:
        raise MalformedHead(f"a reason phrase above {MOST_REASON} bytes")
    return int(match[1]), reason


def _bounded(fields: Fields) -> Fields:
    if len(fields) > MAX_FIELDS:
        raise MalformedHead(f"{len(fields)} header fields, allowed are {MAX_FIELDS}")
    return fields


class HttptoolsParser:
    """llhttp by httptools, which refuses folded and badly ended lines and control characters by itself."""

    __slots__ = ()

    def parse(self, block: bytes) -> ResponseHead:
        """See `ResponseHeadParser.parse`."""
        status, reason = _status_line(block)
        sink = _Sink()
        try:
            httptools.HttpResponseParser(sink).feed_data(block)
        except httptools.HttpParserUpgrade:
            pass  # a 101 was read whole
        except httptools.HttpParserError as error:
            raise MalformedHead(f"header fields: {error}") from None
        if not sink.complete:
            raise MalformedHead("the head is not complete")
        return ResponseHead(status, reason, _bounded(sink.fields))


class _Sink:
    __slots__ = ("complete", "fields")

    def __init__(self) -> None:
        self.fields: Fields = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


class H11Parser:
    """h11, through its public events."""

    __slots__ = ()

    def parse(self, block: bytes) -> ResponseHead:
        """See `ResponseHeadParser.parse`."""
        import h11  # here: few agents have it chosen

        status, reason = _status_line(block)
        if _BAD_LINE.search(block):
            raise MalformedHead("header fields: a folded or badly ended line")
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=len(block))
        # It has to have asked for an upgrade, or it takes no 101.
        connection.send(h11.Request(method="GET", target="/", headers=_ASKED))
        connection.send(h11.EndOfMessage())
        try:
            connection.receive_data(block)
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            what, _, _ = str(error).partition(":")  # behind it stands the line, which may hold a secret
            raise MalformedHead(f"header fields: {what}") from None
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise MalformedHead("the head is not complete")
        fields = _bounded([(bytes(name), bytes(value)) for name, value in event.headers.raw_items()])
        check_fields(fields)
        return ResponseHead(status, reason, fields)


_ASKED: Final = [("Host", "local"), ("Connection", "upgrade"), ("Upgrade", "websocket")]

PARSERS: Final[dict[str, Callable[[], ResponseHeadParser]]] = {"httptools": HttptoolsParser, "h11": H11Parser}
"""By the names that `--http-parser` takes."""
