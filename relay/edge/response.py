"""A response as a visitor's connection wants it: head, framing and end, decided from the agent's head. Pure.

Fields that came over a stream were validated when they were decoded; here hop-by-hop ones are dropped once more (an
agent is authenticated, not trusted) and our own framing is added.
"""

from __future__ import annotations

from relay.exchange.framing import encode_chunk, encode_last_chunk
from relay.exchange.headers import HOP_BY_HOP, connection_tokens, strip_hop_by_hop
from relay.exchange.heads import Fields, ResponseHead

_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CLOSE = b"Connection: close\r\n"
_SWITCH = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


class ResponseWriter:
    """How one response is written; made when its final head is known."""

    __slots__ = ("by_close", "chunked", "keep_alive")

    def __init__(self, keep_alive: bool) -> None:
        self.chunked = False
        self.by_close = False
        """The body ends when the connection does: HTTP/1.0 only, and an abort must not look like it."""
        self.keep_alive = keep_alive

    def head(self, head: ResponseHead, length: int | None, no_body: bool, http10: bool) -> bytes:
        """The head's bytes. `no_body`: no body follows whatever the fields say (HEAD, 204, 304)."""
        extra = b""
        if length is None and not no_body:
            if http10:
                self.by_close = True
                self.keep_alive = False
            else:
                self.chunked = True
                extra = _CHUNKED
        if not self.keep_alive:
            extra += _CLOSE
        return _head(head, extra)

    def data(self, data: memoryview) -> bytes:
        """Body bytes, framed; always a copy, since `data` lives only as long as the call that brought it."""
        return encode_chunk(data) if self.chunked else bytes(data)

    def end(self, trailers: Fields) -> bytes:
        """What stands behind the body; b"" for nothing."""
        return encode_last_chunk(trailers) if self.chunked else b""


def encode_switch(head: ResponseHead) -> bytes:
    """A 101 head: from here on the connection is a pipe."""
    return _head(head, _SWITCH)


def encode_informational(head: ResponseHead) -> bytes:
    """A 1xx head."""
    return _head(head, b"")


def _head(head: ResponseHead, extra: bytes) -> bytes:
    if head.written:
        return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (head.status, head.reason, head.written, extra)
    fields = head.fields
    for name, _ in fields:
        if name.lower() in HOP_BY_HOP:
            fields = strip_hop_by_hop(fields, connection_tokens(fields))
            break
    lines = head.written = b"".join([b"%b: %b\r\n" % field for field in fields])
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (head.status, head.reason, lines, extra)
