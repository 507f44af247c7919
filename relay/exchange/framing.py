"""Body framing of HTTP/1.1 (RFC 9112 §6): where a body ends, decided once and counted exactly. Pure.

A decoder is fed what follows a head and gives body bytes; it says when the body is complete and what is left over.
It is strict where parsers disagree: a chunk size is 1 to 15 hex digits, lines end in CRLF, chunk extensions are
bounded and dropped.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from relay.exchange.errors import MalformedBody, MalformedHead
from relay.exchange.heads import MAX_FIELDS, Fields, check_fields, lower_names

MAX_CHUNK_LINE: Final = 1024
MAX_TRAILERS: Final = 16 * 1024
LAST_CHUNK: Final = b"0\r\n\r\n"

_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_CHUNK_START: Final = re.compile(_CHUNK_LINE.pattern + rb"\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class BodyDecoder(Protocol):
    """One body on its way in. `done` is set once it is complete; `trailers` holds what came after it."""

    done: bool
    trailers: Fields

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """(body parts, none of them empty; bytes behind the body). Raises `MalformedBody`."""

    def eof(self) -> None:
        """The sender closed. Raises `MalformedBody` when the body is not complete by that."""


class LengthBody:
    """A body of exactly `length` bytes."""

    __slots__ = ("done", "left", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.trailers: Fields = []

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See `BodyDecoder.feed`."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return [data] if data else [], b""
        body, rest = (data, b"") if size == self.left else (data[: self.left], data[self.left :])
        self.left = 0
        self.done = True
        return [body] if body else [], rest

    def eof(self) -> None:
        """See `BodyDecoder.eof`."""
        if not self.done:
            raise MalformedBody(f"closed {self.left} bytes before the end of the body")


class CloseBody:
    """A body that ends when the sender closes (responses only, RFC 9112 §6.3)."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: Fields = []

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See `BodyDecoder.feed`."""
        return [data] if data else [], b""

    def eof(self) -> None:
        """See `BodyDecoder.eof`."""
        self.done = True


class ChunkedBody:
    """A chunked body (RFC 9112 §7.1). Holds at most one chunk line, or the trailers, of what was fed."""

    __slots__ = ("_left", "_line", "_step", "done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: Fields = []
        self._step = "size"
        self._left = 0
        self._line = b""

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """See `BodyDecoder.feed`."""
        parts: list[bytes] = []
        if self._line:
            data = self._line + data
            self._line = b""
        at, size = 0, len(data)  # an offset, not a shorter copy: many small chunks must not cost their square
        while at < size and not self.done:
            if self._step == "size" and (line := _CHUNK_START.match(data, at)) is not None:
                start = line.end()
                left = int(line[1], 16)
                if start - at <= MAX_CHUNK_LINE and data.startswith(b"\r\n", start + left):  # all of it is here
                    at = start + left + 2
                    if left:
                        parts.append(data[start : start + left])
                    else:
                        self.done = True
                    continue
            if self._step == "data":
                # Compiled, a slice of bytes is always a copy.
                part = data if not at and size <= self._left else data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                parts.append(part)
                if not self._left:
                    self._step = "crlf"
            elif self._step == "trailers":
                at = self._read_trailers(data, at)
            else:
                at = self._read_line(data, at)
        return parts, data[at:]

    def eof(self) -> None:
        """See `BodyDecoder.eof`."""
        if not self.done:
            raise MalformedBody("closed in the middle of a chunked body")

    def _read_line(self, data: bytes, at: int) -> int:
        if self._step == "crlf":
            if not data.startswith(b"\r\n", at):
                if len(data) - at == 1 and data.endswith(b"\r"):
                    return self._keep(data, at)
                raise MalformedBody("chunk data does not end in CRLF")
            self._step = "size"
            return at + 2
        end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE)
        if end < 0:
            if len(data) - at >= MAX_CHUNK_LINE or data.find(b"\n", at) >= 0:
                raise MalformedBody("chunk size line")
            return self._keep(data, at)
        match = _CHUNK_LINE.fullmatch(data, at, end)
        if match is None:
            raise MalformedBody("chunk size line")
        self._left = int(match[1], 16)
        self._step = "data" if self._left else "trailers"
        return end + 2

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + MAX_TRAILERS)
        if end < 0:
            if len(data) - at >= MAX_TRAILERS:
                raise MalformedBody(f"trailers above {MAX_TRAILERS} bytes")
            return self._keep(data, at)
        self.trailers = parse_field_lines(data[at:end])
        self.done = True
        return end + 4

    def _keep(self, data: bytes, at: int) -> int:
        """Holds the rest until more comes; at most a chunk line, or the trailers."""
        self._line = data[at:]
        return len(data)


def parse_field_lines(block: bytes) -> Fields:
    """Field lines between CRLFs, strictly, at most `MAX_FIELDS`. Raises `MalformedBody`."""
    fields: Fields = []
    lines = block.split(b"\r\n")
    if len(lines) > MAX_FIELDS:
        raise MalformedBody(f"{len(lines)} trailer fields, allowed are {MAX_FIELDS}")
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise MalformedBody("trailer field without a colon")
        fields.append((name, value.strip(b" \t")))
    try:
        check_fields(fields)
    except MalformedHead as error:
        raise MalformedBody(str(error)) from None
    return fields


def content_length(fields: Fields) -> int | None:
    """The one declared length in bytes, None without. Raises `MalformedHead` when it is no number or ambiguous.

    RFC 9112 §6.3: differing values are an error; the same value twice is refused as well.
    """
    names = lower_names(fields)
    if b"content-length" not in names:
        return None
    if names.count(b"content-length") > 1:
        raise MalformedHead("Content-Length")
    return parse_length(fields[names.index(b"content-length")][1])


def parse_length(value: bytes) -> int:
    """The bytes that a `Content-Length` declares. Raises `MalformedHead` when it is no number."""
    if not _LENGTH.fullmatch(value):
        raise MalformedHead("Content-Length")
    return int(value)


def transfer_coding(fields: Fields) -> bool:
    """Whether the body is chunked. Raises `MalformedHead` for any other transfer coding (RFC 9112 §6.1)."""
    names = lower_names(fields)
    if b"transfer-encoding" not in names:
        return False
    if names.count(b"transfer-encoding") > 1:
        raise MalformedHead("Transfer-Encoding")
    return parse_coding(fields[names.index(b"transfer-encoding")][1])


def parse_coding(value: bytes) -> bool:
    """True: a `Transfer-Encoding` says chunked. Raises `MalformedHead` when it says anything else."""
    if value.lower() != b"chunked":
        raise MalformedHead("Transfer-Encoding")
    return True


def response_body(request_method: bytes, status: int, fields: Fields) -> BodyDecoder | None:
    """How a response's body is framed (RFC 9112 §6.3); None when it has none. Raises `MalformedHead`."""
    chunked = transfer_coding(fields)
    length = content_length(fields)
    if request_method == b"HEAD" or status in (204, 304) or status < 200:
        return None
    if chunked:
        if length is not None:
            raise MalformedHead("Content-Length with Transfer-Encoding")
        return ChunkedBody()
    if length is not None:
        return LengthBody(length) if length else None
    return CloseBody()


def encode_chunk(data: bytes | memoryview) -> bytes:
    """One chunk, a copy of `data`, which must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)  # type: ignore[str-format]  # %b takes any buffer


def encode_last_chunk(trailers: Fields) -> bytes:
    """The last chunk, with trailers."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + b"".join([b"%b: %b\r\n" % field for field in trailers]) + b"\r\n"
