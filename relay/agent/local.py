"""One HTTP/1.1 connection to the local service, one exchange at a time, by callbacks.

This room alone decides where an answer ends, whether it was whole, and whether the connection may serve another
exchange (RFC 9112 §6.3, §9.3). It connects to nothing and repeats nothing: that is the pool's. What it keeps is
bounded: one response head on the way in, the transport's write buffer on the way out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

from relay.agent.endings import ended_on_purpose, is_tls, left_over
from relay.agent.parsers import HeadCutter, ResponseHeadParser, persists
from relay.agent.requests import NOBODY, FailureKind, LocalEvents, LocalRequest, RequestBody, encode_head
from relay.exchange.errors import MalformedBody, MalformedHead
from relay.exchange.framing import BodyDecoder, CloseBody, response_body
from relay.exchange.heads import MOST_INFORMATIONAL, Fields, ResponseHead

LINGER = 5.0  # seconds that a connection which is done with may take to send what it still holds


class ConnectionOwner(Protocol):
    """Who lent the connection to an exchange."""

    def on_free(self, connection: LocalConnection) -> None:
        """Both sides ended cleanly: the connection may serve another exchange."""

    def on_unanswered(self, connection: LocalConnection) -> bool:
        """The connection ended before any byte of an answer. True: sent again elsewhere, nobody is told."""


class State:
    """Of the answer. Plain numbers: this is compared several times a request, and an Enum is slow to read from."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    PIPE = 3
    OVER = 4  # complete, while the request is not
    CLOSED = 5


_CUT_TLS = "closed the connection without saying so in TLS: the answer may be cut short"
_RUNNING = (State.HEAD, State.BODY, State.PIPE)


class LocalConnection(asyncio.Protocol):
    """A connection; `tried` is how messages name it, `on_made` and `on_closed` are told of its life."""

    _transport: asyncio.Transport
    _request: LocalRequest
    _upload: RequestBody
    _body: BodyDecoder

    def __init__(
        self,
        parser: ResponseHeadParser,
        tried: str,
        on_made: Callable[[LocalConnection], None],
        on_closed: Callable[[LocalConnection], None],
    ) -> None:
        self.state = State.IDLE
        self.idle_since = 0.0  # loop time, kept by the pool
        self._parser = parser
        self._tried = tried
        self._on_made = on_made
        self._on_closed = on_closed
        self._tls = False
        self._paused = False
        self._full = False
        self._cutter = HeadCutter()
        self._events: LocalEvents = NOBODY
        self._owner: ConnectionOwner | None = None

    # ---- what the owner of an exchange calls ----------------------------------------------------------------------

    def begin(self, request: LocalRequest, events: LocalEvents, owner: ConnectionOwner) -> None:
        """Write the request head; only on an idle connection. A body follows by `write` and `end`.

        Raises `MalformedHead` when the declared length is no number.
        """
        self.state = State.HEAD
        self._request = request
        self._events = events
        self._owner = owner
        self._touched = False  # a byte of an answer came
        self._answered = False  # its final head was handed on
        self._informed = 0
        self._keep = True
        self._pipe = False
        self._half_closed = False
        self._sent = request.body == "none" and not request.upgrade
        if request.body != "none":
            self._upload = RequestBody(request)
        self._transport.write(request.encoded or encode_head(request))

    def write(self, data: bytes | memoryview) -> bool:
        """Body bytes (of a pipe: any bytes), copied where they are not `bytes`. False: wait for `on_writable`.

        True with no effect once nobody reads them any more.
        """
        if self._sent or self.state == State.CLOSED or not data:
            return True
        if self._request.upgrade and not self._pipe:
            self._breach("bytes came before the upgrade was answered")
            return True
        try:
            self._transport.write(bytes(data) if self._pipe else self._upload.encode(data))
        except MalformedBody as error:
            self._breach(str(error))
            return True
        return not self._full

    def end(self, trailers: Fields) -> None:
        """The request's body is complete; of a pipe: half-close. No-op where there is nothing to end."""
        if self._sent or self.state == State.CLOSED:
            return
        if self._pipe:
            # TLS closes as a whole
            (self._transport.write_eof if self._transport.can_write_eof() else self._transport.close)()
        elif self._request.upgrade:
            self._half_closed = True  # behind the 101, if there is one
            return
        else:
            try:
                self._transport.write(self._upload.end(trailers))
            except MalformedBody as error:
                self._breach(str(error))
                return
        self._sent = True
        if self.state == State.OVER:
            self._finish()

    def pause(self) -> None:
        """Read no more from the local service."""
        if not self._paused and self.state != State.CLOSED:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused and self.state != State.CLOSED:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once, so that the local service notices. No event comes after it."""
        self.state = State.CLOSED
        self._events, self._owner = NOBODY, None
        self._transport.abort()

    def stop(self, reason: str) -> None:
        """As `abort`, but an exchange that runs is told that it failed."""
        self._touched = True  # nothing is sent again
        self._fail("local_reset", reason)

    # ---- what the transport calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        self._tls = is_tls(transport)
        wire = transport.get_extra_info("socket")
        if wire is not None and wire.family in (socket.AF_INET, socket.AF_INET6):
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state == State.HEAD:
            self._read_heads(data)
        elif state == State.BODY:
            self._read_body(data)
        elif state == State.PIPE:
            self._events.on_data(data)
        elif state == State.OVER:
            self._keep = False  # bytes behind a complete answer
        elif state == State.IDLE:
            self.abort()

    def eof_received(self) -> bool:
        # True keeps our half open, for an upload or the pipe's other direction.
        state = self.state
        if state == State.IDLE:
            self.state = State.CLOSED
        elif state == State.HEAD:
            what = "in the middle of the response head" if self._touched else "before it answered"
            self._fail("local_reset", f"closed the connection {what}")
        elif state == State.BODY:
            try:
                self._body.eof()
            except MalformedBody as error:
                self._fail("local_reset", str(error))
            else:
                if ended_on_purpose(self._transport):
                    self._answer_over([], b"")
                else:
                    self._fail("local_reset", _CUT_TLS)
        elif state == State.PIPE:
            self._answer_over([], b"")
        elif state == State.OVER:
            self._keep = False
        return self.state == State.OVER and not self._tls

    def connection_lost(self, exc: Exception | None) -> None:
        """Without `eof_received` before it, no answer ends cleanly by it."""
        if exc is not None and self.state in (State.HEAD, State.BODY) and (data := left_over(self._transport)):
            self.data_received(data)
        if self.state == State.PIPE and exc is None and self._sent:
            self._answer_over([], b"")  # our own close of a TLS pipe
        elif self._pipe_lost(exc):
            self._events.on_failed("local_reset", f"{self._tried} reset the connection", True)
        elif self.state in _RUNNING:
            self._fail("local_reset", "reset the connection" if exc is not None else "closed the connection")
        events = self._events
        self.state = State.CLOSED
        self._events, self._owner = NOBODY, None
        self._on_closed(self)
        events.on_writable()  # the rest of an upload goes nowhere, but nobody waits for its way

    def _pipe_lost(self, exc: Exception | None) -> bool:
        """Of a pipe: it had ended towards us only, and what we wrote to it was refused."""
        return self.state == State.OVER and self._pipe and not self._sent and exc is not None

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._events.on_writable()

    # ---- the answer ------------------------------------------------------------------------------------------------

    def _read_heads(self, data: bytes) -> None:
        self._touched = True
        while self.state == State.HEAD and data:
            try:
                block, data = self._cutter.feed(data)
                if not block:
                    return
                head = self._parser.parse(block)
            except MalformedHead as error:
                self._fail("bad_response", f"sent a bad response head: {error}")
                return
            if head.status >= 200:
                return self._take_final(head, block, data)
            if head.status == 101:
                return self._switch(head, data)
            self._informed += 1
            if self._informed > MOST_INFORMATIONAL:
                self._fail("bad_response", f"sent more than {MOST_INFORMATIONAL} informational heads")
                return
            self._events.on_informational(head)

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        if not self._request.upgrade:
            self._fail("bad_response", "answered 101 to a request without an upgrade")
            return
        self.state = State.PIPE
        self._pipe = True
        self._keep = False
        self._answered = True
        self._events.on_head(head, True)
        if rest and self.state == State.PIPE:
            self._events.on_data(rest)
        if self._half_closed:
            self.end([])

    def _take_final(self, head: ResponseHead, block: bytes, rest: bytes) -> None:
        try:
            body = response_body(self._request.method, head.status, head.fields)
        except MalformedHead as error:
            self._fail("bad_response", f"sent a bad response head: {error}")
            return
        self._keep = not isinstance(body, CloseBody) and persists(head, block)
        self._answered = True
        self._sent = self._sent or self._request.upgrade  # refused: nothing follows
        if body is not None:
            self._body = body
        self.state = State.BODY
        self._events.on_head(head, False)
        if self.state != State.BODY:
            return  # aborted by the callback
        if body is None:
            self._answer_over([], rest)
        elif rest:
            self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        body = self._body
        try:
            parts, rest = body.feed(data)
        except MalformedBody as error:
            self._fail("bad_response", f"sent a malformed body: {error}")
            return
        if parts:
            self._events.on_data(parts[0] if len(parts) == 1 else b"".join(parts))
        if body.done and self.state == State.BODY:
            self._answer_over(body.trailers, rest)

    # ---- ends ------------------------------------------------------------------------------------------------------

    def _answer_over(self, trailers: Fields, rest: bytes) -> None:
        events = self._events
        if rest:
            self._keep = False
        self.state = State.OVER
        if self._sent:
            self._finish()
        events.on_end(trailers)

    def _finish(self) -> None:
        """Both sides are over."""
        transport, owner = self._transport, self._owner
        assert owner is not None
        self.resume()
        self._events, self._owner = NOBODY, None
        unsent = transport.get_write_buffer_size()
        if self._keep and not unsent and not transport.is_closing():
            self.state = State.IDLE
            owner.on_free(self)
            return
        self.state = State.CLOSED
        transport.close()
        if unsent and not self._pipe:
            asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def _fail(self, kind: FailureKind, reason: str) -> None:
        state, events, owner = self.state, self._events, self._owner
        self.abort()
        if state not in _RUNNING:
            return events.on_writable()  # the answer was complete: nobody needs to know
        if self._touched or owner is None or not owner.on_unanswered(self):
            events.on_failed(kind, f"{self._tried} {reason}", self._answered)

    def _breach(self, reason: str) -> None:
        """The request broke its own framing: the local service must not take it for whole."""
        self._touched = True  # nothing is sent again
        self._fail("local_reset", f"was cut off: {reason}")
