"""The origin for what a static server cannot do: `python -m bench.live`. An upload sink, event streams, WebSocket echo.

    POST /sink             reads a body of known length, answers 200 with its size
    GET  /events?rate=N    an event each 1/N s with its time of sending in ns; with N = 0 one event, then silence
    GET  /echo             a WebSocket that sends every message back

It trusts its only visitors, the load makers, and does no more per byte than it must.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import sys
import time
from typing import cast

from bench.loads.wire import end_of_head, length_of

_buffer = memoryview(bytearray(1024 * 1024))
_RATE = re.compile(rb"rate=(\d+)")
_KEY = re.compile(rb"\r\nsec-websocket-key:[ \t]*([^\r\n]+?)[ \t]*\r\n", re.IGNORECASE)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "


class Live(asyncio.BufferedProtocol):
    """One connection; all read into one buffer, because what was read is used at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._left = 0
        self._size = 0
        self._socket = False
        self._frames = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        if self._timer is not None:
            self._timer.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See `asyncio.BufferedProtocol`."""
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See `asyncio.BufferedProtocol`."""
        if self._left:
            self._take(nbytes)
        elif self._socket:
            self._echo(bytes(_buffer[:nbytes]))
        else:
            self._head += _buffer[:nbytes]
            end = end_of_head(self._head)
            if end:
                head, rest = self._head[:end], self._head[end:]
                self._head = b""
                self._begin(head, rest)

    def _begin(self, head: bytes, rest: bytes) -> None:
        if head.startswith(b"POST "):
            self._size = self._left = length_of(head) or 0
            self._take(len(rest))
        elif key := _KEY.search(head):
            accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())
            self._transport.write(_SWITCH + accept + b"\r\n\r\n")
            self._socket = True
            if rest:
                self._echo(rest)
        else:
            rate = _RATE.search(head)
            self._transport.write(_EVENTS)
            self._tick(1 / int(rate[1]) if rate and int(rate[1]) else 0.0, self._loop.time())

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left <= 0:
            body = json.dumps({"size": self._size}).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    def _tick(self, every: float, due: float) -> None:
        event = b"data: %d\n\n" % time.monotonic_ns()
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        if every:
            self._timer = self._loop.call_at(due + every, self._tick, every, due + every)

    def _echo(self, data: bytes) -> None:
        """Whole frames of up to 64 KiB, sent back without their mask."""
        data = self._frames + data if self._frames else data
        at = 0
        answers: list[bytes] = []
        while len(data) - at >= 6:
            size, start = data[at + 1] & 0x7F, at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            end = start + 4 + size
            if end > len(data):
                break
            mask, payload = data[start : start + 4], data[start + 4 : end]
            if mask != b"\0\0\0\0":
                key = (mask * (size // 4 + 1))[:size]
                payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
            answers += (data[at : at + 1], bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big"), payload)
            at = end
        self._frames = data[at:]
        if answers:
            self._transport.write(b"".join(answers))


async def serve() -> None:
    """On a free port, until stdin ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Live, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(json.dumps({"event": "listening", "port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Entry of `python -m bench.live`."""
    import uvloop

    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()
