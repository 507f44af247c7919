"""HTTP/1.1 messages as they stood on the wire: heads with their exact bytes, bodies by their framing.

This room reads; it never corrects, folds, lower-cases or sorts. What is not HTTP raises `Malformed`. It decides how
a body ends (RFC 9112 §6.3) and nothing else about meaning.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Literal

from tests.support.rawstream import EndOfBytes, RawStream

Headers = list[tuple[bytes, bytes]]
Framing = Literal["none", "length", "chunked", "close"]
Ending = Literal["clean", "eof", "reset", "closed", "malformed"]


class Malformed(Exception):
    """Bytes that are not HTTP/1.1."""


@dataclass(frozen=True, slots=True)
class Head:
    """A start line and headers: names with their case, values without the white space around them, and all raw bytes.

    A line without a colon is a name with an empty value.
    """

    line: bytes
    headers: Headers
    raw: bytes

    def all(self, name: str) -> list[bytes]:
        """Values of a header, any case, in order."""
        wanted = name.lower().encode("latin-1")
        return [value for each, value in self.headers if each.lower() == wanted]

    def get(self, name: str) -> bytes | None:
        """The first value of a header, any case."""
        values = self.all(name)
        return values[0] if values else None

    @property
    def status(self) -> int:
        """Status code of a response; raises Malformed."""
        parts = self.line.split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
            raise Malformed(f"not a status line: {self.line!r}")
        return int(parts[1])


def parse_headers(lines: Iterable[bytes]) -> Headers:
    """Name and value of each line."""
    pairs = (line.partition(b":") for line in lines)
    return [(name, value.strip(b" \t")) for name, _, value in pairs]


def parse_head(raw: bytes) -> Head:
    """A head from its bytes, the empty line included or not."""
    lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    return Head(lines[0], parse_headers(lines[1:]), raw)


async def read_head(stream: RawStream) -> Head:
    """The next head; raises EndOfBytes."""
    return parse_head(await stream.until(b"\r\n\r\n"))


def framing(head: Head, *, request: bool, method: bytes = b"GET") -> tuple[Framing, int]:
    """How the body after this head ends, and its length (for "length"). `method` is that of a response's request."""
    if not request:
        status = head.status
        if status < 200 or status in (204, 304) or method == b"HEAD" or (method == b"CONNECT" and status < 300):
            return "none", 0
    codings = b",".join(head.all("transfer-encoding")).lower()
    if codings.rpartition(b",")[2].strip() == b"chunked":
        return "chunked", 0
    length = head.get("content-length")
    if length is not None and not codings:
        if not length.isdigit():
            raise Malformed(f"Content-Length: {length!r}")
        return "length", int(length)
    return ("none", 0) if request else ("close", 0)


@dataclass(slots=True)
class Body:
    """A body being read: iterate for its pieces as they come; afterwards `trailers` and `chunk_sizes` are filled."""

    stream: RawStream
    kind: Framing
    length: int = 0
    trailers: Headers = field(default_factory=list)
    chunk_sizes: list[int] = field(default_factory=list)
    complete: bool = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Pieces of the body; raises EndOfBytes or Malformed where it breaks off."""
        if self.kind == "length":
            async for piece in self._counted(self.length):
                yield piece
        elif self.kind == "chunked":
            async for piece in self._chunks():
                yield piece
        elif self.kind == "close":
            while piece := await self.stream.some():
                yield piece
        self.complete = True

    async def _counted(self, left: int) -> AsyncIterator[bytes]:
        while left:
            piece = await self.stream.some(left)
            if not piece:
                raise EndOfBytes("eof", b"")
            left -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            line = (await self.stream.until(b"\r\n"))[:-2]
            digits = line.partition(b";")[0].strip(b" \t")
            if not digits or digits.strip(b"0123456789abcdefABCDEF"):
                raise Malformed(f"chunk size: {line!r}")
            size = int(digits, 16)
            self.chunk_sizes.append(size)
            if size == 0:
                break
            async for piece in self._counted(size):
                yield piece
            if await self.stream.exactly(2) != b"\r\n":
                raise Malformed("no line end after a chunk")
        lines: list[bytes] = []
        while (line := await self.stream.until(b"\r\n")) != b"\r\n":
            lines.append(line[:-2])
        self.trailers = parse_headers(lines)


@dataclass(slots=True)
class Response:
    """One response as it came: 1xx heads, the head, the body by its framing, and how it ended.

    `ended`: clean (complete by its framing), eof or reset (broken off by the peer), closed (by us), malformed.
    `raw` is everything, the interim heads included, at most 4 MiB. Times are `time.monotonic()` seconds.
    """

    interim: list[Head] = field(default_factory=list)
    head: Head | None = None
    framing: Framing = "none"
    body: bytes = b""
    trailers: Headers = field(default_factory=list)
    chunk_sizes: list[int] = field(default_factory=list)
    ended: Ending = "clean"
    raw: bytes = b""
    head_at: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When each piece of the body came, and its size."""

    @property
    def status(self) -> int:
        """Status code; 0 when no head came."""
        return 0 if self.head is None else self.head.status

    @property
    def headers(self) -> Headers:
        """Headers of the head."""
        return [] if self.head is None else self.head.headers


async def read_response(stream: RawStream, method: bytes = b"GET") -> Response:
    """One response to a request of this method. An end or nonsense is recorded in it, not raised."""
    response = Response()
    stream.start_tape()
    pieces: list[bytes] = []
    try:
        while True:
            head = await read_head(stream)
            if not 100 <= head.status < 200 or head.status == 101:
                break
            response.interim.append(head)
        response.head, response.head_at = head, time.monotonic()
        response.framing, length = framing(head, request=False, method=method)
        body = Body(stream, response.framing, length, response.trailers, response.chunk_sizes)
        async for piece in body:
            response.arrivals.append((time.monotonic(), len(piece)))
            pieces.append(piece)
        response.trailers = body.trailers
    except EndOfBytes as end:
        response.ended = end.how
    except (Malformed, ValueError):
        response.ended = "malformed"
    response.body = b"".join(pieces)
    response.raw = bytes(stream.tape)
    return response
