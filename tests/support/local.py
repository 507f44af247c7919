"""A local service for tests, in this process or its own: echo, large bodies, a sink, events, a counter.

    async with LocalService() as local: ... local.port        (python -m tests.support.local: `LocalProcess`)

    /echo                                    what came, as JSON
    /bytes/N?framing=length|chunked|close    N bytes of the pattern; &piece=BYTES
    /sink[?hash=none][&rate=BYTES_A_SECOND]  counts, checks and hashes an upload; with a rate a slow reader
    /gated                                   as /sink, but reads nothing before `gate` is set (POST /gate sets it)
    /sse?count=N&every=SECONDS[&pad=BYTES]   server-sent events, each with the time it was sent
    /count                                   how often this X-Nonce was delivered; /counts: all of them
    /status/NNN                              that status

Large transfers are pattern bytes in 256 KiB writes, so that this service is not the bottleneck.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.support.child import KEEP_MEMORY, Child
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.support.pattern import Meter, pieces
from tests.support.rawhttp import CLOSE, CONTINUE, RawServer, Request, Step, chunk, ok

Query = dict[str, str]
Steps = AsyncGenerator[Step, None]


class LocalService(RawServer):
    """All of the above on one free port; `sinks` has the meter of each upload, `requests` what came."""

    def __init__(self) -> None:
        super().__init__(self._route, early=True)
        self.gate = asyncio.Event()
        self.sinks: list[Meter] = []
        self._routes: dict[str, Callable[[Request, str, Query], Steps]] = {
            "echo": self._echo,
            "bytes": self._bytes,
            "sink": self._sink,
            "gated": self._sink,
            "gate": self._open_gate,
            "sse": self._sse,
            "count": self._count,
            "counts": self._count,
            "status": self._status,
        }

    async def _route(self, request: Request) -> Steps:
        parts = urlsplit(request.target.decode("latin-1"))
        name, _, rest = parts.path.removeprefix("/").partition("/")
        return self._routes.get(name, self._echo)(request, rest, dict(parse_qsl(parts.query)))

    async def _echo(self, request: Request, rest: str, query: Query) -> Steps:
        if _expects(request):
            yield CONTINUE
        body = await request.read()
        yield _json(
            {
                "method": request.method.decode("latin-1"),
                "target": request.target.decode("latin-1"),
                "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in request.headers],
                "trailers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in request.trailers],
                "framing": request.framing,
                "length": len(body),
                "sha256": hashlib.sha256(body).hexdigest(),
            },
            head_only=request.method == b"HEAD",
        )

    async def _bytes(self, request: Request, rest: str, query: Query) -> Steps:
        size, piece, framing = int(rest), int(query.get("piece", 256 * 1024)), query.get("framing", "length")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
        ending = {"length": f"Content-Length: {size}", "chunked": "Transfer-Encoding: chunked"}
        yield head + ending.get(framing, "Connection: close").encode() + b"\r\n\r\n"
        if request.method != b"HEAD":
            for data in pieces(size, piece):
                yield chunk(data) if framing == "chunked" else data
            if framing == "chunked":
                yield b"0\r\n\r\n"
        if framing == "close":
            yield CLOSE

    async def _sink(self, request: Request, rest: str, query: Query) -> Steps:
        meter = Meter(hashing=query.get("hash") != "none")
        self.sinks.append(meter)
        if request.target.startswith(b"/gated"):
            request.stream.pause()
            await self.gate.wait()
        if _expects(request):
            yield CONTINUE
        rate = float(query.get("rate", 0))
        async for data in request.reader:
            meter.add(data)
            if rate:
                request.stream.pause()
                await request.stream.left_within(len(data) / rate)
        told = {"bytes": meter.size, "intact": meter.intact, "seconds": meter.seconds, "samples": meter.samples}
        yield _json(told | ({"sha256": meter.sha256} if meter.hashing else {}))

    async def _open_gate(self, request: Request, rest: str, query: Query) -> Steps:
        self.gate.set()
        yield ok()

    async def _sse(self, request: Request, rest: str, query: Query) -> Steps:
        count, every, pad = int(query.get("count", 10)), float(query.get("every", 0)), int(query.get("pad", 0))
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        for number in range(count):
            if number and await request.stream.left_within(every):
                yield CLOSE
            told = {"n": number, "at": time.monotonic()} | ({"pad": "x" * pad} if pad else {})
            yield chunk(f"id: {number}\ndata: {json.dumps(told)}\n\n".encode())
        yield b"0\r\n\r\n"

    async def _count(self, request: Request, rest: str, query: Query) -> Steps:
        await request.read()
        if request.target.startswith(b"/counts"):
            yield _json({nonce.decode("latin-1"): count for nonce, count in self.deliveries.items()})
        else:
            nonce = request.head.get("x-nonce") or b""
            yield _json({"nonce": nonce.decode("latin-1"), "deliveries": self.deliveries[nonce]})

    async def _status(self, request: Request, rest: str, query: Query) -> Steps:
        await request.read()
        bodiless = rest in ("204", "304")
        yield f"HTTP/1.1 {rest} Status\r\n\r\n".encode() if bodiless else ok(b"status", status=f"{rest} Status")


def _expects(request: Request) -> bool:
    return (request.head.get("expect") or b"").lower() == b"100-continue"


def _json(told: Any, *, head_only: bool = False) -> bytes:
    answer = ok(json.dumps(told).encode(), ("Content-Type", "application/json"))
    return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head_only else answer


class LocalProcess(Child):
    """A `LocalService` in its own process: `async with LocalProcess() as local: local.port`, free or the one given."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(
            [sys.executable, "-m", "tests.support.local", str(port)], name="local service", env=KEEP_MEMORY
        )
        self.port = port

    async def start(self) -> None:
        await super().start()
        self.port = int((await self.wait_event("listening"))["port"])


async def _main() -> None:
    service = LocalService()
    service.port = int(sys.argv[1])
    async with service as local:
        say(event="listening", port=local.port)
        await (await stdin_lines()).read()


if __name__ == "__main__":
    run_loop(_main())
