"""Request heads that no visitor's may be, as raw bytes, each with the answer that it deserves. Data only.

Behind some of them stands a second request, which a careless reader would take for one of its own.
"""

from __future__ import annotations

HOST = b"Host: t.tunnels.localhost"
CHUNKED = b"Transfer-Encoding: chunked"
WEBSOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def bare(*lines: bytes) -> bytes:
    """A head of these lines."""
    return b"\r\n".join(lines) + b"\r\n\r\n"


def get(*fields: bytes, target: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    """A GET of the tunnel `t` with these fields behind its Host."""
    return bare(b"GET %b %b" % (target, version), HOST, *fields)


def post(*fields: bytes, target: bytes = b"/", version: bytes = b"HTTP/1.1") -> bytes:
    """The head of a POST."""
    return bare(b"POST %b %b" % (target, version), HOST, *fields)


SMUGGLED = get(target=b"/smuggled")
NO_CHUNKS = b"0\r\n\r\n"

BAD_REQUESTS: dict[str, bytes] = {
    # Host
    "no Host": bare(b"GET / HTTP/1.1"),
    "no Host in HTTP/1.0": bare(b"GET / HTTP/1.0"),
    "two Hosts": get(b"Host: u.tunnels.localhost"),
    "the same Host twice": get(HOST),
    "an empty Host": bare(b"GET / HTTP/1.1", b"Host:"),
    "a Host with a path": bare(b"GET / HTTP/1.1", HOST + b"/x"),
    "a Host with a user": bare(b"GET / HTTP/1.1", b"Host: a@t.tunnels.localhost"),
    "a Host with a list": bare(b"GET / HTTP/1.1", HOST + b", b"),
    "a Host with a bad port": bare(b"GET / HTTP/1.1", HOST + b":8o"),
    "a Host beyond ASCII": bare(b"GET / HTTP/1.1", b"Host: \xc3\xa9.tunnels.localhost"),
    "white space before the colon of Host": bare(b"GET / HTTP/1.1", b"Host : t.tunnels.localhost"),
    # The target
    "another host in the target": get(target=b"http://u.tunnels.localhost/"),
    "a target with a user": get(target=b"http://a@t.tunnels.localhost/"),
    "a target of another scheme": get(target=b"file:///etc/passwd"),
    "a target beyond ASCII": get(target=b"/\xc3\xa9"),
    "a target with a space": get(target=b"/a b"),
    "a target with a NUL": get(target=b"/\0"),
    "a target that is no path": get(target=b"smuggled"),
    "a * that is no OPTIONS": get(target=b"*"),
    # Framing
    "a length with chunks": post(b"Content-Length: 5", CHUNKED) + NO_CHUNKS + SMUGGLED,
    "chunks with a length": post(CHUNKED, b"Content-Length: 5") + NO_CHUNKS + SMUGGLED,
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 55") + SMUGGLED,
    "the same length twice": post(b"Content-Length: 1", b"Content-Length: 1") + b"a",
    "a list of lengths": post(b"Content-Length: 1, 1") + b"a",
    "a signed length": post(b"Content-Length: +1") + b"a",
    "a negative length": post(b"Content-Length: -1"),
    "a hexadecimal length": post(b"Content-Length: 0x1") + b"a",
    "a huge length": post(b"Content-Length: 99999999999999999999"),
    "an empty length": post(b"Content-Length:"),
    "chunks in HTTP/1.0": post(CHUNKED, version=b"HTTP/1.0") + NO_CHUNKS,
    "an unknown coding": post(b"Transfer-Encoding: gzip"),
    "a coding beside chunked": post(b"Transfer-Encoding: gzip, chunked") + NO_CHUNKS,
    "chunked twice": post(CHUNKED, CHUNKED) + NO_CHUNKS,
    "chunked with a parameter": post(CHUNKED + b";q=1") + NO_CHUNKS,
    "chunked behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked") + NO_CHUNKS,
    # Versions
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/0.9 with an empty line": b"GET /\r\n\r\n",
    "HTTP/1.2": get(version=b"HTTP/1.2"),
    "HTTP/2.0": get(version=b"HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    "a version in lower case": get(version=b"http/1.1"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200,
    # Lines
    "a bare LF behind the request line": b"GET / HTTP/1.1\n" + HOST + b"\r\n\r\n",
    "a bare LF behind a field": get(b"X: a\nY: b"),
    "bare LFs alone": b"GET / HTTP/1.1\n" + HOST + b"\n\n",
    "a bare CR": get(b"X: a\rY: b"),
    "NUL in a value": get(b"X: a\0b"),
    "NUL in a name": get(b"X\0Y: a"),
    "a folded line": get(b"X: a", b" " + CHUNKED),
    "a folded first line": bare(b"GET / HTTP/1.1", b" " + HOST),
    "a field without a colon": get(b"X"),
    "a field without a name": get(b": x"),
    "a space in a name": get(b"X Y: a"),
    # Upgrades with a body
    "an upgrade with a length": get(*WEBSOCKET, b"Content-Length: 55") + SMUGGLED,
    "an upgrade with chunks": get(*WEBSOCKET, CHUNKED) + NO_CHUNKS + SMUGGLED,
    "a POST that upgrades, with a length": post(*WEBSOCKET, b"Content-Length: 55") + SMUGGLED,
}
NOT_SUPPORTED: dict[str, bytes] = {
    "CONNECT": bare(b"CONNECT t.tunnels.localhost:80 HTTP/1.1", HOST) + SMUGGLED,
    "TRACE": bare(b"TRACE / HTTP/1.1", HOST),
    "a method in lower case": bare(b"get / HTTP/1.1", HOST),
    "an unknown method": bare(b"SMUGGLE / HTTP/1.1", HOST),
}
TOO_LARGE: dict[str, bytes] = {
    "101 fields": get(*(b"X-%d: a" % number for number in range(100))),
    "a value of 33 KiB": get(b"X: " + b"a" * 33 * 1024),
    "a name of 33 KiB": get(b"X" * 33 * 1024 + b": a"),
    "a target of 33 KiB": get(target=b"/" + b"a" * 33 * 1024),
}

REFUSED: dict[str, tuple[int, str, bytes]] = {
    **{name: (400, "bad_request", head) for name, head in BAD_REQUESTS.items()},
    **{name: (501, "method_not_supported", head) for name, head in NOT_SUPPORTED.items()},
    **{name: (431, "head_too_large", head) for name, head in TOO_LARGE.items()},
}
"""What it is: (status, code, bytes)."""
