"""Very many agents in one process, each as light as an agent can be: for what only their number shows.

    async with Crowd(Orders(agents_port, key_file, names)) as crowd:
        await crowd.up()

Each keeps its links up as the product's agents do, with their delays and deadlines, and answers a GET at once with its
nonce, itself. The bytes are made with the wire's codec; HTTP and WebSocket are the few lines below, because a thousand
whole agents in one process would time out on each other. To a relay that trusts 127.0.0.1 as a proxy each comes from an
address of its own. Knows no fault: what it sends is always right.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import secrets
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from relay.agent.backoff import Backoff
from relay.agent.link import ATTEMPT_WITHIN
from relay.exchange.heads import ResponseHead, decode_request, encode_response
from relay.wire import frames
from relay.wire.hello import PATH, SUBPROTOCOL, Hello, Refused, decode_refused, encode_hello
from tests.support.child import Child
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.support.framing import decode

UP_WITHIN = 120.0
_UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\nX-Forwarded-For: %s\r\n\r\n"
)
_BINARY, _CLOSE, _PING = 2, 8, 9


@dataclass(frozen=True, slots=True)
class Orders:
    """What a crowd is told at its start: each of `names` is one agent's; so many of them begin in a second."""

    port: int
    key_file: str
    names: tuple[str, ...]
    links: int = 2
    a_second: float = 200.0


class Crowd(Child):
    """The process; `start` returns once it runs, not once its agents are up."""

    def __init__(self, orders: Orders) -> None:
        super().__init__([sys.executable, "-m", "tests.system.crowd", json.dumps(asdict(orders))], name="crowd")

    async def up(self, after: int = 0, timeout: float = UP_WITHIN) -> tuple[float, dict[str, int]]:
        """When (monotonic) every agent had a link, from event `after` on; and refusals so far, by their code."""
        event = await self.wait_event("up", timeout, after)
        return float(event["at"]), event["refused"]


class Failed(Exception):
    """An attempt came to nothing; `wait` is what the relay asked for, in seconds."""

    def __init__(self, code: str, wait: float = 0.0) -> None:
        super().__init__(code)
        self.code = code
        self.wait = wait


class Link(asyncio.Protocol):
    """One connection: its handshake, its hello, and answers to whatever is asked."""

    def __init__(self, hello: Hello, address: str) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._hello = hello
        self._address = address
        self._buffer = bytearray()
        self._transport: asyncio.Transport
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write((_UPGRADE % self._address).encode())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            status = head.split()[1].decode()
            if status != "101":
                asked = re.search(rb"\r\nRetry-After: (\d+)", head)
                self._fail(Failed(f"HTTP {status}", float(asked[1]) if asked else 0.0))
                return
            self._upgraded = True
            self._buffer = bytearray(rest)
            self._send(frames.encode(frames.HELLO, 0, encode_hello(self._hello)))
        while (message := self._next()) is not None:
            kind, payload = message
            if kind == _BINARY:
                for each in decode(memoryview(payload)):
                    self._take(*each)
            elif kind == _PING:
                self._write(_PING + 1, payload)
            elif kind == _CLOSE:
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(Failed("lost"))
            self.answer.exception()
        if not self.ended.done():
            self.ended.set_result(None)

    def abort(self) -> None:
        """Leave."""
        self._transport.abort()

    def _fail(self, why: Failed) -> None:
        if not self.answer.done():
            self.answer.set_exception(why)
        self._transport.close()

    def _next(self) -> tuple[int, bytes] | None:
        """The next WebSocket frame: its opcode and payload."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, at = buffer[1], 2
        if size >= 126:
            at = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:at])
        if len(buffer) < at + size:
            return None
        message = buffer[0] & 15, bytes(buffer[at : at + size])
        del buffer[: at + size]
        return message

    def _send(self, message: bytes) -> None:
        self._write(_BINARY, message)

    def _write(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
        self._transport.write(bytes((0x80 | kind,)) + length + b"\0\0\0\0" + payload)  # a mask of zeros

    def _take(self, kind: int, stream: int, payload: memoryview) -> None:
        if kind == frames.PING:
            self._send(frames.encode(frames.PONG, 0, bytes(payload)))
        elif kind == frames.WELCOME and not self.answer.done():
            self.answer.set_result(None)
        elif kind == frames.REFUSED:
            refused: Refused = decode_refused(bytes(payload))
            self._fail(Failed(refused.code, refused.retry_after or 0.0))
        elif kind == frames.OPEN_END:
            nonce = next((value for name, value in decode_request(bytes(payload)).fields if name == b"X-Nonce"), b"")
            body = b"%b 0" % nonce
            head = encode_response(ResponseHead(200, b"OK", [(b"Content-Length", b"%d" % len(body))]))
            self._send(frames.encode(frames.HEAD, stream, head) + frames.encode(frames.DATA_END, stream, body))


class Agents:
    """All agents of this process, and how many of them have a link."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._key = Path(orders.key_file).read_text().strip()
        self._links = dict.fromkeys(orders.names, 0)
        self._up = 0
        self._refused: Counter[str] = Counter()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            for number, name in enumerate(self._orders.names):
                instance, address = secrets.token_hex(8), f"10.0.{number // 250}.{number % 250 + 1}"
                for slot in range(self._orders.links):
                    group.create_task(self._keep_up(Hello(instance, slot, 0, self._key, (name,)), address))
                await asyncio.sleep(1 / self._orders.a_second)

    async def _keep_up(self, hello: Hello, address: str) -> None:
        loop, name = asyncio.get_running_loop(), hello.names[0]
        backoff, outage = Backoff(random.random), loop.time()
        while True:
            hello, wait = replace(hello, generation=hello.generation + 1), 0.0
            try:
                link = await self._open(Link(hello, address))
            except Failed as failure:
                self._refused[failure.code] += 1
                wait = failure.wait
            else:
                self._count(name, 1)
                await link.ended
                self._count(name, -1)
                outage = loop.time()
                backoff.reset()
            await asyncio.sleep(max(backoff.next(loop.time() - outage), wait))

    async def _open(self, link: Link) -> Link:
        """The same, once it was welcomed. Raises Failed."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ATTEMPT_WITHIN):
                await loop.create_connection(lambda: link, "127.0.0.1", self._orders.port)
                await link.answer
        except TimeoutError:
            link.abort()
            raise Failed("late") from None
        except OSError:
            raise Failed("no connection") from None
        return link

    def _count(self, name: str, more: int) -> None:
        before = self._links[name] > 0
        self._links[name] += more
        after = self._links[name] > 0
        self._up += after - before
        if after and not before and self._up == len(self._links):
            say(event="up", at=time.monotonic(), refused=dict(self._refused))
            self._refused.clear()


async def _main(text: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    running = asyncio.create_task(Agents(Orders(**json.loads(text))).run())
    say(event="started")
    ending = asyncio.create_task((await stdin_lines()).read())
    await asyncio.wait({running, ending}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    await asyncio.wait({running})
    if not running.cancelled() and (error := running.exception()) is not None:
        raise error


if __name__ == "__main__":
    run_loop(_main(sys.argv[1]))
