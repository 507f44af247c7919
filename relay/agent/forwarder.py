"""One accepted stream and one call to the local service, joined: heads rewritten, bytes passed, ends and failures told.

Backpressure goes through in both directions: what the local service does not take is not credited to the relay, what
the relay does not take is not read from the local service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from relay.agent.hints import Hints
from relay.agent.pool import LocalCall, LocalPool
from relay.agent.requests import FailureKind, LocalRequest, encode_head, with_upstream
from relay.agent.targets import Target
from relay.exchange.errors import MalformedHead
from relay.exchange.framing import content_length
from relay.exchange.headers import connection_tokens, first, rewrite_for_local, strip_hop_by_hop, strip_trailers
from relay.exchange.heads import (
    Fields,
    RequestHead,
    ResponseHead,
    decode_fields,
    decode_request,
    encode_fields,
    encode_response,
    split_request_id,
)
from relay.mux.stream import Stream, StreamEvents
from relay.wire.errors import ResetCode

# The head of a request above this is not remembered.
MOST_REMEMBERED = 2048

# How the relay's resets read in a request event; any other is a visitor that left.
_CUT = {-1: "agent_lost", int(ResetCode.HEAD_TIMEOUT): "head_timeout"}

Report = Callable[[dict[str, object]], None]

_RESETS: dict[FailureKind, ResetCode] = {
    "local_refused": ResetCode.LOCAL_REFUSED,
    "local_reset": ResetCode.LOCAL_RESET,
    "bad_response": ResetCode.BAD_RESPONSE,
}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a tunnel's requests go."""

    name: str
    target: Target
    pool: LocalPool
    upstream: Fields = field(default_factory=list, repr=False)
    """Fields that every request gets in place of the visitor's own: the local service's credential, say."""
    private: bool = False
    """Whether the relay asks visitors for a credential."""
    preserve_host: bool = False
    """Whether the visitor's `Host` and `Origin` stay as they are."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as it goes to the local service; shared by all that are equal but for their request id."""

    head: RequestHead
    route: Route
    request: LocalRequest
    watched: bool
    """Whether the answer's body is worth a look for a hint."""
    suspect: bool
    """Whether it may open a session with a server that anybody can call."""


class Forwarder:
    """Makes a `Forwarding` of every stream that the relay opens."""

    def __init__(self, routes: Mapping[str, Route], report: Report, now: Callable[[], float]) -> None:
        self.routes = routes
        self.report = report
        self.now = now
        self.hints = Hints(report)
        self.active: set[Forwarding] = set()
        self._prepare_small = lru_cache(maxsize=256)(self._prepare)

    def lead(self, routes: Mapping[str, Route]) -> None:
        """Where requests go from now on; those that run stay where they are."""
        self.routes = routes
        self._prepare_small.cache_clear()

    def accept(self, stream: Stream, payload: bytes, ended: bool) -> StreamEvents | None:
        """The owner of a new stream; None when it was refused."""
        try:
            before, request_id, after = split_request_id(payload)
            prepare = self._prepare_small if len(payload) <= MOST_REMEMBERED else self._prepare
            prepared = prepare(before, after, ended)
        except MalformedHead as error:
            stream.reset(ResetCode.STREAM_PROTOCOL, str(error))
            return None
        if prepared is None:
            stream.reset(ResetCode.UNKNOWN_NAME, "this agent has no such tunnel")
            return None
        forwarding = Forwarding(self, stream, prepared, request_id)
        self.active.add(forwarding)
        forwarding.start(ended)
        return forwarding

    def _prepare(self, before: bytes, after: bytes, ended: bool) -> Prepared | None:
        """What a head without its id means here; None for a tunnel that is not ours. Raises `MalformedHead`."""
        head = decode_request(before + b"\0" + after)
        route = self.routes.get(head.name)
        if route is None:
            return None
        fields = strip_hop_by_hop(head.fields, connection_tokens(head.fields))
        if not route.preserve_host:
            target = route.target
            fields = rewrite_for_local(fields, target.authority, _public_origins(fields), target.scheme.encode())
        if route.upstream:
            fields = with_upstream(fields, route.upstream)
        request = LocalRequest(head.method, head.target, fields, upgrade=head.upgrade)
        length = content_length(fields)
        if ended and length:
            raise MalformedHead("a Content-Length without a body")
        if not ended and not head.upgrade:
            request.body = "chunked" if length is None else "length"
        request.encoded = encode_head(request)
        suspect = not route.private and self.hints.suspects(head)
        return Prepared(head, route, request, self.hints.watches(head), suspect)

    def ended(self, forwarding: Forwarding) -> None:
        """An exchange is over."""
        self.active.discard(forwarding)


class Forwarding:
    """One exchange, the request's way: owner of its stream, and of its call to the local service."""

    __slots__ = ("_answer", "_call", "_owed", "_prepared", "stream")

    @property
    def name(self) -> str:
        """The subdomain that it came for."""
        return self._prepared.route.name

    def __init__(self, forwarder: Forwarder, stream: Stream, prepared: Prepared, request_id: str) -> None:
        self.stream = stream
        self._prepared = prepared
        self._call: LocalCall | None = None
        self._answer = Answer(self, forwarder, prepared, request_id)
        self._owed = 0

    def start(self, ended: bool) -> None:
        """Hands the request to the local service."""
        self._call = self._prepared.route.pool.start(self._prepared.request, self._answer)
        if ended:
            self._call.end([])

    # ---- StreamEvents

    def on_head(self, payload: bytes) -> None:
        """The relay sends no heads: the session has refused it before this."""

    def on_data(self, data: memoryview) -> None:
        """See `StreamEvents.on_data`."""
        body = bytes(data)
        if self._prepared.suspect:
            self._answer.look(body)
        if self._call is None or self._call.write(body):
            self.stream.consumed(len(body))
        else:
            self._owed += len(body)

    def on_end(self, trailers: bytes) -> None:
        """See `StreamEvents.on_end`."""
        if self._call is None:
            return
        try:
            fields = decode_fields(trailers, 0) if trailers else []
        except MalformedHead as error:
            self.cut(ResetCode.STREAM_PROTOCOL, str(error))
            return
        self._call.end(fields)

    def on_reset(self, code: int, delivered: bool, detail: str) -> None:
        """See `StreamEvents.on_reset`. The local service sees its connection close."""
        call, self._call = self._call, None
        if call is not None:
            call.abort()
        self._answer.done(_CUT.get(code, "cancelled"))

    def on_writable(self) -> None:
        """See `StreamEvents.on_writable`: there is room for the answer."""
        if self._call is not None:
            self._call.resume()

    # ---- for the answer

    def pause(self) -> None:
        """The relay takes no more of the answer for now."""
        if self._call is not None:
            self._call.pause()

    def take_more(self) -> None:
        """The local service takes more of the request."""
        owed, self._owed = self._owed, 0
        self.stream.consumed(owed)

    def drop_call(self) -> None:
        """The call has failed by itself."""
        self._call = None

    def cut(self, code: ResetCode, detail: str) -> None:
        """Ends both sides."""
        self.stream.reset(code, detail)
        self.on_reset(0, True, detail)


class Answer:
    """The same exchange, the answer's way: what the local service says, sent to the relay."""

    __slots__ = (
        "_began",
        "_bytes",
        "_forwarder",
        "_forwarding",
        "_opens_mcp",
        "_prepared",
        "_reported",
        "_request_id",
        "_status",
    )

    def __init__(self, forwarding: Forwarding, forwarder: Forwarder, prepared: Prepared, request_id: str) -> None:
        self._forwarding = forwarding
        self._forwarder = forwarder
        self._prepared = prepared
        self._request_id = request_id
        self._began = forwarder.now()
        self._status = 0
        self._bytes = 0
        self._reported = False
        self._opens_mcp: bool | None = None

    def look(self, data: bytes) -> None:
        """A part of the request's body; only the first is looked at."""
        if self._opens_mcp is None:
            self._opens_mcp = self._forwarder.hints.opens_mcp(self._prepared.route.name, data)

    def on_informational(self, head: ResponseHead) -> None:
        """See `LocalEvents.on_informational`."""
        self._send_head(head)

    def on_head(self, head: ResponseHead, upgraded: bool) -> None:
        """See `LocalEvents.on_head`."""
        self._status = head.status
        if self._opens_mcp and head.status == 200:
            self._forwarder.hints.on_open_mcp(self._prepared.route.name)
        self._forwarder.hints.on_answer(self._prepared.route.target, self._prepared.head, head)
        self._send_head(head)

    def on_data(self, data: bytes) -> None:
        """See `LocalEvents.on_data`."""
        self._bytes += len(data)
        if self._prepared.watched:
            self._forwarder.hints.on_body(self._prepared.route.target, data)
        if not self._forwarding.stream.write(data):
            self._forwarding.pause()

    def on_end(self, trailers: Fields) -> None:
        """See `LocalEvents.on_end`."""
        fields = strip_trailers(trailers) if trailers else trailers
        self._forwarding.stream.end(encode_fields(fields) if fields else b"")
        self.done("")

    def on_failed(self, kind: FailureKind, detail: str, answered: bool) -> None:
        """See `LocalEvents.on_failed`."""
        self._forwarding.drop_call()
        self._forwarding.stream.reset(_RESETS[kind], detail, delivered=kind != "local_refused")
        self.done(kind, detail)

    def on_writable(self) -> None:
        """See `LocalEvents.on_writable`."""
        self._forwarding.take_more()

    def done(self, error: str, detail: str = "") -> None:
        """Reports the exchange, once."""
        if self._reported:
            return
        self._reported = True
        self._forwarder.ended(self._forwarding)
        event: dict[str, object] = {
            "event": "request",
            "subdomain": self._prepared.route.name,
            "method": self._prepared.head.method.decode("latin-1"),
            "path": self._prepared.head.target.decode("latin-1"),
            "status": self._status,
            "duration": round(self._forwarder.now() - self._began, 6),
            "bytes": self._bytes,
            "request_id": self._request_id,
        }
        if error:
            event["error"] = error
        if detail:
            event["detail"] = detail
        self._forwarder.report(event)

    def _send_head(self, head: ResponseHead) -> None:
        if not head.written:
            fields = strip_hop_by_hop(head.fields, connection_tokens(head.fields))
            head.written = encode_response(ResponseHead(head.status, head.reason, fields))
        self._forwarding.stream.send_head(head.written)


def _public_origins(fields: Fields) -> frozenset[bytes]:
    """The tunnel's own origin, as the visitor called it: the relay routed by this very Host."""
    host = first(fields, b"host") or b""
    scheme = first(fields, b"x-forwarded-proto") or b"http"
    return frozenset((scheme.lower() + b"://" + host.lower(),))
