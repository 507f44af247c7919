"""Random well-formed exchanges: what a visitor may send and a local service may answer, as hypothesis strategies.

Well-formed is what RFC 9110 and 9112 allow and the guard lets pass; the guard's own tests have the rest. Every drawn
exchange is bytes for both ends, so that nothing in between can make it nicer.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support.rawhttp import chunk
from tests.system.twoways import Script

METHODS = (
    b"GET POST PUT DELETE HEAD OPTIONS PATCH PROPFIND M-SEARCH PURGE QUERY SOURCE LINK UNLINK MKCALENDAR REPORT ACL"
).split()
TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
PATH_CHARACTERS = "-._~!$&'()*+,;=:@/abcXYZ019\"<>[]\\^`{|}"
# Fields with a meaning to some hop; random names besides them.
REQUEST_FIELDS = (
    b"Accept: */*",
    b"Cookie: a=b; c=d",
    b"cookie: e=f",
    b"Authorization: Bearer abc.def==",
    b"Proxy-Authorization: Basic eA==",
    b"Mcp-Session-Id: 1868a90c",
    b"MCP-Protocol-Version: 2025-06-18",
    b"Last-Event-ID: 42",
    b"Mcp-Param-X: y",
    b"X-Forwarded-For: 192.0.2.1, 192.0.2.2",
    b"x-forwarded-proto: https",
    b"X-Forwarded-Host: evil.example",
    b"X-Forwarded-Port: 1",
    b"Forwarded: for=192.0.2.1;host=evil.example",
    b"X-Real-IP: 192.0.2.1",
    b"Via: 1.0 fred",
    b"Origin: http://evil.example",
    b"Origin: null",
    b"TE: trailers, deflate;q=0.5",
    b"Trailer: X-Sum",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: keep-alive",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
    b"Connection: close",
    b"Connection: keep-alive, Upgrade, HTTP2-Settings",
    b"Connection: x-listed, X-Other",
    b"connection: Host, Authorization, Mcp-Session-Id, cookie",
    b"X-Listed: must end here",
    b"Content-Type: application/json",
    b"Content-Encoding: gzip",
    b"Accept-Encoding: gzip, br",
    b"Range: bytes=0-1",
    b'If-None-Match: "x"',
    b"Expect: 100-continue",
)
ANSWER_FIELDS = (
    b"Set-Cookie: a=b; Path=/; Expires=Wed, 21 Oct 2015 07:28:00 GMT",
    b"set-cookie: c=d",
    b"Server: x/1",
    b"Date: Wed, 21 Oct 2015 07:28:00 GMT",
    b"Content-Type: text/plain; charset=utf-8",
    b"Content-Encoding: br",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: X-Listed",
    b"X-Listed: must end here",
    b"Keep-Alive: timeout=5, max=100",
    b"Proxy-Authenticate: Basic",
    b'WWW-Authenticate: Bearer resource_metadata="http://127.0.0.1/x"',
    b"Upgrade: h2c",
    b"Trailer: X-Sum",
    b"Mcp-Session-Id: 1868a90c",
    b"Location: /elsewhere?a=b#c",
    b"Access-Control-Allow-Origin: *",
    b"Relay-Like: no",
)
RESERVED = frozenset(
    b"host content-length transfer-encoding expect upgrade connection proxy-connection http2-settings".split()
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One exchange: the request's bytes for a tunnel of this name, where they are cut, and the answer."""

    name: str
    line: bytes
    fields: tuple[bytes, ...]
    body: bytes
    cuts: tuple[int, ...]
    script: Script

    def request(self, host: bytes) -> bytes:
        """All bytes of the request, for this `Host`."""
        line = self.line.replace(b"http://HOST", b"http://" + host)
        fields = [field.replace(b"OWN", host) for field in self.fields]
        return b"\r\n".join([line, b"Host: " + host, *fields, b"", b""]) + self.body


def values(most: int = 60) -> st.SearchStrategy[bytes]:
    """Field values: visible ASCII, spaces and tabs, bytes above ASCII; white space around them too."""
    alphabet = st.sampled_from([*range(0x20, 0x7F), 0x09, 0x20, 0x80, 0xE9, 0xFF])
    return st.lists(alphabet, max_size=most).map(bytes)


def names() -> st.SearchStrategy[bytes]:
    """Field names without a meaning to any hop."""
    token = st.text(TOKEN_CHARACTERS, min_size=1, max_size=20).map(lambda text: text.encode())
    return token.filter(lambda name: name.lower() not in RESERVED)


def field_lines(known: tuple[bytes, ...]) -> st.SearchStrategy[tuple[bytes, ...]]:
    """Lines of a head: known fields and random ones, in any order, some of them twice."""
    line = st.sampled_from(known) | st.builds(lambda name, value: name + b":" + value, names(), values())
    return st.lists(line, max_size=12).map(tuple)


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A chunked body with its chunk sizes, extensions and trailers."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
    wire = []
    for piece in pieces:
        extension = draw(st.sampled_from([b"", b"", b";a=b", b' ; q="x y"']))
        size, _, rest = chunk(piece).partition(b"\r\n")
        wire.append(draw(st.sampled_from([size, size.upper(), b"00" + size])) + extension + b"\r\n" + rest)
    trailer = st.builds(lambda name, value: name + b": " + value + b"\r\n", names(), values(20))
    known = st.sampled_from([b"X-Sum: 1\r\n", b"Authorization: x\r\n", b"X-Forwarded-For: x\r\n", b"Digest: sha=\r\n"])
    trailers = draw(st.lists(trailer | known, max_size=3))
    return b"".join([*wire, b"0\r\n", *trailers, b"\r\n"])


@st.composite
def targets(draw: st.DrawFn, method: bytes) -> str:
    """Origin-form mostly, absolute-form, or `*`."""
    escapes = st.sampled_from(["%2F", "%2f", "%00", "%C3%A9", "%25", "//", "/..", "/./", "%zz", "%"])
    path = "/" + "".join(draw(st.lists(st.text(PATH_CHARACTERS, max_size=6) | escapes, max_size=6)))
    query = draw(st.sampled_from(["", "?", "?a=b&a=c%20", "?/?:@"]))
    form = draw(st.sampled_from(["", "", "", "", "http://HOST"]))
    if method == b"OPTIONS" and draw(st.booleans()):
        return form or "*"
    return form + path + query


@st.composite
def scripts(draw: st.DrawFn, method: bytes) -> Script:
    """What the local service answers to a request of this method."""
    status = draw(st.sampled_from([200, 201, 204, 206, 301, 304, 400, 401, 404, 421, 500, 503]) | st.integers(200, 999))
    reason = draw(st.sampled_from([b"OK", b"", b"Two  words"]) | values(30).map(bytes.lstrip).map(bytes.rstrip))
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]))
    fields = list(draw(field_lines(ANSWER_FIELDS)))
    interim = []
    if version == b"HTTP/1.1":
        for head in draw(st.lists(st.sampled_from([b"103 Early Hints", b"102 Processing", b"199 "]), max_size=2)):
            lines = draw(st.lists(st.sampled_from([b"Link: </a>", b"Connection: close", b"link: </b>"]), max_size=2))
            interim.append(b"\r\n".join([b"HTTP/1.1 " + head, *lines, b"", b""]))
    body, close = [], False
    framing = draw(st.sampled_from(["length", "chunked", "close"] if version == b"HTTP/1.1" else ["length", "close"]))
    if method == b"HEAD" or status in (204, 304):
        fields += draw(st.sampled_from([[], [b"Content-Length: 7"]])) if status != 204 else []
    elif framing == "length":
        whole = draw(st.binary(max_size=2000))
        at = draw(st.integers(0, len(fields)))
        fields.insert(at, b"Content-Length: %d" % len(whole))
        body = [whole]
    elif framing == "chunked":
        fields.append(b"Transfer-Encoding: chunked")
        body = [draw(chunked())]
    else:
        body, close = draw(st.lists(st.binary(min_size=1, max_size=500), max_size=3)), True
    return Script(b"\r\n".join([version + b" %d " % status + reason, *fields, b"", b""]), body, interim, close)


@st.composite
def exchanges(draw: st.DrawFn, tunnels: tuple[str, ...]) -> Drawn:
    """A request for one of the tunnels, and its answer."""
    method = draw(st.sampled_from(METHODS))
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]))
    fields = list(draw(field_lines((*REQUEST_FIELDS, b"Origin: http://OWN"))))
    framing = draw(st.sampled_from(["none", "length", "chunked"] if version == "HTTP/1.1" else ["none", "length"]))
    body = b""
    if framing == "length":
        body = draw(st.binary(max_size=2000))
        fields.insert(draw(st.integers(0, len(fields))), b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        body = draw(chunked())
        coding = draw(st.sampled_from([b"chunked", b"Chunked"]))
        fields.insert(draw(st.integers(0, len(fields))), b"Transfer-Encoding: " + coding)
    return Drawn(
        name=draw(st.sampled_from(tunnels)),
        line=b"%b %b %b" % (method, draw(targets(method)).encode(), version.encode()),
        fields=tuple(fields),
        body=body,
        cuts=tuple(draw(st.lists(st.integers(1, 400), max_size=3))),
        script=draw(scripts(method)),
    )
