"""A visitor's requests, one after the other: bytes in by call, the answer out by callback.

What is pipelined behind a request waits unparsed. Decides when this connection reads, waits, answers by itself and
goes on; an answer that breaks off is never ended cleanly.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from enum import IntEnum

from relay.edge import answers, routing
from relay.edge.answers import Code, Facts
from relay.edge.connection import Connection
from relay.edge.guard import Body, Refusal, Request, check
from relay.edge.reader import HeadReader
from relay.edge.response import ResponseWriter, encode_informational, encode_switch
from relay.edge.services import Services, http_date
from relay.exchange.errors import MalformedBody
from relay.exchange.framing import BodyDecoder, ChunkedBody, LengthBody
from relay.exchange.heads import Fields, ResponseHead
from relay.exchange.outgoing import Exchange, Failure
from relay.tunnels.hub import Link
from relay.wire.errors import ResetCode

# Unparsed bytes (pipelined, or behind a request that is held) above which we stop reading.
_BUFFER_MOST = 64 * 1024
# The first bytes of a JSON body are kept for the id of a JSON-RPC request, in case we must answer ourselves.
_PREFIX_MOST = 16 * 1024


class Phase(IntEnum):
    """What the connection is doing with what it reads."""

    HEAD = 0
    HELD = 1
    BODY = 2
    WAIT = 3
    PIPE = 4
    OVER = 5


class Visitor(Connection):
    """One connection; also the owner of its exchange, and the waiter of the hub while it is held."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._reader = HeadReader()
        self._phase = Phase.HEAD
        self._buffer = b""
        self._unconsumed = 0
        self._request: Request | None = None
        self._request_id = ""
        self._name = ""
        self._exchange: Exchange | None = None
        self._writer: ResponseWriter | None = None
        self._body: BodyDecoder | None = None
        self._prefix = b""
        self._pending_head = b""
        self._serving = False

    # ---- Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BufferedProtocol`."""
        super().connection_made(transport)
        if len(self.services.visitors) > self.services.most_connections:
            self._answer(Code.OVERLOADED, "too many connections")

    def on_bytes(self, data: bytes) -> None:
        """See `Connection.on_bytes`."""
        if self._phase is Phase.PIPE:
            if self._exchange is not None and not self._exchange.write(data):
                self.pause()
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def on_half_close(self) -> bool:
        """See `Connection.on_half_close`: only an upgraded connection goes on in one direction."""
        if self._phase is Phase.PIPE and self._exchange is not None:
            self._exchange.end([])
            return True
        return False

    def on_drained(self) -> None:
        """See `Connection.on_drained`."""
        amount, self._unconsumed = self._unconsumed, 0
        if self._exchange is not None and amount:
            self._exchange.consumed(amount)

    def on_gone(self) -> None:
        """See `Connection.on_gone`."""
        self._buffer = b""
        self._leave(ResetCode.CANCEL)
        self._phase = Phase.OVER

    def on_overdue(self, reason: str) -> None:
        """See `Connection.on_overdue`."""
        if reason == "answer":
            self._answer(Code.HEAD_TIMEOUT, f"waited {self.services.timeouts.response_head:g} seconds")
        elif reason in ("head", "body"):
            self._answer(Code.REQUEST_TIMEOUT, f"waiting for the request {reason}")
        else:
            self.close()

    def check(self, now: float) -> None:
        """See `Connection.check`; keeps the clocks of a body as well."""
        if self._phase is Phase.BODY and not (self._exchange is not None and self._exchange.answered):
            if self.paused:
                self._expect("body", self.services.timeouts.idle)
            if self.patience.too_slow(now, not self.paused):
                self._answer(Code.REQUEST_TIMEOUT, "the body comes too slowly")
                return
        super().check(now)

    def shutdown(self) -> None:
        """The relay drains: what runs is finished, nothing begins."""
        if self._phase is Phase.HEAD and not self._buffer:
            self.close()

    def cut(self) -> None:
        """The grace time is over."""
        if not self.closed:
            self._leave(ResetCode.CANCEL)
            self.break_off(by_close=True)

    # ---- reading

    def _advance(self) -> None:
        """Uses what is in the buffer, as far as the phase lets it."""
        while self._buffer:
            if self._phase is Phase.HEAD:
                if not self._read_head():
                    return
            elif self._phase is Phase.BODY:
                self._read_body()
                if self._phase is Phase.BODY:
                    return
            else:
                if len(self._buffer) >= _BUFFER_MOST:
                    self.pause()
                return

    def _read_head(self) -> bool:
        """Reads one head; False when it is not there yet."""
        reader = self._reader
        if self.patience.reason != "head":
            self._expect("head", self.services.timeouts.head)
        data = self._buffer
        while data[:2] == b"\r\n":  # RFC 9112 §2.2: empty lines before a request are passed over
            data = data[2:]
        self._buffer = data
        try:
            end = reader.find_end(data) if data else 0
            if not end:
                return False
            request = check(*reader.parse(data[:end]))
        except Refusal as refusal:
            self._request = None
            self._answer(refusal.code, refusal.message)
            return False
        self._buffer = data[end:]
        self._begin(request)
        return True

    def _begin(self, request: Request) -> None:
        services = self.services
        self._request = request
        self._request_id = services.new_id()
        if request.body is not Body.NONE or request.upgrade:
            self._reader.forget()
        if request.body is Body.LENGTH:
            self._body = LengthBody(request.length or 0)
        elif request.body is Body.CHUNKED:
            self._body = ChunkedBody()
        services.exchanges += 1
        self._serving = True
        try:
            self._name, link = routing.find(services, request)
        except routing.Unroutable as no:
            self._answer(no.code, no.detail)
            return
        if link is not None:
            self._open(link)
        elif services.hub.hold(self._name, self):
            self._phase = Phase.HELD
            self.patience.wait_for_ever()
        else:
            self._answer(Code.AGENT_OFFLINE)

    def _open(self, link: Link) -> None:
        """The request goes out on a stream of `link`."""
        assert self._request is not None
        exchange = Exchange(self)
        caller = routing.Caller(self.address, self.trusted)
        try:
            routing.begin(self.services, self._request, caller, exchange, link, self._request_id)
        except routing.Unroutable as no:
            self._answer(no.code, no.detail)
            return
        self._exchange = exchange
        if self._body is None:
            self._await_answer()
        else:
            self._phase = Phase.BODY
            self.patience.start_body(self.loop.time())
            self._expect("body", self.services.timeouts.idle)

    def _read_body(self) -> None:
        """Passes on what the buffer holds of the body."""
        body, exchange, request = self._body, self._exchange, self._request
        assert body is not None
        assert exchange is not None
        assert request is not None
        data, self._buffer = self._buffer, b""
        self.patience.on_body(len(data))
        if not exchange.answered:
            self._expect("body", self.services.timeouts.idle)
        try:
            parts, rest = body.feed(data)
        except MalformedBody as error:
            self._refuse_body(f"request body: {error}")
            return
        if request.json_post and len(self._prefix) < _PREFIX_MOST:
            self._prefix += b"".join(parts)[:_PREFIX_MOST]
        go_on = True
        for part in parts:
            go_on = exchange.write(part)
        if body.done:
            exchange.end(body.trailers)
            self._body = None
            self._buffer = rest
            self._await_answer()
        elif not go_on:
            self.pause()

    def _await_answer(self) -> None:
        """The request is complete."""
        self._phase = Phase.WAIT
        self.resume()
        exchange = self._exchange
        if exchange is not None and exchange.complete:
            self._finish()
        elif exchange is not None and exchange.answered:
            self.patience.wait_for_ever()
        else:
            self._expect("answer", self.services.timeouts.response_head)

    def _refuse_body(self, what: str) -> None:
        answered = self._exchange is not None and self._exchange.answered
        self._leave(ResetCode.BAD_BODY)
        if answered:
            self._break_off()
        else:
            self._answer(Code.BAD_REQUEST, what)

    def _expect(self, reason: str, within: float) -> None:
        self.patience.expect(reason, self.loop.time() + within)

    # ---- Waiter of the hub

    def on_ready(self, link: Link) -> None:
        """See `Waiter.on_ready`."""
        if self._phase is Phase.HELD:
            self._open(link)
            self.resume()
            self._advance()

    def on_given_up(self) -> None:
        """See `Waiter.on_given_up`."""
        if self._phase is Phase.HELD:
            self._answer(Code.DRAINING if self.services.draining else Code.AGENT_OFFLINE)

    # ---- ExchangeEvents

    def on_informational(self, head: ResponseHead) -> None:
        """See `ExchangeEvents.on_informational`."""
        if self._request is not None and not self._request.http10:
            self.write(encode_informational(head))

    def on_head(self, head: ResponseHead, length: int | None) -> None:
        """See `ExchangeEvents.on_head`."""
        request = self._request
        assert request is not None
        self.patience.wait_for_ever()
        self._prefix = b""
        if head.status == 101:
            self._switch(head)
            return
        no_body = request.method == b"HEAD" or head.status in (204, 304)
        writer = self._writer = ResponseWriter(request.keep_alive and not self.services.draining)
        # Written with the first data of the same turn of the loop; alone at the turn's end.
        self._pending_head = writer.head(head, length, no_body, request.http10)
        self.loop.call_soon(self._write_head)

    def on_data(self, data: memoryview) -> None:
        """See `ExchangeEvents.on_data`."""
        size = len(data)
        if size:
            self.write(self._take_head() + self._writer.data(data) if self._writer is not None else bytes(data))
        if self.full:
            self._unconsumed += size
        elif self._exchange is not None:
            self._exchange.consumed(size)

    def on_end(self, trailers: Fields) -> None:
        """See `ExchangeEvents.on_end`."""
        if self._writer is None:
            self.half_close()
            return
        tail = self._take_head() + self._writer.end(trailers)
        if tail:
            self.write(tail)
        if self._phase is Phase.WAIT:
            self._finish()

    def on_failed(self, failure: Failure) -> None:
        """See `ExchangeEvents.on_failed`."""
        if self._exchange is not None and self._exchange.answered:
            self._break_off()
        else:
            self._answer(Code(failure.code), failure.detail)

    def on_writable(self) -> None:
        """See `ExchangeEvents.on_writable`."""
        if self._phase is Phase.BODY and self._exchange is not None and not self._exchange.answered:
            self._expect("body", self.services.timeouts.idle)
        self.resume()

    # ---- writing

    def _take_head(self) -> bytes:
        head, self._pending_head = self._pending_head, b""
        return head

    def _write_head(self) -> None:
        if self._pending_head and not self.closed:
            self.write(self._take_head())

    def _switch(self, head: ResponseHead) -> None:
        """101: from here on both ways are opaque bytes."""
        exchange = self._exchange
        assert exchange is not None
        self._writer = None
        self._phase = Phase.PIPE
        self.write(encode_switch(head))
        data, self._buffer = self._buffer, b""
        if data and not exchange.write(data):
            self.pause()
        else:
            self.resume()

    def _finish(self) -> None:
        """Request and answer are complete: the next request, or the end."""
        keep_alive = self._writer is not None and self._writer.keep_alive and not self.services.draining
        self._exchange = None
        self._writer = None
        self._request = None
        self._served()
        if not keep_alive:
            self._end()
            return
        self._phase = Phase.HEAD
        self.expect_bulk(False)
        self._expect("silence", self.services.timeouts.idle)
        self.resume()
        if self._buffer:
            # Not by recursion: a thousand pipelined requests must not be a thousand frames deep.
            self.loop.call_soon(self._advance)

    def _answer(self, code: Code, detail: str = "") -> None:
        """Answers by ourselves."""
        if self.closed or self._phase is Phase.OVER:
            return
        self._collect_prefix()
        facts = self._facts()
        facts.keep_alive = keep_alive = not (answers.closes(code, facts) or self._body is not None)
        self._leave(ResetCode.CANCEL)
        self._pending_head = b""
        self._prefix = b""
        self._body = None
        self.write(answers.render(code, facts, detail, now_http_date=http_date(time.time())))
        self._writer = ResponseWriter(keep_alive)
        self._finish()

    def _end(self) -> None:
        """Nothing more is read of this connection; what was written arrives."""
        self._phase = Phase.OVER
        self._buffer = b""
        self.close_after_answer()

    def _break_off(self) -> None:
        by_close = self._writer is None or self._writer.by_close
        self._leave(ResetCode.CANCEL)
        self._phase = Phase.OVER
        self.break_off(by_close)

    def _facts(self) -> Facts:
        request = self._request
        if request is None:
            return answers.facts_of(b"GET", self._reader.fields, self.services.new_id())
        return Facts(
            method=request.method,
            request_id=self._request_id,
            host=request.host.authority,
            accept_html=request.accept_html,
            json_post=request.json_post,
            origin=request.origin,
            body_prefix=self._prefix,
            keep_alive=request.keep_alive and not self.services.draining,
            http10=request.http10,
        )

    def _collect_prefix(self) -> None:
        """Of a request that was not sent on, the body is still in the buffer: it is passed over, and its id wanted."""
        if self._request is None or self._body is None or self._exchange is not None:
            return
        data, self._buffer = self._buffer, b""
        with contextlib.suppress(MalformedBody):
            parts, rest = self._body.feed(data)
            self._prefix = b"".join(parts)[:_PREFIX_MOST]
            if self._body.done:
                self._body = None
                self._buffer = rest

    def _leave(self, code: ResetCode) -> None:
        """The exchange, or the wait for one, is over for this visitor."""
        if self._phase is Phase.HELD:
            self.services.hub.release(self._name, self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort(code)
        self._served()

    def _served(self) -> None:
        if self._serving:
            self._serving = False
            self.services.exchange_ended()
