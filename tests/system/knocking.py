"""Many strangers at a relay's agents' listener, from a process of their own: so many a second, and what each was told.

The process reads one JSON command a line on stdin and answers each on stdout; it ends when stdin does. Every hello has
a connection of its own, as a relay ends it with its refusal, and comes from an address of its own, for a relay that
is `TRUSTING`; requests to the API follow one another on a few.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from relay.wire import frames
from relay.wire.hello import PATH, SUBPROTOCOL, Hello, encode_hello
from tests.support.child import Child
from tests.support.faultprocess import run_loop, say
from tests.system.asker import Asker

# Below what a relay lets strangers of one address have open at once.
MOST_AT_ONCE = 40
KEPT = 8
UPGRADE = (
    f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
    f"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
).encode()
# As a proxy that is trusted names them: from one address a relay takes only so many hellos that it has to refuse.
TRUSTING = ("--trusted-proxies", "127.0.0.1/32")
FROM_ONE_NETWORK = 5000
BARE = b""
"""Instead of a hello: nothing, the connection is ended when the handshake is done."""
WELCOMED = b'{"session":'
_CODE = re.compile(rb'"(?:code|error)":\s?"([a-z_]+)"')


def hello_of(key: str, version: int = 1, name: str = "knock") -> bytes:
    """A hello with this key as a client's WebSocket message (masked with zeros)."""
    payload = frames.encode(frames.HELLO, 0, encode_hello(Hello("stranger", 0, 1, key, (name,), (version,))))
    length = len(payload)
    size = bytes((0x80 | length,)) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return b"\x82" + size + bytes(4) + payload


def request_of(bearer: str | None, target: str = "/api/v1/whoami") -> bytes:
    """A request to the API."""
    field = "" if bearer is None else f"Authorization: Bearer {bearer}\r\n"
    return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{field}\r\n".encode()


@dataclass(frozen=True, slots=True)
class Knocked:
    """What came of it."""

    seconds: float
    answers: Counter[str]
    """By the code of the refusal, or `welcome`; for requests with the status before it."""


class Knocker(Child):
    """`async with Knocker() as knocker: await knocker.hellos(port, [hello_of(key), …], 1000)`."""

    def __init__(self) -> None:
        super().__init__([sys.executable, "-m", "tests.system.knocking"], name="knocker")
        self._numbers = itertools.count(1)

    async def hellos(self, port: int, hellos: Sequence[bytes], count: int, rate: float = 1000.0) -> Knocked:
        """So many of them in turn, so many a second or as fast as it goes."""
        return await self._do("hellos", port, hellos, count, rate)

    async def requests(self, port: int, requests: Sequence[bytes], count: int, rate: float = 1000.0) -> Knocked:
        """Requests, likewise."""
        return await self._do("requests", port, requests, count, rate)

    async def _do(self, what: str, port: int, raw: Sequence[bytes], count: int, rate: float) -> Knocked:
        number, seen = next(self._numbers), len(self.events)
        texts = [base64.b64encode(one).decode() for one in raw]
        command = {"id": number, "do": what, "port": port, "raw": texts, "count": count, "rate": rate}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.process.stdin.drain()
        done = await self.wait_event(lambda event: event.get("id") == number, 60 + 3 * count / rate, after=seen)
        return Knocked(float(done["seconds"]), Counter(done["answers"]))


# ---- in the process


class _Stranger(asyncio.Protocol):
    """Shakes hands, says hello, and keeps what it is told until the relay ends the connection."""

    def __init__(self, hello: bytes, number: int) -> None:
        self.hello: bytes | None = hello
        self._named = f"X-Forwarded-For: {_address(number)}\r\n\r\n".encode()
        self.heard = b""
        self.gone: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(UPGRADE + self._named)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self.hello is not None and b"\r\n\r\n" in self.heard:
            if self.hello:
                self._transport.write(self.hello)
            else:
                self._transport.close()
            self.hello = None
        elif WELCOMED in self.heard:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(self.heard)


class _Caller(Asker):
    """One that takes the end of its connection for an answer of a status that there is not."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting is not None:
            self.waiting.set_result(b"HTTP/1.1 000 lost")


def _address(number: int) -> str:
    """Of the stranger with this number: 250 of one network take turns, so that none of them comes often."""
    return f"198.18.{number // FROM_ONE_NETWORK % 256}.{number % 250 + 1}"


async def _hello(port: int, raw: bytes, number: int, callers: asyncio.Queue[_Caller]) -> bytes:
    loop = asyncio.get_running_loop()
    _, stranger = await loop.create_connection(lambda: _Stranger(raw, number), "127.0.0.1", port)
    return await stranger.gone


async def _request(port: int, raw: bytes, number: int, callers: asyncio.Queue[_Caller]) -> bytes:
    caller = await callers.get()
    if caller.transport.is_closing():
        caller = await _call(port)
    try:
        return await caller.ask(raw)
    finally:
        callers.put_nowait(caller)


async def _call(port: int) -> _Caller:
    _, caller = await asyncio.get_running_loop().create_connection(_Caller, "127.0.0.1", port)
    return caller


async def _knock(command: dict[str, Any], knocked: int) -> None:
    loop = asyncio.get_running_loop()
    raw = [base64.b64decode(text) for text in command["raw"]]
    port, count, rate, hellos = command["port"], command["count"], command["rate"], command["do"] == "hellos"
    callers: asyncio.Queue[_Caller] = asyncio.Queue()
    for _ in range(0 if hellos else KEPT):
        callers.put_nowait(await _call(port))
    do, room, heard = _hello if hellos else _request, asyncio.Semaphore(MOST_AT_ONCE), []

    async def one(number: int) -> None:
        async with room:
            heard.append(await do(port, raw[number % len(raw)], number, callers))

    began, tasks = loop.time(), []
    for number in range(count):
        tasks.append(loop.create_task(one(knocked + number)))
        early = began + number / rate - loop.time()
        if early > 0.001:
            await asyncio.sleep(early)
    await asyncio.gather(*tasks)
    seconds = loop.time() - began
    while not callers.empty():
        callers.get_nowait().transport.close()
    say(id=command["id"], seconds=seconds, answers=Counter(_word(one, hellos) for one in heard))


def _word(heard: bytes, hellos: bool) -> str:
    head, _, rest = heard.partition(b"\r\n\r\n")
    code = _CODE.search(rest)
    word = code[1].decode() if code is not None else "welcome" * (WELCOMED in rest)
    return word if hellos else f"{head.split(b' ')[1].decode()} {word}".strip()


async def _main() -> None:
    knocked = 0
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):  # of any length
        command = json.loads(line)
        await _knock(command, knocked)
        knocked += command["count"]


if __name__ == "__main__":
    os.nice(5)  # what is looked at is the relay and its visitors
    run_loop(_main())
