"""The scripted exchanges, each with the unit that its calls are divided by. All heads are those of common programs.

`small` sends the same head again and again, as load makers do; `varied` sends one that was never seen before, as people
do. A guard on the first alone would let the second grow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.cost.count import Count, counting
from bench.cost.ends import FakeTransport
from bench.cost.world import HOST, CostLoop, World
from bench.loads.wire import end_of_head

WARM = 20
UNITS = 96
TOGETHER = 32
PIECE = 256 * 1024
MIB = 2**20
BULK = 16 * MIB
_BROWSER = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: application/json, text/event-stream\r\nAccept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: http://%s/page\r\nCookie: session=0123456789abcdef\r\n"
) % HOST.encode()
_SMALL = b"HTTP/1.1 200 OK\r\nServer: local\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n" + b"x" * 128
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2}}}'
_SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def get(path: str, fields: bytes = b"") -> bytes:
    """A GET's head."""
    return b"GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (path.encode(), HOST.encode(), fields)


_UPGRADE = get(
    "/echo",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
)


def answering(answer: bytes) -> Callable[[FakeTransport], None]:
    """A local service that answers each whole request, its body included, in the next turn."""

    def respond(one: FakeTransport) -> None:
        end = end_of_head(one.written)
        if end and (not one.written.startswith(b"POST") or len(one.written) >= end + len(_BODY)):
            one.written.clear()
            asyncio.get_running_loop().call_soon(one.feed, answer)

    return respond


async def _exchanges(world: World, requests: list[bytes], together: int = 1) -> Count:
    """So many visitors at once, each with the next request of the list; those before `WARM` are not counted."""
    world.loop.respond = answering(_SMALL)
    visitors = [world.visitor() for _ in range(together)]
    step = [requests[at : at + together] for at in range(0, len(requests), together)]

    async def one(batch: list[bytes]) -> None:
        for visitor, request in zip(visitors, batch, strict=True):
            visitor.written.clear()
            visitor.feed(request)
        await world.until(lambda: all(visitor.written.endswith(b"x" * 128) for visitor in visitors))

    for batch in step[: WARM // together + 1]:
        await one(batch)
    with counting() as count:
        for batch in step[WARM // together + 1 :]:
            await one(batch)
    return count


def _lead(together: int = 1) -> int:
    """Requests that are sent before counting begins."""
    return (WARM // together + 1) * together


async def small(world: World) -> Count:
    """The same GET again and again, one at a time."""
    return await _exchanges(world, [get("/small")] * (_lead() + UNITS))


async def small_together(world: World) -> Count:
    """The same GET, 32 visitors in one turn of the loop."""
    total = _lead(TOGETHER) + UNITS // TOGETHER * TOGETHER
    return await _exchanges(world, [get("/small")] * total, TOGETHER)


async def varied(world: World) -> Count:
    """A browser's GET, each to another path with another cookie."""
    requests = [
        get(f"/items/{number}?page={number}", _BROWSER.replace(b"0123456789abcdef", b"%016x" % number))
        for number in range(_lead() + UNITS)
    ]
    return await _exchanges(world, requests)


async def post(world: World) -> Count:
    """A JSON-RPC call, as MCP clients send it; each with another id."""
    head = b"POST /mcp HTTP/1.1\r\nHost: %s\r\n%sMcp-Session-Id: %016x\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n"
    requests = [head % (HOST.encode(), _BROWSER, number, len(_BODY)) + _BODY for number in range(_lead() + UNITS)]
    return await _exchanges(world, requests)


async def _open(world: World, request: bytes, head: bytes) -> tuple[FakeTransport, FakeTransport]:
    """(visitor, local service) of one exchange whose response head has come through."""
    asked: list[FakeTransport] = []

    def respond(one: FakeTransport) -> None:
        if not asked and end_of_head(one.written):
            asked.append(one)
            one.written.clear()
            asyncio.get_running_loop().call_soon(one.feed, head)

    world.loop.respond = respond
    visitor = world.visitor()
    visitor.feed(request)
    await world.until(lambda: end_of_head(visitor.written))
    visitor.written.clear()
    return visitor, asked[0]


async def event(world: World) -> Count:
    """One server-sent event on an open stream."""
    visitor, local = await _open(world, get("/events"), _STREAM)
    with counting() as count:
        for _ in range(UNITS):
            before = visitor.total
            local.feed(b"10\r\ndata: 123456789\n\r\n")
            await world.until(lambda before=before: visitor.total > before)  # type: ignore[misc]
    return count


async def message(world: World) -> Count:
    """One small WebSocket message each way on an open connection."""
    visitor, local = await _open(world, _UPGRADE, _SWITCHED)
    with counting() as count:
        for _ in range(UNITS):
            before = visitor.total, local.total
            visitor.feed(b"m" * 134)
            await world.until(lambda before=before: local.total > before[1])  # type: ignore[misc]
            local.feed(b"m" * 130)
            await world.until(lambda before=before: visitor.total > before[0])  # type: ignore[misc]
    return count


async def _move(world: World, source: FakeTransport, sink: FakeTransport) -> Count:
    """BULK bytes from one end to the other, read in pieces as a loop reads them."""
    source.keep = sink.keep = False
    piece = bytes(PIECE)
    goal = sink.total + BULK
    with counting() as count:
        for _ in range(BULK // PIECE):
            await world.until(lambda: not source.paused)
            source.feed(piece)
            await asyncio.sleep(0)
        await world.until(lambda: sink.total >= goal)
    return count


async def download(world: World) -> Count:
    """A large answer of known length."""
    visitor, local = await _open(world, get("/bulk"), b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BULK)
    return await _move(world, local, visitor)


async def upload(world: World) -> Count:
    """A large request of known length."""
    request = b"POST /sink HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n" % (HOST.encode(), BULK)
    started: list[FakeTransport] = []
    world.loop.respond = lambda one: started.append(one) if not started else None
    visitor = world.visitor()
    visitor.feed(request)
    await world.until(lambda: started)
    return await _move(world, visitor, started[0])


@dataclass(frozen=True, slots=True)
class Script:
    """A script, what its calls are counted per, and by how much they are divided."""

    run: Callable[[World], Awaitable[Count]]
    unit: str
    units: int


SCRIPTS: dict[str, Script] = {
    "small": Script(small, "request", UNITS),
    "small-together": Script(small_together, "request", UNITS // TOGETHER * TOGETHER),
    "varied": Script(varied, "request", UNITS),
    "post": Script(post, "request", UNITS),
    "event": Script(event, "event", UNITS),
    "message": Script(message, "message and echo", UNITS),
    "download": Script(download, "MiB", BULK // MIB),
    "upload": Script(upload, "MiB", BULK // MIB),
}


def run(name: str) -> Count:
    """One script, the second time: since Python 3.12 the first traced call of a function counts no bytecodes."""
    _run_once(name)
    return _run_once(name)


def _run_once(name: str) -> Count:
    """One script on a world of its own."""

    async def main() -> Count:
        world = World()
        await world.established()
        try:
            return await SCRIPTS[name].run(world)
        finally:
            await world.aclose()

    with asyncio.Runner(loop_factory=CostLoop) as runner:
        return runner.run(main())
