"""One HTTP/1.1 connection to the local service, one exchange at a time, by callbacks.

This room alone decides where an answer ends, whether it was whole, and whether the connection may serve another
exchange (RFC 9112 §6.3, §9.3). It connects to nothing and repeats nothing: that is the pool's. What it keeps is
bounded: one response head on the way in, the transport's write buffer on the way out.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, Protocol, cast

from relay.agent.answers import MOST_REMEMBERED, AnswerHead, AnswerReader
from relay.agent.endings import ended_on_purpose, left_over
from relay.agent.parsers import BLANK_LINE, HeadCutter
from relay.agent.phase import ASKED, BODY, CLOSED, HEAD, IDLE, OVER, PIPE, SENDING
from relay.agent.requests import NOBODY, FailureKind, LocalEvents, LocalRequest, Upload
from relay.exchange.errors import MalformedBody, MalformedHead
from relay.exchange.framing import BodyDecoder
from relay.exchange.heads import MOST_INFORMATIONAL, Fields
from relay.mux.paced import Paced
from relay.mux.pausing import never_read_ahead
from relay.mux.sending import LARGE
from relay.mux.tcp import is_tls

LINGER: Final = 5.0  # seconds that a connection which is done with may take to send what it still holds

_CUT_TLS: Final = "closed the connection without saying so in TLS: the answer may be cut short"


class ConnectionOwner(Protocol):
    """Who lends the connection to exchanges."""

    def on_free(self, connection: LocalConnection) -> None:
        """Both sides ended cleanly: the connection may serve another exchange."""

    def on_unanswered(self, connection: LocalConnection, request: LocalRequest, events: LocalEvents) -> bool:
        """The connection ended before any byte of an answer. True: sent again elsewhere, nobody is told."""

    def on_closed(self, connection: LocalConnection) -> None:
        """It is no more."""


class LocalConnection(Paced, asyncio.Protocol):
    """A connection; `tried` is how messages name it, `on_made` is told when it is there."""

    _request: LocalRequest
    _body: BodyDecoder
    _upload: Upload

    def __init__(
        self, reader: AnswerReader, tried: str, owner: ConnectionOwner, on_made: Callable[[LocalConnection], None]
    ) -> None:
        self.state = IDLE
        self.idle_since = -1.0  # loop time, kept by the owner; negative before it has idled
        self._reader = reader
        self._known = reader.known
        self._tried = tried
        self._owner = owner
        self._on_made = on_made
        self._tls = False
        self._full = False
        self._cutter = HeadCutter()
        self._events: LocalEvents = NOBODY
        self._encode: Callable[[bytes | memoryview], bytes] | None = None
        """How what follows the request's head is written; None where nothing (more) follows."""
        self._informed = 0
        self._keep = False
        self._pipe = False
        self.half_closed = False
        """Whether the request's side of a pipe has ended before there was one."""

    # ---- what the owner of an exchange calls ----------------------------------------------------------------------

    def begin(self, request: LocalRequest, events: LocalEvents) -> None:
        """Write the request head; only on an idle connection. A body follows by `write` and `end`, and what of it comes
        in this turn of the loop leaves in one write with the head.
        """
        self._request = request
        self._events = events
        if request.body == "none":
            self.state = ASKED
            self._transport.write(request.encoded)
            return
        self.state = SENDING
        upload = self._upload = Upload(request)
        self._encode = upload.encode
        asyncio.get_running_loop().call_soon(self._write_head, upload)

    def _write_head(self, upload: Upload) -> None:
        if self._upload is upload and self._encode is not None and (head := upload.head()):
            self._transport.write(head)

    def write(self, data: bytes | memoryview) -> bool:
        """See `LocalCall.write`. Copied where it is not `bytes`."""
        encode = self._encode
        if encode is None or not data:
            return True
        try:
            self._transport.write(encode(data))
        except MalformedBody as error:
            self._breach(str(error))
            return True
        return not self._full

    def end(self, trailers: Fields) -> None:
        """See `LocalCall.end`."""
        if self._encode is None:
            return
        if self._pipe:  # TLS closes as a whole
            (self._transport.write_eof if self._transport.can_write_eof() else self._transport.close)()
        elif self._request.upgrade:
            self.half_closed = True  # behind the 101, if there is one
            return
        else:
            try:
                last = self._upload.end(trailers)
            except MalformedBody as error:
                return self._breach(str(error))
            if last:
                self._transport.write(last)
        self._encode = None
        if self.state == SENDING:
            self.state = ASKED
        elif self.state == OVER:
            self._finish()

    def abort(self) -> None:
        """See `LocalCall.abort`."""
        self.state = CLOSED
        self._events, self._encode = NOBODY, None
        self._transport.abort()

    def stop(self, reason: str) -> None:
        """As `abort`, but an exchange that runs is told that it failed."""
        self._fail("local_reset", reason, again=False)

    # ---- what the transport calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        self._tls = is_tls(transport)
        never_read_ahead(transport)
        wire = transport.get_extra_info("socket")
        if wire is not None and wire.family in (socket.AF_INET, socket.AF_INET6):
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state == ASKED:
            size = data.find(BLANK_LINE, 0, MOST_REMEMBERED) + 4  # of the head; 3 where it is not whole, or large
            if size > 3 and self._take_whole(data, size):
                return
            self._read_heads(data)
        elif state == BODY:
            self._read_body(data)
            if len(data) >= LARGE and self.state == state:
                self.rest_after(len(data))
        elif state == PIPE:
            self._events.on_body(data)
            if len(data) >= LARGE and self.state == state:
                self.rest_after(len(data))
        elif state == OVER:
            self._keep = False  # bytes behind a complete answer
        elif state == IDLE:
            self.abort()
        elif state != CLOSED:
            self._read_heads(data)

    def eof_received(self) -> bool:
        # True keeps our half open, for an upload or the pipe's other direction.
        state = self.state
        if state == IDLE:
            self.state = CLOSED
        elif state == BODY:
            try:
                self._body.eof()
            except MalformedBody as error:
                self._fail("local_reset", str(error))
            else:
                if ended_on_purpose(self._transport):
                    self._answer_over(b"", [], b"")
                else:
                    self._fail("local_reset", _CUT_TLS)
        elif state == PIPE:
            self._answer_over(b"", [], b"")
        elif state == OVER:
            self._keep = False
        elif state != CLOSED:
            what = "in the middle of the response head" if state == HEAD else "before it answered"
            self._fail("local_reset", f"closed the connection {what}")
        return self.state == OVER and not self._tls

    def connection_lost(self, exc: Exception | None) -> None:
        """Without `eof_received` before it, no answer ends cleanly by it."""
        if exc is not None and IDLE < self.state < PIPE and (data := left_over(self._transport)):
            self.state = max(self.state, HEAD)  # whatever it says, the connection serves nobody any more
            self.data_received(data)
        if self.state == PIPE and exc is None and self._encode is None:
            self._answer_over(b"", [], b"")  # our own close of a TLS pipe
        elif self.state == OVER and self._pipe and self._encode is not None and exc is not None:
            # it had ended towards us only, and what we wrote to it was refused
            self._events.on_failed("local_reset", f"{self._tried} reset the connection", True)
        elif IDLE < self.state < OVER:
            self._fail("local_reset", "reset the connection" if exc is not None else "closed the connection")
        events = self._events
        self.state = CLOSED
        self._events, self._encode = NOBODY, None
        self._owner.on_closed(self)
        events.on_taken()  # the rest of an upload goes nowhere, but nobody waits for its way

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._events.on_taken()

    # ---- the answer ------------------------------------------------------------------------------------------------

    def _take_whole(self, data: bytes, size: int) -> bool:
        """An answer that is known by its head of `size` bytes, and came whole in one read; False: it is another."""
        try:
            head = self._known(data[:size], self._request.bodiless)
        except MalformedHead:
            return False
        if head.whole != len(data) or self._transport.get_write_buffer_size():
            return False
        events = self._events
        self._events = NOBODY
        self.state = IDLE
        if self.paused:
            self.resume()
        self._owner.on_free(self)
        events.on_whole(head, data[size:])
        return True

    def _read_heads(self, data: bytes) -> None:
        self.state = HEAD
        while self.state == HEAD and data:
            try:
                block, data = self._cutter.feed(data)
                if not block:
                    return
                head = self._reader.read(block, self._request.bodiless)
            except MalformedHead as error:
                return self._fail("bad_response", f"sent a bad response head: {error}")
            if head.status >= 200:
                return self._take_final(head, data)
            if head.status == 101:
                return self._switch(head, data)
            self._informed += 1
            if self._informed > MOST_INFORMATIONAL:
                return self._fail("bad_response", f"sent more than {MOST_INFORMATIONAL} informational heads")
            self._events.on_informational(head)

    def _switch(self, head: AnswerHead, rest: bytes) -> None:
        if not self._request.upgrade:
            return self._fail("bad_response", "answered 101 to a request without an upgrade")
        self.state = PIPE
        self._pipe = True
        self._encode = bytes
        self._keep = False
        self._events.on_answer(head)
        if rest and self.state == PIPE:
            self._events.on_body(rest)
        if self.half_closed:
            self.end([])

    def _take_final(self, head: AnswerHead, rest: bytes) -> None:
        self._keep = head.keeps
        if self._request.upgrade:
            self._encode = None  # refused: nothing follows
        self.state = BODY
        decoder = head.decoder
        if decoder is not None:
            self._body = decoder()
        self._events.on_answer(head)
        if self.state != BODY:
            return  # aborted by the callback
        if decoder is None:
            self._answer_over(b"", [], rest)
        elif rest:
            self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        body = self._body
        try:
            parts, rest = body.feed(data)
        except MalformedBody as error:
            return self._fail("bad_response", f"sent a malformed body: {error}")
        piece = parts[0] if len(parts) == 1 else b"".join(parts)
        if body.done:
            self._answer_over(piece, body.trailers, rest)
        elif piece:
            self._events.on_body(piece)

    # ---- ends ------------------------------------------------------------------------------------------------------

    def _answer_over(self, data: bytes, trailers: Fields, rest: bytes) -> None:
        events, over = self._events, self._encode is None
        if rest:
            self._keep = False
        self.state = OVER
        if over:
            self._finish()
        events.on_answered(data, trailers, over)

    def _finish(self) -> None:
        """Both sides are over."""
        transport = self._transport
        self.resume()
        self._events = NOBODY
        unsent = transport.get_write_buffer_size()
        if self._keep and not unsent and not transport.is_closing():
            self.state = IDLE
            self._informed = 0
            self.half_closed = False
            self._owner.on_free(self)
            return
        self.state = CLOSED
        transport.close()
        if unsent and not self._pipe:
            asyncio.get_running_loop().call_later(LINGER, transport.abort)

    def _fail(self, kind: FailureKind, reason: str, *, again: bool = True) -> None:
        """`again`: the request may be sent once more, if nothing came of an answer."""
        state, events = self.state, self._events
        self.abort()
        if not IDLE < state < OVER:
            return events.on_taken()  # the answer was complete: nobody needs to know
        if not (again and state < HEAD and self._owner.on_unanswered(self, self._request, events)):
            events.on_failed(kind, f"{self._tried} {reason}", state >= BODY)

    def _breach(self, reason: str) -> None:
        """The request broke its own framing: the local service must not take it for whole."""
        self._fail("local_reset", f"was cut off: {reason}", again=False)
