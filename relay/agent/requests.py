"""What is asked of a local service and what comes of it: a request, its bytes, the events of an exchange. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from relay.exchange.errors import MalformedBody
from relay.exchange.framing import content_length, encode_chunk, encode_last_chunk
from relay.exchange.headers import HOP_BY_HOP
from relay.exchange.heads import BAD_VALUE, TOKEN, Fields, ResponseHead

FailureKind = Literal["local_refused", "local_reset", "bad_response"]

# What frames or routes a request is the agent's own affair.
_OURS = HOP_BY_HOP | frozenset(b"host content-length expect trailer".split())


@dataclass(slots=True)
class LocalRequest:
    """A request as it is written; whoever makes it has checked that nothing in it can split a message."""

    method: bytes
    target: bytes
    fields: Fields = field(repr=False)
    """Final, with `Host`, and with `Content-Length` when `body` is "length"; without hop-by-hop fields."""
    body: Literal["none", "length", "chunked"] = "none"
    upgrade: bool = False
    """A WebSocket handshake; it has no body."""
    encoded: bytes = field(default=b"", repr=False)
    """The head as it is written, where whoever made the request knows it already."""


class LocalEvents(Protocol):
    """What becomes of one exchange. After `on_end` or `on_failed` nothing more of an answer comes.

    `on_writable` may still come after `on_end`, while the upload (or the pipe's other half) is not written;
    it follows every False of `write` unless the exchange is over at both ends before.
    """

    def on_informational(self, head: ResponseHead) -> None:
        """A 1xx head other than 101."""

    def on_head(self, head: ResponseHead, upgraded: bool) -> None:
        """The final head. `upgraded`: a 101 was answered, from now on both ways are an opaque pipe."""

    def on_data(self, data: bytes) -> None:
        """Body bytes, never empty. After `pause` at most what was already read (256 KiB) still comes."""

    def on_end(self, trailers: Fields) -> None:
        """The answer is complete; of a pipe: the local service sends no more."""

    def on_failed(self, kind: FailureKind, detail: str, answered: bool) -> None:
        """There is no (whole) answer. `detail` names the address tried; `answered`: `on_head` had been called."""

    def on_writable(self) -> None:
        """After `write` said False: it may go on."""


class _Nobody:
    """Hears what nobody wants to hear any more."""

    def on_informational(self, head: ResponseHead) -> None: ...
    def on_head(self, head: ResponseHead, upgraded: bool) -> None: ...
    def on_data(self, data: bytes) -> None: ...
    def on_end(self, trailers: Fields) -> None: ...
    def on_failed(self, kind: FailureKind, detail: str, answered: bool) -> None: ...
    def on_writable(self) -> None: ...


NOBODY: LocalEvents = _Nobody()


def why_not_upstream(name: bytes, value: bytes) -> str:
    """What is wrong with a field that is to be added to every request, in a few words without its value; or empty."""
    if not TOKEN.fullmatch(name):
        return "the name is no field name"
    if name.lower() in _OURS:
        return f"{name.decode()} is set by the agent itself"
    if not value or BAD_VALUE.search(value):
        return "the value is empty or holds a control character"
    return ""


def with_upstream(fields: Fields, upstream: Fields) -> Fields:
    """`fields` with the local service's own ones, which replace all that the visitor sent by their names.

    CGI and WSGI read X_Api_Key as X-Api-Key: a copy in that spelling is replaced as well.
    """
    names = {name.lower().replace(b"_", b"-") for name, _ in upstream}
    return [*(pair for pair in fields if pair[0].lower().replace(b"_", b"-") not in names), *upstream]


def encode_head(request: LocalRequest) -> bytes:
    """The bytes of a request head."""
    parts = [request.method, b" ", request.target, b" HTTP/1.1\r\n"]
    for name, value in request.fields:
        parts += (name, b": ", value, b"\r\n")
    if request.body == "chunked":
        parts.append(b"Transfer-Encoding: chunked\r\n")
    if request.upgrade:
        parts.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


class RequestBody:
    """The body of a request on its way out, which keeps to what the request's head announced."""

    __slots__ = ("_chunked", "_left")

    def __init__(self, request: LocalRequest) -> None:
        self._chunked = request.body == "chunked"
        self._left = (content_length(request.fields) or 0) if request.body == "length" else 0

    def encode(self, data: bytes | memoryview) -> bytes:
        """`data`, which is not empty, as it is written. Raises `MalformedBody`."""
        if self._chunked:
            return encode_chunk(data)
        self._left -= len(data)
        if self._left < 0:
            raise MalformedBody("the request's body is longer than was announced")
        return bytes(data)  # no copy of bytes

    def end(self, trailers: Fields) -> bytes:
        """What is written behind the body. Raises `MalformedBody`."""
        if self._left:
            raise MalformedBody(f"the request's body ended {self._left} bytes early")
        return encode_last_chunk(trailers) if self._chunked else b""
