"""The reading side of a visitor's connection: requests, one after the other, each put on a stream.

What is pipelined behind a request waits unparsed. Decides when this connection reads, waits, answers by itself and
goes on. The way to a link is `entrance`, the writing side `speaker`, the transport `connection`, the end `leaver`.
"""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import Final

from relay.edge import answers, routing
from relay.edge.account import Account
from relay.edge.answers import NOTHING_MORE, Code, Extra
from relay.edge.guard import Body, Refusal, Request
from relay.edge.leaver import Leaver
from relay.edge.phase import BODY, HEAD, HELD, OVER, PIPE, WAIT
from relay.edge.reader import HeadReader, pass_over_empty_lines
from relay.edge.services import Services
from relay.exchange.errors import MalformedBody
from relay.exchange.framing import BodyDecoder, ChunkedBody, LengthBody
from relay.exchange.outgoing import Exchange
from relay.tunnels.hub import Link, Tunnel
from relay.wire.errors import ResetCode

# Unparsed bytes (pipelined, or behind a request that is held) above which we stop reading.
_BUFFER_MOST: Final = 64 * 1024
# The first bytes of a JSON body are kept for the id of a JSON-RPC request, in case we must answer ourselves.
_PREFIX_MOST: Final = 16 * 1024


class Visitor(Leaver):
    """One connection."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._reader = HeadReader()
        self._body: BodyDecoder | None = None

    # ---- Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BufferedProtocol`."""
        super().connection_made(transport)
        self._caller = routing.Caller(self.services, self.address, self.trusted)
        if self.excess > 1:
            self._phase = OVER
            self.break_off(by_close=True)
        elif self.excess:
            self.answer(Code.OVERLOADED, "too many connections")

    def on_bytes(self, data: bytes) -> None:
        """See `Connection.on_bytes`."""
        if self._phase is PIPE and self.pipe is not None:
            self.to_local(self.pipe.to_local, self.pipe.to_local.pass_on(data))
            return
        request = self._reader.request
        if data == self._reader.whole and self._phase is HEAD and request and not self._buffer and not self.full:
            self._begin(request, data)  # the very same request again
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def on_large(self, data: memoryview) -> bool:
        """See `Connection.on_large`: what lies in the middle of a body of known length is passed on uncopied."""
        body, exchange, request = self._body, self.exchange, self.request
        if self._phase is not BODY or self._buffer or exchange is None or not isinstance(body, LengthBody):
            return False
        size = len(data)
        if size >= body.left or exchange.answered or (request is not None and request.json_post):
            return False
        body.left -= size
        self.patience.on_body(size)
        self._expect("body", self.services.timeouts.idle)
        if self.account is not None:
            self.account.bytes_in += size
        if not exchange.write_view(data) and self._phase is BODY:
            self.pause()
        return True

    def on_drained(self) -> None:
        """See `Connection.on_drained`."""
        super().on_drained()
        if self._phase is HEAD:
            self.resume()
            self._advance()

    def on_half_close(self) -> bool:
        """See `Connection.on_half_close`: only an upgraded connection goes on in one direction."""
        if self._phase is PIPE and self.pipe is not None and self.exchange is not None:
            if not self.pipe.to_local.over:
                self.exchange.end([])
            return not self.exchange.complete
        return False

    def on_gone(self) -> None:
        """See `Connection.on_gone`."""
        self._buffer = b""
        if self._phase is PIPE and self._half_closed and self.exchange is not None and self.exchange.complete:
            self.exchange = None  # both halves have ended: what still waits for the agent is sent, not cut off
        self.leave(ResetCode.CANCEL)
        self._phase = OVER

    def on_overdue(self, reason: str) -> None:
        """See `Connection.on_overdue`."""
        if reason == "answer":
            self.drop_exchange(ResetCode.HEAD_TIMEOUT)
            self.answer(Code.HEAD_TIMEOUT, f"waited {self.services.timeouts.response_head:g} seconds")
        elif reason in ("head", "body"):
            self.answer(Code.REQUEST_TIMEOUT, f"waiting for the request {reason}")
        else:
            self.close()

    def check(self, now: float) -> None:
        """See `Connection.check`; keeps the clocks of a body as well."""
        if self._phase is BODY:
            if self.paused and self.patience.reason in ("body", "rest"):
                self._expect(self.patience.reason, self.services.timeouts.idle)
            answered = self.exchange is not None and self.exchange.answered
            if not answered and self.patience.too_slow(now, not self.paused):
                self.answer(Code.REQUEST_TIMEOUT, "the body comes too slowly")
                return
        super().check(now)

    # ---- reading

    def _advance(self) -> None:
        """Uses what is in the buffer, as far as the phase lets it."""
        while self._buffer and self._phase in (HEAD, BODY):
            if self._phase is BODY:
                self._read_body()
            elif self.full:
                self.pause()  # answers that are not read are not added to
                return
            elif not self._read_head():
                return
        if self._buffer and (len(self._buffer) >= _BUFFER_MOST or not self.may_wait()):
            self.pause()

    def _read_head(self) -> bool:
        """Reads one head; False when it is not there yet."""
        data = self._buffer = pass_over_empty_lines(self._buffer)
        try:
            request, end = self._reader.read(data) if data else (None, 0)
            if request is None:
                if self.patience.reason != "head":
                    self._expect("head", self.services.timeouts.head)
                return False
        except Refusal as refusal:
            self.request = None
            self.answer(refusal.code, refusal.message)
            return False
        self._buffer = data[end:]
        if request.body is Body.LENGTH:
            self._body = LengthBody(request.length or 0)
        elif request.body is Body.CHUNKED:
            self._body = ChunkedBody()
        self._begin(request, data[:end])
        return True

    def _begin(self, request: Request, head: bytes) -> None:
        """A request whose head was read; its body is awaited if it has one."""
        services = self.services
        self.request = request
        request_id = self.request_id = services.new_id()
        self.account = Account(request, request_id, monotonic())
        services.exchanges += 1
        self.enter(request)
        if self._phase is HELD:
            self._held_head = head

    # ---- Entrant

    def on_let_in(self, request: Request, tunnel: Tunnel, link: Link) -> None:
        """See `Entrant.on_let_in`."""
        exchange = Exchange(self, self.request_id)
        try:
            routing.begin(request, self._caller, exchange, tunnel, link)
        except routing.Unroutable as no:
            self.answer(no.code, no.detail, no.extra)
            return
        self.exchange = exchange
        if self.account is not None:
            self.account.key_id = link.principal.key_id
        if self._body is None:
            self._await_answer()
        else:
            self._phase = BODY
            self.patience.start_body(self.loop.time())
            self._expect("body", self.services.timeouts.idle)

    def read_on(self) -> None:
        """See `Entrant.read_on`."""
        self.read_small()
        self.resume()
        self._advance()

    def _read_body(self) -> None:
        """Passes on what the buffer holds of the body."""
        body, exchange, request = self._body, self.exchange, self.request
        assert body is not None and exchange is not None and request is not None  # noqa: PT018  # said once for mypy
        data, self._buffer = self._buffer, b""
        self.patience.on_body(len(data))
        if exchange.complete:
            self._expect("rest", self.services.timeouts.idle)
        elif not exchange.answered:
            self._expect("body", self.services.timeouts.idle)
        try:
            parts, rest = body.feed(data)
        except MalformedBody as error:
            self._refuse_body(f"request body: {error}")
            return
        if request.json_post and len(self.prefix) < _PREFIX_MOST:
            self.prefix += b"".join(parts)[:_PREFIX_MOST]
        # In one piece, or a visitor that sends chunks of one byte costs a frame for each.
        go_on = self._pass_on(exchange, b"".join(parts)) if parts else True
        if self._phase is not BODY:
            return  # the session ended under our hands, and the visitor has been answered
        if body.done:
            exchange.end(body.trailers)
            if self._phase is not BODY:
                return  # the end was too much for the link, and the visitor has been answered
            self._body = None
            self._buffer = rest
            self._await_answer()
        elif not go_on:
            self.pause()

    def _pass_on(self, exchange: Exchange, data: bytes) -> bool:
        if self.account is not None:
            self.account.bytes_in += len(data)
        return exchange.write(data)

    def _await_answer(self) -> None:
        """The request is complete."""
        self._phase = WAIT
        if self.paused:
            self.resume()
        exchange = self.exchange
        if exchange is None or not exchange.answered:
            self.patience.expect("answer", self.loop.time() + self.services.timeouts.response_head)
        elif exchange.complete:
            self._finish()
        else:
            self.patience.wait_for_ever()

    def _refuse_body(self, what: str) -> None:
        answered = self.exchange is not None and self.exchange.answered
        self.drop_exchange(ResetCode.BAD_BODY)
        if answered:
            self.break_off_answer()
        else:
            self.answer(Code.BAD_REQUEST, what)

    def _expect(self, reason: str, within: float) -> None:
        self.patience.expect(reason, self.loop.time() + within)

    # ---- ExchangeEvents

    def on_writable(self) -> None:
        """See `ExchangeEvents.on_writable`."""
        if self._phase is BODY and self.exchange is not None and not self.exchange.answered:
            self._expect("body", self.services.timeouts.idle)
        self.resume()

    # ---- writing

    def on_answered(self) -> None:
        """See `Speaker.on_answered`: unless its upload still runs, the exchange is complete."""
        if self._phase is WAIT:
            self._finish()
        else:
            self._expect("rest", self.services.timeouts.idle)

    def on_switched(self) -> None:
        """See `Speaker.on_switched`."""
        self._phase = PIPE
        data, self._buffer = self._buffer, b""
        self.resume()
        if data:
            self.on_bytes(data)

    def on_broken_off(self) -> None:
        """See `Speaker.on_broken_off`."""
        self.leave(ResetCode.CANCEL)
        self._phase = OVER

    def _finish(self) -> None:
        """Request and answer are complete: the next request, or the end."""
        writer = self.writer
        self.exchange = self.writer = self.request = None
        self.served()
        if writer is None or not writer.keep_alive:
            self._end()
            return
        self._phase = HEAD
        services = self.services
        if services.stopping and self.is_idle():
            self._end()
            return
        self.read_small()
        self.patience.expect("silence", self.loop.time() + services.timeouts.idle)
        if self.paused:
            self.resume()
        if self._buffer:
            # Not by recursion: a thousand pipelined requests must not be a thousand frames deep.
            self.loop.call_soon(self._advance)

    def answer(self, code: Code, detail: str = "", extra: Extra = NOTHING_MORE) -> None:
        """See `Speaker.answer`."""
        if self.closed or self._phase is OVER:
            return
        self._pass_over_body()
        facts = self.facts(self._reader)
        facts.extra = extra
        facts.keep_alive = not (answers.closes(code, facts) or self._body is not None)
        whole = self.word(code, facts, detail)
        self.leave(ResetCode.CANCEL)
        self._body = None
        self.say(whole, facts.keep_alive)
        self._finish()

    def _end(self) -> None:
        """Nothing more is read of this connection; what was written arrives."""
        self._phase = OVER
        self._buffer = b""
        self.close_after_answer()

    def _pass_over_body(self) -> None:
        """Of a request that was not sent on, the body is still in the buffer; its JSON-RPC id is wanted."""
        if self.request is None or self._body is None or self.exchange is not None:
            return
        data, self._buffer = self._buffer, b""
        with contextlib.suppress(MalformedBody):
            parts, rest = self._body.feed(data)
            self.prefix = b"".join(parts)[:_PREFIX_MOST]
            if self._body.done:
                self._body = None
                self._buffer = rest
