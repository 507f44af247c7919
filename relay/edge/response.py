"""A response as a visitor's connection wants it: head, framing and end, decided from the agent's head. Pure.

Fields that came over a stream were validated when they were decoded; here hop-by-hop ones are dropped once more (an
agent is authenticated, not trusted) and our own framing is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relay.exchange.headers import strip_hop_by_hop
from relay.exchange.heads import ResponseHead

_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
_CLOSE: Final = b"Connection: close\r\n"
_SWITCH: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@dataclass(frozen=True, slots=True)
class ResponseWriter:
    """How one response is written: one of the few that `writer_for` chooses from."""

    keep_alive: bool
    chunked: bool = False
    by_close: bool = False
    """The body ends when the connection does: HTTP/1.0 only, and an abort must not look like it."""
    _more: bytes = b""

    def head(self, head: ResponseHead) -> bytes:
        """The head's bytes."""
        return b"%b%b\r\n" % (head.written or _write(head), self._more)


KEPT: Final = ResponseWriter(True)
CLOSED: Final = ResponseWriter(False, _more=_CLOSE)
_KEPT_CHUNKED: Final = ResponseWriter(True, chunked=True, _more=_CHUNKED)
_CLOSED_CHUNKED: Final = ResponseWriter(False, chunked=True, _more=_CHUNKED + _CLOSE)
_BY_CLOSE: Final = ResponseWriter(False, by_close=True, _more=_CLOSE)


def writer_for(keep_alive: bool, measured: bool, http10: bool) -> ResponseWriter:
    """`measured`: the visitor can tell where the body ends: its length is declared, or there is none."""
    if measured:
        return KEPT if keep_alive else CLOSED
    if http10:
        return _BY_CLOSE
    return _KEPT_CHUNKED if keep_alive else _CLOSED_CHUNKED


def encode_switch(head: ResponseHead) -> bytes:
    """A 101 head: from here on the connection is a pipe."""
    return (head.written or _write(head)) + _SWITCH


def encode_informational(head: ResponseHead) -> bytes:
    """A 1xx head."""
    return (head.written or _write(head)) + b"\r\n"


def _write(head: ResponseHead) -> bytes:
    """The head without its empty line; remembered, since the same head often comes again."""
    lines = [b"%b: %b\r\n" % field for field in strip_hop_by_hop(head.fields)]
    head.written = b"HTTP/1.1 %d %b\r\n%b" % (head.status, head.reason, b"".join(lines))
    return head.written
