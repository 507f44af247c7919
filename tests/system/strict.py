"""Strict visitors in a process of their own, for a relay that is replaced under them: whatever goes wrong is a failure.

So many short requests a second on kept connections, each with a nonce that its answer must bring back, and beside them
uploads, event streams and WebSockets of about a second each. A connection that was not told `Connection: close` must
not close; a new one must be taken; every answer must be whole.

    async with Strict(port, host, ws_host, rate=300) as strict:
        ...
        seen = await strict.told()      from the start until now; those under way are waited for
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import websockets.asyncio.client
from websockets.exceptions import WebSocketException

from tests.support.child import Child
from tests.support.faultprocess import run_loop, say, stdin_lines
from tests.system.asker import Asker

DEADLINE = 20.0
LONG_EVERY = 0.25
"""Seconds between two of each long kind."""
PIECES = 10
PAUSE = 0.1
_CLOSE = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of all requests so far."""

    short: int
    failed: dict[str, int]
    """Of the short ones, by what happened."""
    long: dict[str, int]
    """How many uploads, event streams and WebSockets."""
    long_failed: dict[str, int]
    told_to_close: int
    """Answers with `Connection: close`."""
    p99: float
    worst: float
    """Seconds from a short request to its whole answer."""


class Strict(Child):
    """See the first lines."""

    def __init__(self, port: int, host: str, ws_host: str, rate: float) -> None:
        argv = [sys.executable, "-m", "tests.system.strict", str(port), host, ws_host, str(rate)]
        super().__init__(argv, name="strict visitors")

    async def start(self) -> None:
        """Start; visitors are served when this returns."""
        await super().start()
        await self.wait_event("served")

    async def asked(self, count: int, timeout: float) -> None:
        """Until so many short requests were answered, or failed."""
        await self.wait_event(lambda event: event.get("answered", 0) >= count, timeout)

    async def told(self) -> Seen:
        """Stops asking, waits for what is under way, and tells. Once."""
        assert self.process.stdin is not None
        self.process.stdin.write_eof()
        event = await self.wait_event("told", 2 * DEADLINE)
        return Seen(**event["seen"])


# ---- in the process


class _Failed(Exception):
    """What a visitor saw that it should not have seen."""


class _Connection(Asker):
    """One whose end is never as it should be, unless it was asked for."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        super().__init__()
        self._failed = failed
        self.open = True

    async def ask(self, request: bytes) -> bytes:
        """The whole answer. Raises `_Failed`."""
        answer = await super().ask(request)
        if _CLOSE.search(answer):
            self.close()
        return answer

    def close(self) -> None:
        self.open = False
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting is not None:
            self.waiting.set_exception(_Failed("reset" if exc else "closed without an answer"))
        elif self.open:
            self._failed("closed while idle")
        self.open = False


class _Visitors:
    """All of them, and what they saw."""

    def __init__(self, port: int, host: str, ws_host: str, rate: float) -> None:
        self._port, self._host, self._ws_host, self._rate = port, host, ws_host, rate
        self._idle: deque[_Connection] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._took: list[float] = []
        self._failed: Counter[str] = Counter()
        self._long: Counter[str] = Counter()
        self._long_failed: Counter[str] = Counter()
        self._told_to_close = 0
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`."""
        await self._short(0)
        say(event="served")
        long = {"upload": self._upload, "events": self._events, "websocket": self._websocket}
        asking = [self._every(1 / self._rate, self._short)]
        asking += [self._every(LONG_EVERY, partial(self._one_long, kind, do)) for kind, do in long.items()]
        await asyncio.gather(*asking)
        await asyncio.gather(*self._tasks)
        for connection in self._idle:
            connection.close()
        took = sorted(self._took)
        say(
            event="told",
            seen={
                "short": len(took),
                "failed": self._failed,
                "long": self._long,
                "long_failed": self._long_failed,
                "told_to_close": self._told_to_close,
                "p99": took[int(len(took) * 0.99)],
                "worst": took[-1],
            },
        )

    def stop(self) -> None:
        self._stopped.set()

    async def _every(self, pause: float, do: Callable[[int], Awaitable[None]]) -> None:
        """At its own times, whether or not earlier ones are done."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in itertools.count(1):
            try:
                async with asyncio.timeout_at(began + number * pause):
                    await self._stopped.wait()
                return
            except TimeoutError:
                task = asyncio.ensure_future(do(number))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    # ---- short ones

    async def _short(self, number: int) -> None:
        began = time.monotonic()
        nonce = b"%d" % number
        try:
            async with asyncio.timeout(DEADLINE):
                connection = await self._connection()
                answer = await connection.ask(
                    b"POST /count HTTP/1.1\r\nHost: %b\r\nX-Nonce: %b\r\nContent-Length: 5\r\n\r\nhello"
                    % (self._host.encode(), nonce)
                )
            word = _word(answer, nonce)
            self._told_to_close += not connection.open
            if connection.open:
                self._idle.append(connection)
        except _Failed as failed:
            word = str(failed)
        except OSError as error:
            word = f"no connection: {error.strerror}"
        except TimeoutError:
            word = "late"
        if word:
            self._failed[word] += 1
        self._took.append(time.monotonic() - began)
        if len(self._took) % 100 == 0:
            say(answered=len(self._took))

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.popleft()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        connection = _Connection(self._fail)
        await loop.create_connection(lambda: connection, "127.0.0.1", self._port)
        return connection

    def _fail(self, word: str) -> None:
        self._failed[word] += 1

    # ---- long ones

    async def _one_long(self, kind: str, do: Callable[[], Awaitable[None]], number: int) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                await do()
        except (_Failed, OSError, EOFError, TimeoutError, WebSocketException) as error:
            self._long_failed[f"{kind}: {error!r}"] += 1
        self._long[kind] += 1

    async def _upload(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(
                b"POST /sink?hash=none HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                % (self._host.encode(), PIECES * 4096)
            )
            for _ in range(PIECES):
                writer.write(b"x" * 4096)
                await writer.drain()
                await asyncio.sleep(PAUSE)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 ") or json.loads(body)["bytes"] != PIECES * 4096:
                raise _Failed(head[:100].decode("latin-1"))
        finally:
            writer.close()

    async def _events(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            target = b"/sse?count=%d&every=%g" % (PIECES, PAUSE)
            writer.write(b"GET %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (target, self._host.encode()))
            told = await reader.readuntil(b"\r\n0\r\n\r\n")
            if not told.startswith(b"HTTP/1.1 200 ") or told.count(b"\ndata: ") != PIECES:
                raise _Failed(told[:100].decode("latin-1"))
        finally:
            writer.close()

    async def _websocket(self) -> None:
        uri = f"ws://{self._ws_host}:{self._port}/"
        async with websockets.asyncio.client.connect(
            uri, host="127.0.0.1", port=self._port, proxy=None, ping_interval=None
        ) as socket:
            for number in range(PIECES):
                await socket.send(str(number))
                if await socket.recv() != str(number):
                    raise _Failed("another's message")
                await asyncio.sleep(PAUSE)


def _word(answer: bytes, nonce: bytes) -> str:
    """Empty for the answer that belongs to this nonce, else what it was."""
    status = answer.split(b" ", 2)[1].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "nonsense"
    if status != "200":
        code = re.search(rb"\r\nRelay-Error: (\w+)", answer)
        return f"{status} {code[1].decode() if code else ''}"
    told: Any = json.loads(answer.partition(b"\r\n\r\n")[2])
    return "" if told == {"nonce": nonce.decode(), "deliveries": 1} else "somebody else's answer"


async def _main() -> None:
    port, host, ws_host, rate = sys.argv[1:]
    visitors = _Visitors(int(port), host, ws_host, float(rate))
    running = asyncio.ensure_future(visitors.run())
    await (await stdin_lines()).read()
    visitors.stop()
    await running


if __name__ == "__main__":
    run_loop(_main())
