"""A visitor's connection: uvicorn's protocol object, the guard's deadlines, and the visitor's end of each exchange.

One request at a time; what is pipelined behind it waits unparsed. Reads by call (bytes -> head -> exchange), writes
by callback (exchange -> bytes). It decides when this connection reads, waits, answers by itself and ends. An answer
that breaks off is never ended cleanly.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from enum import IntEnum
from typing import TYPE_CHECKING, cast

from relay.edge import answers
from relay.edge.answers import Code, Facts
from relay.edge.guard import Body, Refusal, Request, check
from relay.edge.hosts import subdomain_of
from relay.edge.patience import NEVER, Patience
from relay.edge.reader import HeadReader
from relay.edge.response import ResponseWriter, encode_informational, encode_switch
from relay.edge.services import Services, http_date
from relay.exchange.errors import MalformedBody, MalformedHead
from relay.exchange.framing import BodyDecoder, ChunkedBody, LengthBody
from relay.exchange.headers import Visit, add_forwarded
from relay.exchange.heads import Fields, RequestHead, ResponseHead
from relay.exchange.outgoing import Exchange, Failure
from relay.mux.errors import SessionBusy, SessionGone
from relay.wire.errors import ResetCode

if TYPE_CHECKING:
    from relay.tunnels.hub import Link

# One buffer that every connection reads into: what was read is used before the next read. An idle one holds nothing.
_READ = memoryview(bytearray(256 * 1024))
_READ_LEAST = 64 * 1024
# Unparsed bytes (pipelined, or behind a request that is held) above which we stop reading.
_BUFFER_MOST = 64 * 1024
# The first bytes of a JSON body are kept for the id of a JSON-RPC request, in case we must answer ourselves.
_PREFIX_MOST = 16 * 1024
# After an answer of our own, input is thrown away this many seconds, so that a reset does not destroy the answer.
_LINGER = 2.0
_NO_LINGER = struct.pack("ii", 1, 0)
_TCP_CLOSED = 7


class Phase(IntEnum):
    """What the connection is doing with what it reads."""

    HEAD = 0
    HELD = 1
    BODY = 2
    WAIT = 3
    PIPE = 4
    DISCARD = 5
    CLOSED = 6


class Visitor(asyncio.BufferedProtocol):
    """One connection; also the owner of its exchange, and the waiter of the hub while it is held."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop = asyncio.get_running_loop()
        self._reader = HeadReader()
        self._patience = Patience()
        self._phase = Phase.HEAD
        self._buffer = b""
        self._read_most = _READ_LEAST
        self._paused = False
        self._full = False
        self._stalled = 0
        self._unconsumed = 0
        self._request: Request | None = None
        self._exchange: Exchange | None = None
        self._writer: ResponseWriter | None = None
        self._body: BodyDecoder | None = None
        self._prefix = b""
        self._pending_head = b""
        self._request_id = ""
        self._name = ""
        self._serving = False

    # ---- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else "unknown"
        self._trusted = self._services.trusts(self._address)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._services.visitors.add(self)
        self._patience.expect("silence", self._loop.time() + self._services.timeouts.head)
        if len(self._services.visitors) > self._services.most_connections:
            self._answer(Code.OVERLOADED, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._phase = Phase.CLOSED
        self._services.visitors.discard(self)
        self._buffer = b""
        self._leave(ResetCode.CANCEL)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return _READ[: self._read_most]

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        if self._phase is Phase.DISCARD:
            return
        data = bytes(_READ[:nbytes])
        if nbytes == self._read_most:
            self._read_most = min(nbytes * 2, len(_READ)) if self._phase is Phase.BODY and not self._paused else nbytes
        if self._phase is Phase.PIPE:
            if self._exchange is not None and not self._exchange.write(data):
                self._pause()
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def eof_received(self) -> bool:
        """See `asyncio.BufferedProtocol`. A visitor that sends no more has left, except from an upgraded connection."""
        if self._phase is Phase.PIPE and self._exchange is not None:
            self._exchange.end([])
            return True
        return False

    def pause_writing(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._full = True
        self._stalled = -1

    def resume_writing(self) -> None:
        """See `asyncio.BufferedProtocol`."""
        self._full = False
        if self._phase in (Phase.WAIT, Phase.PIPE) or (self._exchange is not None and self._exchange.answered):
            self._patience.wait_for_ever()
        amount, self._unconsumed = self._unconsumed, 0
        if self._exchange is not None and amount:
            self._exchange.consumed(amount)

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
                if len(self._buffer) >= _BUFFER_MOST and self._phase in (Phase.WAIT, Phase.HELD):
                    self._pause()
                return

    def _read_head(self) -> bool:
        """Reads one head; False when it is not there yet."""
        reader = self._reader
        if self._patience.reason != "head":
            self._patience.expect("head", self._loop.time() + self._services.timeouts.head)
        try:
            data = self._buffer
            while data[:2] == b"\r\n":  # RFC 9112 §2.2: empty lines before a request are passed over
                data = self._buffer = data[2:]
            if not data:
                return False
            end = reader.find_end(data)
            if not end:
                return False
            method, target, version, fields = reader.parse(data[:end])
            request = check(method, target, version, fields)
        except Refusal as refusal:
            fields = reader.fields
            self._request = None
            self._facts_fields = fields
            self._answer(refusal.code, refusal.message)
            return True
        self._buffer = data[end:]
        self._begin(request)
        return True

    def _begin(self, request: Request) -> None:
        services = self._services
        self._request = request
        self._request_id = services.new_id()
        if request.body is not Body.NONE or request.upgrade:
            self._reader.forget()
        if request.body is Body.LENGTH:
            self._body = LengthBody(request.length or 0)
        elif request.body is Body.CHUNKED:
            self._body = ChunkedBody()
        name = subdomain_of(request.host.name, services.domain)
        tunnel = services.hub.tunnels.get(name) if name else None
        self._name = name or ""
        services.exchanges += 1
        self._serving = True
        link = tunnel.choose() if tunnel is not None else None
        if link is not None:
            self._open(link)
        elif name is None or not services.hub.known(name):
            self._answer(Code.UNKNOWN_HOST)
        elif services.hub.hold(name, self):
            self._phase = Phase.HELD
            self._patience.wait_for_ever()
        else:
            self._answer(Code.AGENT_OFFLINE)

    def _open(self, link: Link) -> None:
        """The request goes out on a stream of `link`."""
        request = self._request
        assert request is not None
        scheme = self._services.scheme
        fields = add_forwarded(request.fields, Visit(self._address, scheme, request.host.authority), self._trusted)
        head = RequestHead(request.method, request.target, fields, self._name, self._request_id, request.upgrade)
        exchange = Exchange(self)
        ended = request.body is Body.NONE and not request.upgrade
        try:
            exchange.start(link.session, head, ended)
        except (SessionBusy, MalformedHead) as error:
            busy = isinstance(error, SessionBusy)
            self._answer(Code.TOO_MANY_STREAMS if busy else Code.HEAD_TOO_LARGE, str(error))
            return
        except SessionGone:
            self._answer(Code.AGENT_OFFLINE)
            return
        self._exchange = exchange
        if self._body is None:
            self._await_answer()
        else:
            self._phase = Phase.BODY
            now = self._loop.time()
            self._patience.start_body(now)
            self._patience.expect("body", now + self._services.timeouts.idle)

    def _read_body(self) -> None:
        """Passes on what the buffer holds of the body."""
        body, exchange, request = self._body, self._exchange, self._request
        assert body is not None
        assert exchange is not None
        assert request is not None
        data, self._buffer = self._buffer, b""
        self._patience.on_body(len(data))
        if not exchange.answered:
            self._patience.expect("body", self._loop.time() + self._services.timeouts.idle)
        try:
            parts, rest = body.feed(data)
        except MalformedBody as error:
            self._refuse_body(str(error))
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
            self._pause()

    def _await_answer(self) -> None:
        """The request is complete."""
        self._phase = Phase.WAIT
        exchange = self._exchange
        if exchange is not None and exchange.complete:
            self._finish()
        elif exchange is not None and exchange.answered:
            self._patience.wait_for_ever()
        else:
            self._patience.expect("answer", self._loop.time() + self._services.timeouts.response_head)

    def _refuse_body(self, what: str) -> None:
        answered = self._exchange is not None and self._exchange.answered
        self._leave(ResetCode.BAD_BODY)
        if answered:
            self._break_off()
        else:
            self._answer(Code.BAD_REQUEST, f"request body: {what}")

    # ---- Waiter of the hub

    def on_ready(self, link: Link) -> None:
        """See `Waiter.on_ready`."""
        if self._phase is Phase.HELD:
            self._open(link)
            self._resume()
            self._advance()

    def on_given_up(self) -> None:
        """See `Waiter.on_given_up`."""
        if self._phase is Phase.HELD:
            self._answer(Code.DRAINING if self._services.draining else Code.AGENT_OFFLINE)

    # ---- ExchangeEvents

    def on_informational(self, head: ResponseHead) -> None:
        """See `ExchangeEvents.on_informational`."""
        if self._request is not None and not self._request.http10:
            self._transport.write(encode_informational(head))

    def on_head(self, head: ResponseHead, length: int | None) -> None:
        """See `ExchangeEvents.on_head`."""
        request = self._request
        assert request is not None
        self._patience.wait_for_ever()
        self._prefix = b""
        if head.status == 101:
            self._switch(head)
            return
        no_body = request.method == b"HEAD" or head.status in (204, 304)
        writer = self._writer = ResponseWriter(request.keep_alive and not self._services.draining)
        # Written with the first data of the same turn; alone at the turn's end.
        self._pending_head = writer.head(head, length, no_body, request.http10)
        self._loop.call_soon(self._write_head)

    def on_data(self, data: memoryview) -> None:
        """See `ExchangeEvents.on_data`."""
        size = len(data)
        if self._writer is None:
            self._transport.write(bytes(data))
        elif self._pending_head:
            head, self._pending_head = self._pending_head, b""
            self._transport.write(head + self._writer.data(data) if size else head)
        elif size:
            self._transport.write(self._writer.data(data))
        if self._full:
            self._unconsumed += size
        elif self._exchange is not None:
            self._exchange.consumed(size)

    def on_end(self, trailers: Fields) -> None:
        """See `ExchangeEvents.on_end`."""
        if self._writer is None:
            self._half_close()
            return
        tail = self._pending_head + self._writer.end(trailers)
        self._pending_head = b""
        if tail:
            self._transport.write(tail)
        if self._phase is Phase.WAIT:
            self._finish()

    def on_failed(self, failure: Failure) -> None:
        """See `ExchangeEvents.on_failed`."""
        answered = self._exchange is not None and self._exchange.answered
        if answered:
            self._break_off()
        else:
            self._answer(Code(failure.code), failure.detail)

    def on_writable(self) -> None:
        """See `ExchangeEvents.on_writable`."""
        if self._phase is Phase.BODY and self._exchange is not None and not self._exchange.answered:
            self._patience.expect("body", self._loop.time() + self._services.timeouts.idle)
        self._resume()

    # ---- writing

    def _write_head(self) -> None:
        if self._pending_head and self._phase is not Phase.CLOSED:
            head, self._pending_head = self._pending_head, b""
            self._transport.write(head)

    def _switch(self, head: ResponseHead) -> None:
        """101: from here on both ways are opaque bytes."""
        exchange = self._exchange
        assert exchange is not None
        self._writer = None
        self._phase = Phase.PIPE
        self._transport.write(encode_switch(head))
        data, self._buffer = self._buffer, b""
        if data and not exchange.write(data):
            self._pause()
        else:
            self._resume()

    def _half_close(self) -> None:
        """The local service has ended its half of an upgraded connection."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _finish(self) -> None:
        """Request and answer are complete: the next request, or the end."""
        writer = self._writer
        self._exchange = None
        self._writer = None
        self._served()
        if writer is None or not writer.keep_alive or self._services.draining:
            self._phase = Phase.DISCARD
            self._close_after_answer()
            return
        self._phase = Phase.HEAD
        self._request = None
        self._read_most = _READ_LEAST
        self._patience.expect("silence", self._loop.time() + self._services.timeouts.idle)
        self._resume()
        if self._buffer:
            # Not by recursion: a thousand pipelined requests must not be a thousand frames deep.
            self._loop.call_soon(self._advance)

    def _answer(self, code: Code, detail: str = "") -> None:
        """Answers by ourselves."""
        if self._phase is Phase.CLOSED:
            return
        self._collect_prefix()
        facts = self._facts()
        closes = answers.closes(code, facts) or self._body is not None
        facts.keep_alive = not closes
        self._leave(ResetCode.CANCEL)
        self._pending_head = b""
        self._transport.write(answers.render(code, facts, detail, now_http_date=http_date(time.time())))
        self._body = None
        self._writer = None
        if closes:
            self._phase = Phase.DISCARD
            self._close_after_answer()
        else:
            self._writer = ResponseWriter(True)
            self._phase = Phase.WAIT
            self._finish()

    def _facts(self) -> Facts:
        request = self._request
        if request is None:
            return answers.facts_of(b"GET", self._reader.fields, self._services.new_id())
        return Facts(
            method=request.method,
            request_id=self._request_id,
            host=request.host.authority,
            accept_html=request.accept_html,
            json_post=request.json_post,
            origin=request.origin,
            body_prefix=self._prefix,
            keep_alive=request.keep_alive and not self._services.draining,
            http10=request.http10,
        )

    def _collect_prefix(self) -> None:
        """Of a request that was held, the body is still in the buffer: its JSON-RPC id is wanted."""
        if self._request is None or not self._request.json_post or self._body is None or self._exchange is not None:
            return
        data, self._buffer = self._buffer, b""
        with contextlib.suppress(MalformedBody):
            parts, rest = self._body.feed(data)
            self._prefix = b"".join(parts)[:_PREFIX_MOST]
            if self._body.done:
                self._body = None
                self._buffer = rest

    def _close_after_answer(self) -> None:
        """Sends what is written, then FIN; input is thrown away for a while, then the connection is cut."""
        self._buffer = b""
        self._patience.expect("linger", self._loop.time() + _LINGER)
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._resume()
        else:
            self._transport.close()

    def _break_off(self) -> None:
        """The answer has begun and will not be completed: the visitor must see that."""
        self._leave(ResetCode.CANCEL)
        self._pending_head = b""
        by_close = self._writer is None or self._writer.by_close
        sock = self._transport.get_extra_info("socket")
        if by_close and sock is not None and self._transport.get_extra_info("ssl_object") is None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()
        elif by_close:
            self._transport.abort()
        else:
            self._phase = Phase.DISCARD
            self._patience.expect("linger", self._loop.time() + _LINGER)
            self._transport.close()

    def _leave(self, code: ResetCode) -> None:
        """The exchange, or the wait for one, is over for this visitor."""
        if self._phase is Phase.HELD or (self._exchange is None and self._name):
            self._services.hub.release(self._name, self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.abort(code)
        self._served()

    def _served(self) -> None:
        if self._serving:
            self._serving = False
            self._services.exchange_ended()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # ---- deadlines, asked by the sweeper

    def check(self, now: float) -> None:
        """Ends what has taken too long."""
        if self._phase is Phase.BODY and not self._slow_body(now):
            return
        if self._paused and self._gone():
            self._transport.abort()
        elif self._full:
            self._check_stall(now)
        elif now >= self._patience.deadline:
            self._expire()

    def _slow_body(self, now: float) -> bool:
        """Keeps the body's clocks; False when the connection was dealt with."""
        if self._exchange is not None and self._exchange.answered:
            return True
        if self._paused:
            self._patience.expect("body", now + self._services.timeouts.idle)
        if self._patience.too_slow(now, not self._paused):
            self._answer(Code.REQUEST_TIMEOUT, "the body comes too slowly")
            return False
        return True

    def _check_stall(self, now: float) -> None:
        """A visitor that reads nothing of its answer for the idle time is cut."""
        left = self._transport.get_write_buffer_size()
        if left != self._stalled:
            self._stalled = left
            self._patience.expect("reading", now + self._services.timeouts.idle)
        elif now >= self._patience.deadline:
            self._break_off()
            self._transport.abort()

    def _expire(self) -> None:
        reason = self._patience.reason
        self._patience.deadline = NEVER
        if reason == "answer":
            self._answer(Code.HEAD_TIMEOUT, f"{self._services.timeouts.response_head:g} seconds")
        elif reason in ("head", "body"):
            self._answer(Code.REQUEST_TIMEOUT, f"the request {reason} did not come in time")
        else:
            self._transport.abort() if reason == "linger" else self._transport.close()

    def _gone(self) -> bool:
        """Whether the peer of a connection that we do not read has reset it (Linux tells; elsewhere: unknown)."""
        sock = self._transport.get_extra_info("socket")
        if sock is None or not hasattr(socket, "TCP_INFO"):
            return False
        try:
            return int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]) == _TCP_CLOSED
        except OSError:
            return True

    def shutdown(self) -> None:
        """uvicorn's word for: finish what runs, begin nothing."""
        if self._phase is Phase.HEAD and not self._buffer:
            self._transport.close()

    def cut(self) -> None:
        """The grace time is over."""
        if self._phase is not Phase.CLOSED:
            self._break_off()
            self._transport.abort()
