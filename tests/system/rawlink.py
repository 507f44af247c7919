"""A link of an agent made of bytes: admitted like any other, it says what it is told to, and may stop reading.

Unlike `handagent` no library stands between a test and the socket: WebSocket frames can be wrong, messages of any size
are sent as they are, and what is said costs the test's process next to nothing. Client frames are masked with zeros.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from typing import Self

from relay.wire import frames
from relay.wire.errors import AwayCode
from relay.wire.hello import PATH, SUBPROTOCOL, Hello, decode_refused, encode_hello
from tests.support.framing import decode
from tests.support.rawhttp import RawClient
from tests.support.rawstream import EndOfBytes

POUR_WITHIN = 10.0
CUT = "cut without a word"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
    f"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
).encode()


def message(payload: bytes, *, kind: int = BINARY, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A WebSocket frame with this payload, masked with zeros or not at all."""
    return header(len(payload), kind=kind, fin=fin, rsv=rsv, masked=masked) + payload


def header(length: int, *, kind: int = BINARY, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """The same without its payload."""
    first, mask = fin << 7 | rsv << 4 | kind, masked << 7
    if length < 126:
        size = bytes((first, mask | length))
    elif length < 2**16:
        size = bytes((first, mask | 126)) + length.to_bytes(2, "big")
    else:
        size = bytes((first, mask | 127)) + length.to_bytes(8, "big")
    return size + bytes(4 * masked)


OnOpen = Callable[["RawLink", int], None]


class RawLink:
    """`async with RawLink(port, key, "name") as link: link.say(frame, …)`; `on_open` is told of each stream opened.

    Its pings are answered unless `deaf` is called, which stops all reading.
    """

    def __init__(self, port: int, key: str, name: str, on_open: OnOpen | None = None) -> None:
        self.hello = Hello(secrets.token_hex(8), 0, 1, key, (name,))
        self.ended = asyncio.Event()
        self.away: list[tuple[AwayCode, str]] = []
        """What the relay said when it sent this link away."""
        self.closed: tuple[int, str] | None = None
        """Code and reason of the WebSocket's close."""
        self.refused: list[str] = []
        """Code of each REFUSED."""
        self.heard: Counter[int] = Counter()
        """Frames that came, by their type."""
        self.credit: Counter[int] = Counter()
        """Bytes that it may send more, by stream."""
        self._port = port
        self._on_open = on_open
        self._welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.client = await RawClient.connect(self._port)
        self.client.send(UPGRADE)
        assert (await self.client.head()).status == 101
        self.say(frames.encode(frames.HELLO, 0, encode_hello(self.hello)))
        self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout(5):
            await self._welcome
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.deaf()
        self.client.reset()

    def say(self, *said: bytes) -> None:
        """Frames, in one message, whatever they are."""
        self.client.send(message(b"".join(said)))

    async def pour(self, raw: bytes, times: int) -> int:
        """The same bytes again and again, until the relay has ended the link; how often it took them.

        By a descriptor of their own: what the relay said is still read when it takes no more.
        """
        loop, number = asyncio.get_running_loop(), 0
        fd = self.client.stream.transport.get_extra_info("socket").fileno()
        with contextlib.suppress(OSError, TimeoutError), socket.socket(fileno=os.dup(fd)) as sock:
            while number < times and not self.ended.is_set():
                async with asyncio.timeout(POUR_WITHIN):
                    await loop.sock_sendall(sock, raw)
                number += 1
        return number

    def deaf(self) -> None:
        """Reads nothing more, so that the relay's bytes pile up."""
        if self._reading is not None:
            self._reading.cancel()
        if not self.client.stream.transport.is_closing():
            self.client.stream.pause()

    async def verdict(self, within: float = 5.0) -> str:
        """How the relay ended this link: what it said last, by GOING_AWAY or else by the WebSocket's close."""
        async with asyncio.timeout(within):
            await self.ended.wait()
        if self.away:
            return f"{self.away[-1][0].name}: {self.away[-1][1]}"
        return CUT if self.closed is None else f"{self.closed[0]}: {self.closed[1]}"

    async def _read(self) -> None:
        stream = self.client.stream
        try:
            while True:
                first, size = await stream.exactly(2)
                if size >= 126:
                    size = int.from_bytes(await stream.exactly(2 if size == 126 else 8), "big")
                payload = await stream.exactly(size)
                if first & 15 == CLOSE:
                    self.closed = int.from_bytes(payload[:2], "big"), payload[2:].decode()
                elif first & 15 == BINARY:
                    for kind, number, body in decode(memoryview(payload)):
                        self._take(kind, number, body)
        except EndOfBytes:
            self.ended.set()
            if not self._welcome.done():
                self._welcome.set_exception(ConnectionError(f"not admitted: {self.refused}"))

    def _take(self, kind: int, number: int, payload: memoryview) -> None:
        self.heard[kind] += 1
        if kind == frames.PING:
            self.say(frames.encode(frames.PONG, 0, bytes(payload)))
        elif kind == frames.CREDIT:
            self.credit[number] += frames.decode_credit(payload)
        elif kind == frames.WELCOME:
            self._welcome.set_result(None)
        elif kind == frames.REFUSED:
            self.refused.append(decode_refused(bytes(payload)).code)
        elif kind == frames.GOING_AWAY:
            code, _, detail = frames.decode_going_away(payload)
            self.away.append((AwayCode(code), detail))
        elif kind & ~frames.END_FLAG == frames.OPEN and self._on_open is not None:
            self._on_open(self, number)
