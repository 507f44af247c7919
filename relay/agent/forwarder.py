"""One accepted stream and one call to the local service, joined: heads rewritten, bytes passed, ends and failures told.

Backpressure goes through in both directions: what the local service does not take is not credited to the relay, what
the relay does not take is not read from the local service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from relay.agent.answers import AnswerHead
from relay.agent.hints import Hints
from relay.agent.requests import FailureKind, LocalCall, LocalRequest, LocalService, with_upstream
from relay.agent.sparing import Sparing
from relay.agent.targets import Target
from relay.exchange.errors import MalformedHead
from relay.exchange.framing import content_length
from relay.exchange.headers import rewrite_for_local, strip_hop_by_hop, strip_trailers
from relay.exchange.heads import Fields, decode_fields, decode_split, encode_fields, split_request_id
from relay.mux.stream import Stream
from relay.mux.streamevents import StreamEvents
from relay.wire.errors import ResetCode

# The head of a request above this is not remembered.
MOST_REMEMBERED: Final = 2048

# How the relay's resets read in a request event; any other is a visitor that left.
_CUT: Final = {-1: "agent_lost", int(ResetCode.HEAD_TIMEOUT): "head_timeout"}

Report = Callable[[dict[str, object]], None]

_RESETS: Final[dict[FailureKind, ResetCode]] = {
    "local_refused": ResetCode.LOCAL_REFUSED,
    "local_reset": ResetCode.LOCAL_RESET,
    "bad_response": ResetCode.BAD_RESPONSE,
}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a tunnel's requests go."""

    name: str
    target: Target
    pool: LocalService
    upstream: Fields = field(default_factory=list, repr=False)
    """Fields that every request gets in place of the visitor's own: the local service's credential, say."""
    private: bool = False
    """Whether the relay asks visitors for a credential."""
    preserve_host: bool = False
    """Whether the visitor's `Host` and `Origin` stay as they are."""


class Prepared:
    """A request as it goes to the local service; shared by all that are equal but for their request id."""

    __slots__ = ("curious", "request", "route", "suspect", "watched")

    def __init__(self, route: Route, request: LocalRequest, watched: bool, suspect: bool) -> None:
        self.route = route
        self.request = request
        self.watched = watched
        """Whether the answer's body is worth a look for a hint."""
        self.suspect = suspect
        """Whether it may open a session with a server that anybody can call."""
        self.curious = watched or suspect


class Forwarder:
    """Makes a `Forwarding` of every stream that the relay opens. `now` is the loop's time."""

    def __init__(self, routes: Mapping[str, Route], report: Report, now: Callable[[], float]) -> None:
        self.routes = routes
        self.now = now
        self.report = report
        """Hears of each exchange that is over."""
        self.wants = report.wants if isinstance(report, Sparing) else None
        """Whether it wants to; None: always."""
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
        now = self.now()
        forwarding = Forwarding(self, stream, prepared, request_id, now)
        self.active.add(forwarding)
        request = prepared.request
        call = forwarding.call = prepared.route.pool.start(request, forwarding, now)
        if ended and request.upgrade:
            call.end([])
        return forwarding

    def _prepare(self, before: bytes, after: bytes, ended: bool) -> Prepared | None:
        """What a head without its id means here; None for a tunnel that is not ours. Raises `MalformedHead`."""
        head = decode_split(before, after)
        route = self.routes.get(head.name)
        if route is None:
            return None
        fields = strip_hop_by_hop(head.fields)
        if not route.preserve_host:
            fields = rewrite_for_local(fields, route.target.authority, route.target.scheme.encode())
        if route.upstream:
            fields = with_upstream(fields, route.upstream)
        length = content_length(fields)
        if ended and length:
            raise MalformedHead("a Content-Length without a body")
        if head.upgrade:
            request = LocalRequest(head.method, head.target, fields, "upgrade")
        elif ended:
            request = LocalRequest(head.method, head.target, fields)
        elif length is None:
            request = LocalRequest(head.method, head.target, fields, "chunked")
        else:
            request = LocalRequest(head.method, head.target, fields, "length", length)
        suspect = not route.private and self.hints.suspects(head)
        return Prepared(route, request, self.hints.watches(head), suspect)


class Forwarding:
    """One exchange: owner of its stream, and who hears what becomes of it at the local service (`LocalEvents`)."""

    _owed = 0  # bytes of the request that are not consumed yet
    _status = 0
    _bytes = 0
    _opens_mcp: bool | None = None
    _answered = False

    def __init__(self, forwarder: Forwarder, stream: Stream, prepared: Prepared, request_id: str, began: float) -> None:
        self.stream = stream
        self.call: LocalCall | None = None
        """Who takes the request, for as long as it belongs to this exchange."""
        self._forwarder = forwarder
        self._prepared = prepared
        self._request_id = request_id
        self._began = began
        self._over = False

    @property
    def name(self) -> str:
        """The subdomain that it came for."""
        return self._prepared.route.name

    def cut(self, code: ResetCode, detail: str) -> None:
        """Ends both sides."""
        self.stream.reset(code, detail)
        self.on_reset(0, True, detail)

    # ---- StreamEvents: the request

    def on_head(self, payload: bytes) -> None:
        """The relay sends no heads: the session has refused it before this."""

    def on_lull(self) -> None:
        """There are no heads here for anything to follow."""

    def on_data(self, data: memoryview) -> bool:
        """See `StreamEvents.on_data`."""
        if self._prepared.suspect and self._opens_mcp is None:  # only the first part is looked at
            self._opens_mcp = self._forwarder.hints.opens_mcp(self._prepared.route.name, bytes(data))
        if self.call is None or self.call.write(data):
            return True
        self._owed += len(data)
        return False

    def on_last(self, data: memoryview) -> None:
        """There is no answer here whose last bytes could come."""

    def on_end(self, trailers: bytes) -> None:
        """See `StreamEvents.on_end`."""
        call = self.call
        if call is None:
            return
        try:
            fields = decode_fields(trailers, 0) if trailers else []
        except MalformedHead as error:
            self.cut(ResetCode.STREAM_PROTOCOL, str(error))
            return
        if self._answered:
            self.call = None
        call.end(fields)

    def on_reset(self, code: int, delivered: bool, detail: str) -> None:
        """See `StreamEvents.on_reset`. The local service sees its connection close."""
        call, self.call = self.call, None
        if call is not None:
            call.abort()
        self._done(_CUT.get(code, "cancelled"))

    def on_writable(self) -> None:
        """See `StreamEvents.on_writable`: there is room for the answer."""
        if self.call is not None:
            self.call.resume()

    # ---- LocalEvents: the answer

    def on_connected(self, call: LocalCall) -> None:
        """See `LocalEvents.on_connected`."""
        self.call = call

    def on_informational(self, head: AnswerHead) -> None:
        """See `LocalEvents.on_informational`."""
        self.stream.send_head(head.payload)

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        """See `LocalEvents.on_whole`."""
        self.call = None
        self._status = head.status
        prepared, stream = self._prepared, self.stream
        if prepared.curious or head.notable:
            self._look(head, body)
        if not body:
            stream.send_head(head.payload, True)
        else:
            self._bytes = len(body)
            stream.send_head(head.payload)
            if self._over:  # too much waits for the relay already
                return
            stream.finish(body)
        self._done("")

    def on_answer(self, head: AnswerHead) -> None:
        """See `LocalEvents.on_answer`."""
        self._status = head.status
        if self._prepared.curious or head.notable:
            self._look(head, b"")
        self.stream.send_head(head.payload)

    def on_body(self, data: bytes) -> None:
        """See `LocalEvents.on_body`."""
        self._bytes += len(data)
        if self._prepared.watched:
            self._forwarder.hints.on_body(self._prepared.route.target, data)
        if not self.stream.write(data) and self.call is not None:
            self.call.pause()

    def on_answered(self, data: bytes, trailers: Fields, over: bool) -> None:
        """See `LocalEvents.on_answered`."""
        self._answered = True
        if over:
            self.call = None
        self._bytes += len(data)
        if self._prepared.watched:
            self._forwarder.hints.on_body(self._prepared.route.target, data)
        stream = self.stream
        last = encode_fields(strip_trailers(trailers)) if trailers else b""
        if data and not last:
            stream.finish(data)
        else:
            if data:
                stream.write(data)
            stream.end(last)
        self._done("")

    def on_failed(self, kind: FailureKind, detail: str, answered: bool) -> None:
        """See `LocalEvents.on_failed`."""
        self.call = None
        self.stream.reset(_RESETS[kind], detail, delivered=kind != "local_refused")
        self._done(kind, detail)

    def on_taken(self) -> None:
        """See `LocalEvents.on_taken`."""
        if self._owed:
            owed, self._owed = self._owed, 0
            self.stream.consumed(owed)

    def _look(self, head: AnswerHead, body: bytes) -> None:
        """For what the answer tells about a set-up that will not work for visitors."""
        hints, prepared = self._forwarder.hints, self._prepared
        if self._opens_mcp and head.status == 200:
            hints.on_open_mcp(prepared.route.name)
        if head.notable:
            hints.on_answer(prepared.route.target, head.head)
        if prepared.watched and body:
            hints.on_body(prepared.route.target, body)

    def _done(self, error: str, detail: str = "") -> None:
        """The exchange is over, and reported, once."""
        if self._over:
            return
        self._over = True
        forwarder, prepared = self._forwarder, self._prepared
        forwarder.active.discard(self)
        wants = forwarder.wants
        if wants is not None and not wants(prepared.route.name, self._status, error):
            return
        request = prepared.request
        event: dict[str, object] = {
            "event": "request",
            "subdomain": prepared.route.name,
            "method": request.method.decode("latin-1"),
            "path": request.target.decode("latin-1"),
            "status": self._status,
            "duration": round(forwarder.now() - self._began, 6),
            "bytes": self._bytes,
            "request_id": self._request_id,
        }
        if error:
            event["error"] = error
        if detail:
            event["detail"] = detail
        forwarder.report(event)
