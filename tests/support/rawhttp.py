"""Raw HTTP/1.1 on both ends: a client that sends what it is given, a server that shows what it got.

    async with await RawClient.connect(port) as client:
        client.send(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        response = await client.response()

    async with RawServer(handler) as server: ...

Neither adds, corrects nor hides a byte, so what a test compares is what was on the wire. Every wait of the client has
a deadline. A handler gets a `Request` and gives raw bytes, or an (async) iterator of raw bytes and commands.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Self

from tests.support.child import eventually
from tests.support.messages import Body, Framing, Head, Headers, Malformed, Response, framing, read_head, read_response
from tests.support.rawstream import End, EndOfBytes, RawStream

NONCE = "x-nonce"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RawClient:
    """A visitor made of bytes; `timeout` (seconds) bounds each wait."""

    def __init__(self, stream: RawStream, timeout: float) -> None:
        self.stream = stream
        self.timeout = timeout

    @classmethod
    async def connect(
        cls, port: int, host: str = "127.0.0.1", timeout: float = 10.0, source: str | None = None
    ) -> Self:
        """Connect, from the address `source` of this machine (127.0.0.2, say) or any; raises OSError."""
        loop = asyncio.get_running_loop()
        local = None if source is None else (source, 0)
        async with asyncio.timeout(timeout):
            _, stream = await loop.create_connection(RawStream, host, port, local_addr=local)
        return cls(stream, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Write bytes."""
        self.stream.write(data)

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write bytes and wait until the kernel takes more; raises EndOfBytes when the peer is gone."""
        async with asyncio.timeout(self.timeout):
            await self.stream.send(data)

    async def until(self, mark: bytes) -> bytes:
        """Read up to and with `mark`; raises EndOfBytes."""
        async with asyncio.timeout(self.timeout):
            return await self.stream.until(mark)

    async def exactly(self, count: int) -> bytes:
        """Read `count` bytes; raises EndOfBytes."""
        async with asyncio.timeout(self.timeout):
            return await self.stream.exactly(count)

    async def head(self) -> Head:
        """Read one head, interim or final."""
        async with asyncio.timeout(self.timeout):
            return await read_head(self.stream)

    async def response(self, method: bytes = b"GET") -> Response:
        """Read one response with its interim heads and body."""
        async with asyncio.timeout(self.timeout):
            return await read_response(self.stream, method)

    async def rest(self) -> tuple[bytes, End]:
        """Read to the end; how it ended."""
        async with asyncio.timeout(self.timeout):
            return await self.stream.rest()

    def body(self, head: Head, method: bytes = b"GET") -> Body:
        """The body after a head, to be read piece by piece (deadlines are the caller's)."""
        kind, length = framing(head, request=False, method=method)
        return Body(self.stream, kind, length)

    def fin(self) -> None:
        """End our bytes."""
        self.stream.fin()

    def reset(self) -> None:
        """Leave with a TCP reset."""
        self.stream.reset()

    def close(self) -> None:
        """Leave."""
        self.stream.close()


async def exchange(port: int, request: bytes, timeout: float = 10.0) -> Response:
    """Send the bytes of one request on a new connection and read its response."""
    async with await RawClient.connect(port, timeout=timeout) as client:
        client.send(request)
        return await client.response(request.partition(b" ")[0])


class Command(Enum):
    """What a handler may yield beside bytes."""

    RESET = auto()
    FIN = auto()
    CLOSE = auto()


RESET, FIN, CLOSE = Command.RESET, Command.FIN, Command.CLOSE


@dataclass(frozen=True, slots=True)
class Wait:
    """Yielded by a handler: go on once the event is set, or the client left."""

    event: asyncio.Event


Step = bytes | memoryview | Command | Wait
Steps = bytes | Iterable[Step] | AsyncIterator[Step]
Reply = Steps | Awaitable[Steps]


@dataclass(slots=True, eq=False)
class Request:
    """A request as it came. `body`, `trailers` and `raw` are filled once it was read (`RawServer(early=True)`: by the
    handler, which iterates `reader` or awaits `read()`). `left` is set when the client left, `stream.ended` says how.
    """

    head: Head
    framing: Framing
    reader: Body
    stream: RawStream
    body: bytes = b""
    raw: bytes = b""
    broken: str | None = None
    """How the body broke off: eof, reset, closed or malformed; None when it did not."""
    at: float = field(default_factory=time.monotonic)

    @property
    def method(self) -> bytes:
        """First word of the request line."""
        return self.head.line.split(b" ")[0]

    @property
    def target(self) -> bytes:
        """Second word of the request line."""
        return self.head.line.split(b" ")[1]

    @property
    def headers(self) -> Headers:
        """Headers of the head."""
        return self.head.headers

    @property
    def trailers(self) -> Headers:
        """Trailers of the body."""
        return self.reader.trailers

    @property
    def left(self) -> asyncio.Event:
        """Set once the client ended its side or is gone."""
        return self.stream.left

    async def read(self) -> bytes:
        """Read the body; raises EndOfBytes or Malformed."""
        pieces: list[bytes] = []
        try:
            async for piece in self.reader:
                pieces.append(piece)
        except EndOfBytes as end:
            self.broken = end.how
            raise
        except Malformed:
            self.broken = "malformed"
            raise
        finally:
            self.body = b"".join(pieces)
            self.raw = bytes(self.stream.tape)
        return self.body


@dataclass(frozen=True, slots=True)
class Departure:
    """A client that left: when (monotonic seconds), how, and the request in hand or last served (None: none)."""

    at: float
    how: End
    request: Request | None


class RawServer:
    """A local service made of bytes, on a free port of 127.0.0.1.

    With `early` the handler is called at the head and reads the body itself; without, after the body, and a client
    that expects it is sent `100 Continue`. The connection is kept for the next request unless the handler ended it.
    """

    def __init__(self, handler: Callable[[Request], Reply], *, early: bool = False) -> None:
        self.port = 0
        self.requests: deque[Request] = deque(maxlen=20_000)
        self.departures: list[Departure] = []
        self.deliveries: Counter[bytes] = Counter()
        """Heads received, by the value of X-Nonce."""
        self.connections = 0
        self.failures: list[BaseException] = []
        """What handlers raised; raised again when the server is left."""
        self._handler = handler
        self._early = early
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: RawStream(self._connected), "127.0.0.1", self.port, backlog=2048
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.close()
        if self.failures and error is None:
            raise self.failures[0]

    async def close(self) -> None:
        """Stop listening and reset what is open; connects to the port are refused from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def departure(self, timeout: float = 5.0, index: int = 0) -> Departure:
        """The first client that left (or the one with this index); raises AssertionError after `timeout` seconds."""
        await eventually(lambda: len(self.departures) > index, timeout)
        return self.departures[index]

    async def received(self, count: int = 1, timeout: float = 5.0) -> Request:
        """Wait until `count` heads were received; the last of them."""
        await eventually(lambda: len(self.requests) >= count, timeout)
        return self.requests[count - 1]

    def _connected(self, stream: RawStream) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: RawStream) -> None:
        watch = asyncio.create_task(stream.left.wait())
        current: list[Request] = []
        watch.add_done_callback(lambda _: self._left(stream, current))
        try:
            while not stream.transport.is_closing() and await self._one(stream, current):
                pass
            stream.close()
        except (EndOfBytes, Malformed, ValueError):
            stream.close()
        except asyncio.CancelledError:
            stream.reset()
            raise
        except Exception as error:
            self.failures.append(error)
            stream.reset()
        finally:
            if not stream.left.is_set():
                watch.cancel()

    def _left(self, stream: RawStream, current: list[Request]) -> None:
        if stream.ended is not None and stream.ended != "closed":
            self.departures.append(Departure(stream.ended_at, stream.ended, current[-1] if current else None))

    async def _one(self, stream: RawStream, current: list[Request]) -> bool:
        """Serve one request; whether the connection may carry another."""
        stream.start_tape()
        head = await read_head(stream)
        kind, length = framing(head, request=True)
        request = Request(head, kind, Body(stream, kind, length), stream, raw=head.raw)
        current[:] = [request]
        self.requests.append(request)
        if nonce := head.get(NONCE):
            self.deliveries[nonce] += 1
        if not self._early:
            if (head.get("expect") or b"").lower() == b"100-continue":
                stream.write(CONTINUE)
            await request.read()
        going_on = await self._answer(request)
        if going_on and not request.reader.complete:
            async for _piece in request.reader:
                pass
        return going_on

    async def _answer(self, request: Request) -> bool:
        reply = self._handler(request)
        if inspect.isawaitable(reply):
            reply = await reply
        if isinstance(reply, (bytes, memoryview)):
            reply = [reply]
        if isinstance(reply, AsyncIterator):
            async for step in reply:
                if not await self._step(request.stream, step):
                    return False
        else:
            assert isinstance(reply, Iterable)
            for step in reply:
                if not await self._step(request.stream, step):
                    return False
        return True

    async def _step(self, stream: RawStream, step: Step) -> bool:
        if isinstance(step, Wait):
            await _first(step.event, stream.left)
        elif step is RESET:
            stream.reset()
            return False
        elif step is FIN:
            stream.fin()
        elif step is CLOSE:
            stream.close()
            return False
        else:
            assert isinstance(step, (bytes, memoryview))
            await stream.send(step)
        return True


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def chunk(data: bytes | memoryview) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n" % len(data) + data + b"\r\n"


def ok(body: bytes = b"", *headers: tuple[str, str], status: str = "200 OK") -> bytes:
    """A plain response with a length, as raw bytes."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
