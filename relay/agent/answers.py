"""What follows from the head of an answer: how its body is framed, whether the connection goes on, what the relay gets.

Read once from heads that are equal byte by byte (RFC 9112 §6.3, §9.3), since a local service says the same again and
again. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from relay.exchange.framing import BodyDecoder, CloseBody, LengthBody, response_body
from relay.exchange.headers import connection_tokens, first, strip_hop_by_hop
from relay.exchange.heads import ResponseHead, encode_response

MOST_REMEMBERED: Final = 1024
"""Bytes of a head that is remembered."""
# Answers by which a local service may tell of a set-up that does not work for visitors.
_NOTABLE: Final = frozenset((401, 421))


class AnswerHead:
    """A response head, final or informational, and what follows from it. Not changed by who gets it."""

    __slots__ = ("decoder", "head", "keeps", "notable", "payload", "status", "whole")

    def __init__(self, head: ResponseHead, block: bytes, bodiless: bool) -> None:
        """Raises `MalformedHead`. `block`: its bytes; `bodiless`: the request's method leaves no body to its answer."""
        self.head = head
        self.status = head.status
        self.notable = head.status in _NOTABLE
        """Whether it is worth a look for a hint."""
        tokens = connection_tokens(head.fields)
        self.payload = encode_response(ResponseHead(head.status, head.reason, strip_hop_by_hop(head.fields)))
        """What is sent to the relay."""
        self.decoder: Callable[[], BodyDecoder] | None = None
        """What makes a decoder for its body; None where there is none."""
        self.keeps = False
        """Whether the connection may serve another exchange."""
        self.whole = -1
        """The length of the whole answer, in bytes, where the head tells it and the connection is kept; else -1."""
        if head.status >= 200:
            body = response_body(b"HEAD" if bodiless else b"", head.status, head.fields)
            self.keeps = not isinstance(body, CloseBody) and _persists(head, tokens, block)
            if isinstance(body, LengthBody):
                self.decoder = partial(LengthBody, body.left)
            elif body is not None:
                self.decoder = type(body)
            if self.keeps and (body is None or isinstance(body, LengthBody)):
                self.whole = len(block) + (0 if body is None else body.left)


class AnswerReader:
    """Reads heads of answers; those that are small and equal byte by byte, once."""

    __slots__ = ("_parse", "known")

    def __init__(self, parse: Callable[[bytes], ResponseHead]) -> None:
        self._parse = parse
        self.known = lru_cache(maxsize=256)(self._read)
        """As `read`, for small heads only."""

    def read(self, block: bytes, bodiless: bool) -> AnswerHead:
        """Exactly one head, up to and including its blank line. Raises `MalformedHead`."""
        return self.known(block, bodiless) if len(block) <= MOST_REMEMBERED else self._read(block, bodiless)

    def _read(self, block: bytes, bodiless: bool) -> AnswerHead:
        return AnswerHead(self._parse(block), block, bodiless)


def _persists(head: ResponseHead, tokens: set[bytes], block: bytes) -> bool:
    """Whether the local service keeps the connection (RFC 9112 §9.3); chunked is no part of HTTP/1.0."""
    if b"close" in tokens:
        return False
    if block.startswith(b"HTTP/1.1"):
        return True
    return b"keep-alive" in tokens and first(head.fields, b"transfer-encoding") is None
