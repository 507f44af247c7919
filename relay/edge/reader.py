"""One request head from bytes: bounded by size, split off exactly, read strictly.

A head is what RFC 9112 says and nothing else: one space between the parts of its first line, a colon right behind each
name, no folded line, CRLF at the end of every line, no control character. Nothing is repaired, and nothing behind the
head is looked at.
"""

from __future__ import annotations

import re
from typing import Final

from relay.edge.answers import Code
from relay.edge.guard import MAX_FIELDS, MAX_HEAD, Body, Refusal, Request, understand
from relay.exchange.heads import TOKEN, Fields

# A head above this is not kept for comparison: an idle connection should hold little.
MOST_REMEMBERED: Final = 2048
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
# What was matched is never given back (`++`, `*+`): a bad line costs its length, not the square of it.
_REQUEST_LINE: Final = re.compile(rb"(%b+) ([^ \r\n]++) HTTP/([0-9]\.[0-9])\r\n" % TOKEN.pattern)
_FIELD: Final = re.compile(rb"(?<=\n)(%b+):[ \t]*+([\t\x20-\x7e\x80-\xff]*+)\r\n" % TOKEN.pattern)


def pass_over_empty_lines(data: bytes) -> bytes:
    """What follows empty lines in front of a request (RFC 9112 §2.2)."""
    return _EMPTY_LINES.sub(b"", data, count=1) if data[:2] == b"\r\n" else data


class HeadReader:
    """Reads one head after the other. Made once per connection."""

    __slots__ = ("_head", "_seen", "fields", "method", "request", "whole")

    def __init__(self) -> None:
        self.fields: Fields = []
        self.method = b""
        """Of a head that was refused, as far as they go: they only decide how the refusal is said."""
        self._seen = 0
        self._head = b""
        self.whole = b""
        """The head read last, if nothing belongs behind it; else empty."""
        self.request: Request | None = None
        """What it asks for."""

    def read(self, data: bytes) -> tuple[Request | None, int]:
        """(what the head at the start of `data` asks for, where it ends); (None, 0) when it is not complete.

        Raises `Refusal`. A connection often sends the same head again: one that is equal to the last byte by byte means
        the same.
        """
        if self.request is not None and data.startswith(self._head):
            self._seen = 0
            return self.request, len(self._head)
        try:
            end = self.find_end(data)
            if not end:
                return None, 0
            head = data[:end]
            request = understand(*split(head))
        except Refusal:
            self.method = data[:64].partition(b" ")[0]
            self.fields = _FIELD.findall(data, 0, MAX_HEAD)[:MAX_FIELDS]
            raise
        if end <= MOST_REMEMBERED:
            self._head = head
            self.request = request
            self.whole = b"" if request.body is not Body.NONE or request.upgrade else head
        return request, end

    def find_end(self, data: bytes) -> int:
        """Where the head in `data` ends, 0 when it is not complete: then ask again with the same and more.

        Raises `Refusal` when it can never be a head. What was looked at before is not looked at again: a head that
        drips in byte by byte must not cost the square of its length.
        """
        seen = self._seen
        end = data.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0, MAX_HEAD)
        if end >= 0:
            self._seen = 0
            return end + 4
        self._seen = len(data)
        if len(data) >= MAX_HEAD:
            raise Refusal(Code.HEAD_TOO_LARGE, f"more than {MAX_HEAD // 1024} KiB")
        if _BARE_LF.search(data, seen):
            raise Refusal(Code.BAD_REQUEST, "a line of the request head ends in LF without CR")
        if not 0x41 <= data[0] <= 0x7A and data != b"\r":
            raise Refusal(Code.BAD_REQUEST, "this is not HTTP/1.1")
        if data.find(b"\r\n", max(0, seen - 1)) >= 0 and not _REQUEST_LINE.match(data):
            raise Refusal(Code.BAD_REQUEST, "the first line is not an HTTP/1.x request line")
        return 0


def split(head: bytes) -> tuple[bytes, bytes, str, Fields]:
    """(method, target, version, fields, their values without white space around) of one complete head. Raises
    `Refusal`.
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise Refusal(Code.BAD_REQUEST, "the first line is not an HTTP/1.x request line")
    lines = head.count(b"\n") - 2
    if lines > MAX_FIELDS:
        raise Refusal(Code.HEAD_TOO_LARGE, f"more than {MAX_FIELDS} fields")
    fields = _FIELD.findall(head, line.end())
    if len(fields) != lines:  # each stands on a line of its own, so one that is none is missing here
        raise Refusal(Code.BAD_REQUEST, "the head is not valid HTTP/1.1")
    if b" \r" in head or b"\t\r" in head:
        if any(b"\t" in value and name.lower() == b"transfer-encoding" for name, value in fields):
            # Not every parser takes it with a tab behind it.
            raise Refusal(Code.BAD_REQUEST, "Transfer-Encoding is not valid")
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    return line[1], line[2], line[3].decode(), fields
