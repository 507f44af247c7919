"""The opener's side of an exchange: an object with events, not a coroutine with queues.

The edge writes a request and is called back with the answer. This room alone decides what an agent may say about an
exchange: how many heads, in which order, whether the body has the length that was declared, and which failure of the
contract every kind of end becomes. What it lets through may be written to a visitor as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

from relay.exchange.errors import MalformedHead
from relay.exchange.framing import content_length
from relay.exchange.headers import strip_trailers
from relay.exchange.heads import (
    MOST_INFORMATIONAL,
    EncodedRequest,
    Fields,
    ResponseHead,
    decode_fields,
    decode_response,
    encode_fields,
)
from relay.mux.streamevents import StreamEvents
from relay.wire.errors import ResetCode

MOST_REMEMBERED: Final = 1024

# What ends a stream on this side: not numbers of the wire, where none is negative.
BODY_TOO_LARGE: Final = -2
QUOTA_EXHAUSTED: Final = -3

# How an agent's reset reads in the contract (docs/promises.md, "The relay's own answers"); any other is `agent_lost`.
_FAILURES: Final[dict[int, str]] = {
    ResetCode.LOCAL_REFUSED: "local_refused",
    ResetCode.LOCAL_RESET: "local_reset",
    ResetCode.BAD_RESPONSE: "bad_response",
    ResetCode.HEAD_TIMEOUT: "head_timeout",
    ResetCode.BAD_BODY: "bad_request",
    ResetCode.TOO_MANY_STREAMS: "too_many_streams",
    BODY_TOO_LARGE: "body_too_large",
    QUOTA_EXHAUSTED: "quota_exhausted",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no (whole) answer: a code of the contract, and what to say about it."""

    code: str
    detail: str = ""


class ExchangeEvents(Protocol):
    """What an exchange tells the visitor's side. After `on_end` or `on_failed` only `on_writable` may come."""

    def on_informational(self, head: ResponseHead) -> None:
        """A 1xx head other than 101."""

    def on_head(self, head: ResponseHead, length: int | None) -> None:
        """The final head. `length` is the declared body length, None when the body ends with `on_end`."""

    def on_lull(self) -> None:
        """Nothing of the body came with the final head."""

    def on_data(self, data: memoryview) -> bool:
        """Body bytes, valid only during the call. True: they were passed on; else answer with `consumed` later."""

    def on_last(self, data: memoryview) -> None:
        """The whole body, and with it the answer is complete; nothing is to be consumed."""

    def on_end(self, trailers: Fields) -> None:
        """The answer is complete."""

    def on_failed(self, failure: Failure) -> None:
        """There will be no (more of an) answer."""

    def on_writable(self) -> None:
        """The request body may go on."""


class Channel(Protocol):
    """A stream, or what stands before one that is limited."""

    def write(self, data: bytes) -> bool:
        """Sends or queues `data`. False: wait for `on_writable`."""

    def write_view(self, data: memoryview) -> bool:
        """As `write`, of bytes that are there only during the call."""

    def end(self, trailers: bytes = b"") -> None:
        """Half-closes."""

    def reset(self, code: ResetCode, detail: str = "", delivered: bool = False) -> None:
        """Cuts it."""

    def consumed(self, amount: int) -> None:
        """`amount` received bytes were passed on."""


class Opener(Protocol):
    """Opens channels: a session, or what stands before it."""

    def open(self, payload: bytes, ended: bool, owner: StreamEvents) -> Channel:
        """Opens one with an encoded request head. Raises `SessionGone`, `SessionBusy`."""


def _decode_final(payload: bytes) -> tuple[ResponseHead, int | None]:
    """A head and its declared length. Raises `MalformedHead`."""
    head = decode_response(payload)
    return head, content_length(head.fields)


# Small heads are often sent again to the letter; what they mean is remembered. A head is not changed by who gets it.
_decode: Final = lru_cache(maxsize=256)(_decode_final)


class Exchange:
    """One request with its answer. Also the owner of its stream."""

    # Of the class, until an exchange has its own: most of it never changes.
    _head_only = False
    _heads = 0
    _left = -1
    """Bytes of body that may still come; -1: any number."""
    _upgrade = False
    answered = False
    """Whether the final head has come."""
    complete = False
    """Whether the whole answer has come; the request body may still be going out."""
    upgraded = False

    def __init__(self, events: ExchangeEvents, request_id: str) -> None:
        self.request_id = request_id
        self._events: ExchangeEvents | None = events
        self._stream: Channel | None = None

    def start(self, opener: Opener, request: EncodedRequest, ended: bool) -> None:
        """Opens the stream. Raises `SessionGone`, `SessionBusy`, `MalformedHead`."""
        head = request.head
        if head.upgrade:
            self._upgrade = True
        elif head.method == b"HEAD":
            self._head_only = True
        self._stream = opener.open(request.payload(self.request_id), ended, self)

    # ---- the request

    def write(self, data: bytes) -> bool:
        """Body bytes (not empty). False: wait for `on_writable`."""
        return self._stream is None or self._stream.write(data)

    def write_view(self, data: memoryview) -> bool:
        """As `write`, of bytes that are there only during the call."""
        return self._stream is None or self._stream.write_view(data)

    def end(self, trailers: Fields) -> None:
        """The request body is complete."""
        if self._stream is not None:
            fields = strip_trailers(trailers) if trailers else trailers
            self._stream.end(encode_fields(fields) if fields else b"")

    def abort(self, code: ResetCode = ResetCode.CANCEL) -> None:
        """The visitor has left, or its body turned bad: cut the stream."""
        self._events = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset(code)

    def consumed(self, amount: int) -> None:
        """The visitor's side has passed on `amount` bytes."""
        if self._stream is not None:
            self._stream.consumed(amount)

    # ---- StreamEvents

    def on_head(self, payload: bytes) -> None:
        """See `StreamEvents.on_head`."""
        events = self._events
        if events is None:
            return
        try:
            head, length = _decode(payload) if len(payload) <= MOST_REMEMBERED else _decode_final(payload)
            status = head.status
            if status < 200 or self.answered:
                if status != 101 or self.answered or not self._upgrade:
                    self._inform(events, head)
                    return
                self.upgraded = True
                length = None
        except MalformedHead as error:
            self._fail(ResetCode.BAD_RESPONSE, Failure("bad_response", str(error)))
            return
        self.answered = True
        if self._upgrade and not self.upgraded and self._stream is not None:
            self._stream.end()  # a refused upgrade: the request has no more to say
        if length is not None:
            self._left = length
        if self._head_only or status == 204 or status == 304:
            self._left = 0
        events.on_head(head, length)

    def _inform(self, events: ExchangeEvents, head: ResponseHead) -> None:
        if self.answered:
            raise MalformedHead("a second final head")
        if head.status == 101:
            raise MalformedHead("101 to a request without an upgrade")
        self._heads += 1
        if self._heads > MOST_INFORMATIONAL:
            raise MalformedHead(f"more than {MOST_INFORMATIONAL} informational heads")
        events.on_informational(head)

    def on_lull(self) -> None:
        """See `StreamEvents.on_lull`."""
        if self._events is not None and self.answered:
            self._events.on_lull()

    def on_data(self, data: memoryview) -> bool:
        """See `StreamEvents.on_data`."""
        events = self._events
        if events is None:
            return False
        if not self.answered:
            self._fail(ResetCode.BAD_RESPONSE, Failure("bad_response", "a body before its head"))
            return False
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                self._fail(ResetCode.BAD_RESPONSE, Failure("bad_response", "a body longer than declared"))
                return False
        return events.on_data(data)

    def on_last(self, data: memoryview) -> None:
        """See `StreamEvents.on_last`."""
        events = self._events
        if events is not None and self.answered and (self._left < 0 or self._left == len(data)):
            self.complete = True
            events.on_last(data)
        else:
            self.on_data(data)
            self.on_end(b"")

    def on_end(self, trailers: bytes) -> None:
        """See `StreamEvents.on_end`."""
        events = self._events
        if events is None or self.complete:
            return
        if not self.answered or self._left > 0:
            what = "a body shorter than declared" if self.answered else "an end without a head"
            self._fail(ResetCode.BAD_RESPONSE, Failure("bad_response", what))
            return
        try:
            fields = strip_trailers(decode_fields(trailers, 0)) if trailers else []
        except MalformedHead as error:
            self._fail(ResetCode.BAD_RESPONSE, Failure("bad_response", f"trailers: {error}"))
            return
        self.complete = True
        events.on_end(fields)

    def on_reset(self, code: int, delivered: bool, detail: str) -> None:
        """See `StreamEvents.on_reset`."""
        events, self._events = self._events, None
        self._stream = None
        if events is not None and self.complete and not self.upgraded:
            events.on_writable()  # the rest of the request goes nowhere, but nobody waits for its way
        elif events is not None:
            events.on_failed(Failure(_FAILURES.get(code, "agent_lost"), detail))

    def on_writable(self) -> None:
        """See `StreamEvents.on_writable`."""
        if self._events is not None:
            self._events.on_writable()

    def _fail(self, code: ResetCode, failure: Failure) -> None:
        events = self._events
        self.abort(code)
        if events is not None:
            events.on_failed(failure)
