"""The writing side of a visitor's connection: an exchange's answer, or one of the relay's own.

Decides how an answer is written and how one that breaks off looks. What is read, and what comes next, is decided by
the class below it (`visitor`).
"""

from __future__ import annotations

import time
from abc import abstractmethod
from time import monotonic

from relay.edge import answers
from relay.edge.account import BROKEN_OFF, COMPLETE, Account
from relay.edge.answers import NOTHING_MORE, Code, Extra, Facts
from relay.edge.connection import Connection
from relay.edge.guard import Request
from relay.edge.reader import HeadReader
from relay.edge.response import CLOSED, KEPT, ResponseWriter, encode_informational, encode_switch, writer_for
from relay.edge.services import Services, http_date
from relay.edge.websocketframes import Pipe, Way
from relay.exchange.framing import LAST_CHUNK, encode_chunk, encode_last_chunk
from relay.exchange.heads import Fields, ResponseHead
from relay.exchange.outgoing import Exchange, Failure


class Speaker(Connection):
    """Owner of an exchange: see `ExchangeEvents`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.request: Request | None = None
        self.request_id = ""
        self.account: Account | None = None
        """Of the exchange under way."""
        self.exchange: Exchange | None = None
        self.writer: ResponseWriter | None = None
        self.prefix = b""
        """The first bytes of a JSON body, for the id of a JSON-RPC request, until somebody else has answered."""
        self.pipe: Pipe | None = None
        """What goes through, once the connection was upgraded."""
        self._pending_head = b""
        self._unconsumed = 0

    # ---- for the class below

    @abstractmethod
    def on_answered(self) -> None:
        """The answer is written to its end."""

    @abstractmethod
    def on_switched(self) -> None:
        """A 101 was written: the connection is a pipe from here on."""

    @abstractmethod
    def on_broken_off(self) -> None:
        """The answer has begun and there will be no more of it."""

    @abstractmethod
    def answer(self, code: Code, detail: str = "", extra: Extra = NOTHING_MORE) -> None:
        """The relay answers by itself."""

    def word(self, code: Code, facts: Facts, detail: str) -> bytes:
        """An answer of the relay's own, as it will be written; the account knows of it."""
        whole = answers.render(code, facts, detail, now_http_date=http_date(time.time()))
        now = monotonic()
        account = self.account = self.account or Account(None, facts.request_id, now)
        account.refuse(code, now)
        account.bytes_out = len(whole) - whole.index(b"\r\n\r\n") - 4
        return whole

    def say(self, whole: bytes, keep_alive: bool) -> None:
        """Writes it."""
        self._pending_head = b""
        self.prefix = b""
        self.write(whole)
        self.writer = KEPT if keep_alive else CLOSED

    def facts(self, refused: HeadReader) -> Facts:
        """What an answer has to know; `refused` has read the head where it was not let through."""
        request = self.request
        if request is None:
            return answers.facts_of(refused.method, refused.fields, self.services.new_id())
        facts = request.facts(self.request_id, self.prefix)
        facts.keep_alive = facts.keep_alive and not (self.services.draining or self.services.level)
        return facts

    # ---- Connection

    def on_drained(self) -> None:
        """See `Connection.on_drained`."""
        amount, self._unconsumed = self._unconsumed, 0
        if self.exchange is not None and amount:
            self.exchange.consumed(amount)

    # ---- ExchangeEvents

    def on_informational(self, head: ResponseHead) -> None:
        """See `ExchangeEvents.on_informational`."""
        if self.request is not None and not self.request.http10:
            self.write(encode_informational(head))

    def on_head(self, head: ResponseHead, length: int | None) -> None:
        """See `ExchangeEvents.on_head`."""
        request, account = self.request, self.account
        assert request is not None and account is not None  # noqa: PT018  # said once for mypy
        status = account.status = head.status
        account.head_at = monotonic()
        self.patience.wait_for_ever()
        self.prefix = b""
        if status == 101:
            self.writer = None
            self.pipe = Pipe()
            self.write(encode_switch(head))
            self.on_switched()
            return
        services = self.services
        keep_alive = request.keep_alive and not (services.draining or services.level)
        if keep_alive and length is not None:
            self.writer = KEPT
            self._pending_head = KEPT.head(head)
            return
        measured = length is not None or status == 204 or status == 304 or request.method == b"HEAD"
        writer = self.writer = writer_for(keep_alive, measured, request.http10)
        self._pending_head = writer.head(head)

    def on_lull(self) -> None:
        """See `ExchangeEvents.on_lull`: a head is written with the first of its body, if that came with it."""
        head = self._take_head()
        if head and not self.closed:
            self._transport.write(head)

    def on_data(self, data: memoryview) -> bool:
        """See `ExchangeEvents.on_data`."""
        size = len(data)
        account, writer = self.account, self.writer
        if account is not None:
            account.bytes_out += size
        if not size:
            self.on_lull()
        elif writer is not None:
            body = encode_chunk(data) if writer.chunked else bytes(data)
            head = self._pending_head
            if head:
                self._pending_head = b""
                body = head + body
            self._transport.write(body)
        elif self.pipe is not None:
            self.to_visitor(self.pipe.to_visitor, self.pipe.to_visitor.pass_on(bytes(data)))
        if self.full:
            self._unconsumed += size
            return False
        return True

    def on_last(self, data: memoryview) -> None:
        """See `ExchangeEvents.on_last`: head, body and end in one write."""
        account, writer, size = self.account, self.writer, len(data)
        if account is None or writer is None or not size:
            self.on_data(data)
            self.on_end([])
            return
        account.bytes_out += size
        account.ended = COMPLETE
        head = self._pending_head
        self._pending_head = b""
        self._transport.write(head + encode_chunk(data) + LAST_CHUNK if writer.chunked else head + data)
        self.on_answered()

    def on_end(self, trailers: Fields) -> None:
        """See `ExchangeEvents.on_end`."""
        account, writer = self.account, self.writer
        if account is not None:
            account.ended = COMPLETE
        if writer is None:
            self.half_close()
            return
        tail = self._pending_head
        if writer.chunked:
            tail += encode_last_chunk(trailers)
        if tail:
            self._pending_head = b""
            self._transport.write(tail)
        self.on_answered()

    def on_failed(self, failure: Failure) -> None:
        """See `ExchangeEvents.on_failed`."""
        if self.exchange is not None and self.exchange.answered:
            self.break_off_answer()
        else:
            self.answer(Code(failure.code), failure.detail)

    def to_visitor(self, way: Way, data: bytes) -> None:
        """Writes what a pipe lets through, and ends that direction behind its last word."""
        if data:
            self.write(data)
            if way.over:
                self.half_close()

    def break_off_answer(self) -> None:
        """Ends the connection so that the visitor sees an abort. An upgraded one has no end but the connection's."""
        if self.account is not None:
            self.account.ended = BROKEN_OFF
        by_close = self.writer is None or self.writer.by_close
        head = self._take_head()
        if head:
            self.write(head)
        self.on_broken_off()
        self.break_off(by_close)

    def _take_head(self) -> bytes:
        head, self._pending_head = self._pending_head, b""
        return head
