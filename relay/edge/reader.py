"""One request head from bytes: bounded by size, split off exactly, parsed by llhttp in its strict mode.

Nothing behind the head is given to the parser: bodies are framed by `exchange.framing`, and what follows an `Upgrade`
stays with the connection.
"""

from __future__ import annotations

import re

import httptools

from relay.edge.answers import Code
from relay.edge.guard import MAX_FIELDS, MAX_HEAD, Refusal, Request, check
from relay.exchange.heads import Fields

# A head above this is not kept for comparison: an idle connection should hold little.
MOST_REMEMBERED = 2048
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_REQUEST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^\r\n]* HTTP/[0-9]\.[0-9]\r")


def pass_over_empty_lines(data: bytes) -> bytes:
    """What follows empty lines in front of a request (RFC 9112 §2.2)."""
    return _EMPTY_LINES.sub(b"", data, count=1) if data[:2] == b"\r\n" else data


class HeadReader:
    """Parses one head after the other. Made once per connection; a fresh parser replaces one that expects a body."""

    __slots__ = ("_head", "_parser", "_request", "_seen", "fields", "method", "target")

    def __init__(self) -> None:
        self.fields: Fields = []
        self.method = b""
        """Of the head in hand, also of one that is refused; empty before it is known."""
        self.target = b""
        self._parser: httptools.HttpRequestParser | None = None
        self._seen = 0
        self._head = b""
        self._request: Request | None = None

    def read(self, data: bytes) -> tuple[Request | None, int]:
        """(what the head at the start of `data` asks for, where it ends); (None, 0) when it is not complete.

        Raises `Refusal`. A connection often sends the same head again: one that is equal to the last byte by byte means
        the same.
        """
        if self._request is not None and data.startswith(self._head):
            self._seen = 0
            return self._request, len(self._head)
        end = self.find_end(data)
        if not end:
            return None, 0
        head = data[:end]
        request = check(*self.parse(head))
        if end <= MOST_REMEMBERED:
            self._head = head
            self._request = request
        return request, end

    def find_end(self, data: bytes) -> int:
        """Where the head in `data` ends, 0 when it is not complete: then ask again with the same and more.

        Raises `Refusal` when it can never be a head. What was looked at before is not looked at again: a head that
        drips in byte by byte must not cost the square of its length.
        """
        seen, self._seen = self._seen, len(data)
        if not seen:
            self.fields = []
            self.method = b""
        end = data.find(b"\r\n\r\n", max(0, seen - 3), MAX_HEAD) + 4
        if end >= 4:
            self._seen = 0
            if b" HTTP/" not in data[: data.find(b"\r\n")]:  # to llhttp RTSP/1.0 and ICE/1.0 are versions as well
                self._glean(data[:end])
                raise Refusal(Code.BAD_REQUEST, "the first line is not an HTTP/1.x request line")
            return end
        if len(data) >= MAX_HEAD:
            self._glean(data)
            raise Refusal(Code.HEAD_TOO_LARGE, f"more than {MAX_HEAD // 1024} KiB")
        if _BARE_LF.search(data, seen):
            self.method = _method_of(data)
            raise Refusal(Code.BAD_REQUEST, "a line of the request head ends in LF without CR")
        if not 0x41 <= data[0] <= 0x7A and data != b"\r":
            raise Refusal(Code.BAD_REQUEST, "this is not HTTP/1.1")
        if data.find(b"\r\n", max(0, seen - 1)) >= 0 and not _REQUEST_LINE.match(data):
            raise Refusal(Code.BAD_REQUEST, "the first line is not an HTTP/1.x request line")
        return 0

    def parse(self, head: bytes) -> tuple[bytes, bytes, str, Fields]:
        """(method, target, version, fields) of one complete head. Raises `Refusal`."""
        parser = self._parser
        fresh = parser is None
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        self.fields = []
        self.method = _method_of(head)
        self.target = b""
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserInvalidMethodError:
            self._parser = None
            self._glean(head)
            raise Refusal(Code.METHOD_NOT_SUPPORTED, "not a method of HTTP/1.1") from None
        except httptools.HttpParserError as error:
            self._parser = None
            if isinstance(error.__context__, Refusal):
                raise error.__context__ from None
            if not fresh:  # llhttp takes Proxy-Connection: close for the end, and refuses whatever follows
                return self.parse(head)
            raise Refusal(Code.BAD_REQUEST, "the head is not valid HTTP/1.1") from None
        return parser.get_method(), self.target, parser.get_http_version(), self.fields

    def forget(self) -> None:
        """The parser expects a body that it will never see."""
        self._parser = None

    def _glean(self, head: bytes) -> None:
        """Method and fields of a head that is refused, as far as they go: they only decide how the refusal is said."""
        self.fields = []
        self.method = _method_of(head)
        try:
            httptools.HttpRequestParser(self).feed_data(b"GET" + head[len(self.method) : MAX_HEAD])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            pass

    # ---- callbacks of the parser

    def on_url(self, url: bytes) -> None:
        """The target, maybe in pieces."""
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field."""
        if len(self.fields) >= MAX_FIELDS:
            raise Refusal(Code.HEAD_TOO_LARGE, f"more than {MAX_FIELDS} fields")
        self.fields.append((name, value.rstrip(b" \t")))


def _method_of(head: bytes) -> bytes:
    """The first word, whatever it is worth."""
    return head[:64].partition(b" ")[0]
