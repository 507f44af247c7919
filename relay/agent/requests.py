"""What is asked of a local service and what comes of it: a request, its bytes, the events of an exchange. No I/O."""

from __future__ import annotations

from itertools import chain
from typing import Final, Literal, Protocol

from relay.agent.answers import AnswerHead
from relay.exchange.errors import MalformedBody
from relay.exchange.framing import encode_chunk, encode_last_chunk
from relay.exchange.headers import HOP_BY_HOP
from relay.exchange.heads import BAD_VALUE, TOKEN, Fields

FailureKind = Literal["local_refused", "local_reset", "bad_response"]

# RFC 9110 §9.2.2
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))

# What frames or routes a request is the agent's own affair.
_OURS: Final = HOP_BY_HOP | frozenset(b"host content-length expect trailer".split())
_LAST_LINES: Final = {
    "none": b"\r\n",
    "length": b"\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n",
    "upgrade": b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}


class LocalRequest:
    """A request as it is written; whoever makes it has checked that nothing in it can split a message."""

    __slots__ = ("bodiless", "body", "encoded", "fields", "length", "method", "repeatable", "target", "upgrade")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        fields: Fields,
        body: Literal["none", "length", "chunked", "upgrade"] = "none",
        length: int = 0,
    ) -> None:
        """`fields` are final, with `Host`, and with `Content-Length`, whose value is `length`, when `body` is "length";
        without hop-by-hop fields. "upgrade": a WebSocket handshake, which is followed by a pipe or by nothing.
        """
        self.method = method
        self.target = target
        self.fields = fields
        self.body = body
        self.length = length
        self.upgrade = body == "upgrade"
        self.repeatable = method in IDEMPOTENT and (body == "none" or self.upgrade)
        """Whether it may be sent a second time."""
        self.bodiless = method == b"HEAD"
        """Whether its answer has no body, whatever its head says."""
        lines = b"%b: %b\r\n" * len(fields) % (*chain.from_iterable(fields),)
        self.encoded = b"%b %b HTTP/1.1\r\n%b%b" % (method, target, lines, _LAST_LINES[body])
        """Its head as it is written."""


class LocalCall(Protocol):
    """Who takes what is said to the local service in one exchange: a connection, or what waits for one."""

    def write(self, data: bytes | memoryview) -> bool:
        """Body bytes; of a pipe: any bytes. False: wait for `on_taken`. Without effect once nobody reads them."""

    def end(self, trailers: Fields) -> None:
        """The request's body is complete; of a pipe: half-close. Without effect where there is nothing to end."""

    def pause(self) -> None:
        """Read no more of the answer."""

    def resume(self) -> None:
        """Read on."""

    def abort(self) -> None:
        """Close at once, so that the local service notices. No event comes after it."""


class LocalService(Protocol):
    """Takes requests to one local service."""

    def start(self, request: LocalRequest, events: LocalEvents, now: float) -> LocalCall:
        """Begins; `now` is the loop's time."""


class LocalEvents(Protocol):
    """What becomes of one exchange. After the answer's end, whole or failed, nothing more of it comes.

    `on_taken` may still come after that end, while the upload (or the pipe's other half) is not written; it follows
    every False of `write` unless the exchange is over at both ends before.
    """

    def on_connected(self, call: LocalCall) -> None:
        """From now on this one takes what is said: there is a connection, or another one is made."""

    def on_informational(self, head: AnswerHead) -> None:
        """A 1xx head other than 101."""

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """The final head and all of the body, if there is one, at once; the exchange is over at both ends."""

    def on_answer(self, head: AnswerHead) -> None:
        """The final head. With a 101 both ways are an opaque pipe from now on."""

    def on_body(self, data: bytes) -> None:
        """Body bytes, never empty. After `pause` at most what was already read (256 KiB) still comes."""

    def on_answered(self, data: bytes, trailers: Fields, over: bool) -> None:
        """The answer is complete with these last bytes, if any; of a pipe: the local service sends no more. `over`: so
        is the request, and whoever took it serves another exchange from now on.
        """

    def on_failed(self, kind: FailureKind, detail: str, answered: bool) -> None:
        """There is no (whole) answer. `detail` names the address tried; `answered`: its final head had been told."""

    def on_taken(self) -> None:
        """After `write` said False: it may go on."""


class _Nobody:
    """Hears what nobody wants to hear any more."""

    def on_connected(self, call: LocalCall) -> None: ...
    def on_informational(self, head: AnswerHead) -> None: ...
    def on_whole(self, head: AnswerHead, body: bytes) -> None: ...
    def on_answer(self, head: AnswerHead) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_answered(self, data: bytes, trailers: Fields, over: bool) -> None: ...
    def on_failed(self, kind: FailureKind, detail: str, answered: bool) -> None: ...
    def on_taken(self) -> None: ...


NOBODY: Final[LocalEvents] = _Nobody()


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


class Upload:
    """A request with a body on its way out, which keeps to what the request's head announced. The head leaves with the
    first bytes behind it, if they come before it is asked for.
    """

    __slots__ = ("_chunked", "_head", "_left")

    def __init__(self, request: LocalRequest) -> None:
        self._head = request.encoded
        self._chunked = request.body == "chunked"
        self._left = request.length

    def head(self) -> bytes:
        """The head, if it has not left."""
        head, self._head = self._head, b""
        return head

    def encode(self, data: bytes | memoryview) -> bytes:
        """`data`, which is not empty, as it is written. Raises `MalformedBody`."""
        if self._chunked:
            encoded = encode_chunk(data)
        else:
            self._left -= len(data)
            if self._left < 0:
                raise MalformedBody("more came than was announced")
            encoded = bytes(data)  # no copy of bytes
        return self.head() + encoded if self._head else encoded

    def end(self, trailers: Fields) -> bytes:
        """What is written behind the body. Raises `MalformedBody`."""
        if self._left:
            raise MalformedBody(f"the request's body ended {self._left} bytes early")
        return self.head() + encode_last_chunk(trailers) if self._chunked else self.head()
